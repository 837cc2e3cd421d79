"""A run killed at random moments ends with the same bits as one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_folder

KILLS = 10  # of each of the three kinds
PLANS = {"lp-ft": (4, 2), "gradual": (2, 1, 1, 1), "tuned": (1, 3)}


def configure(place: Path, plan: str):
    from tl_keras.runs.config import RunConfig

    return RunConfig.of(
        str(place / "photos"), str(place / "backbone.keras"), plan=plan, epochs=PLANS[plan],
        dropout=0.2, settings={"augment": "flip", "views": 2, "batch_size": 8}, save_every=0.0,
        precision="float32", test=0.2,
    )  # fmt: skip


def work(kind: str, place: Path, out: Path) -> None:
    """Begin a run or go on with it; what the forked process does until it is killed."""
    from tl_keras.runs.directory import RunDirectory
    from tl_keras.utils.quiet import silenced, start_tensorflow
    from tl_keras.workflows.fit import resume, train
    from tl_keras.workflows.update import UpdateConfig, update

    with silenced():
        start_tensorflow()
        if kind == "update":
            asked = UpdateConfig(
                str(place / "known"), str(place / "new"), epochs=(3, 2), keep=("replay", "ewc")
            )
            update(asked, out)
        elif (out / "run.json").exists():
            # One killed on its way out is complete.
            if not RunDirectory(out).complete:
                resume(out)
        else:
            train(configure(place, kind), out)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    import keras

    from tl_keras.workflows.fit import train

    layers = keras.layers
    folder = tmp_path_factory.mktemp("kills")
    draw_folder(folder / "photos", ("a", "b"), count=12)
    draw_folder(folder / "new", ("c",), count=10, seed=1)
    keras.utils.set_random_seed(0)
    inner = [
        layer
        for width in (4, 8, 8)
        for layer in (
            layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization(),
            layers.ReLU(), layers.MaxPooling2D(),
        )
    ]  # fmt: skip
    keras.Sequential([layers.Input((16, 16, 3)), *inner]).save(folder / "backbone.keras")
    train(configure(folder, "lp-ft"), folder / "known")
    return folder


@pytest.fixture(scope="module")
def server():
    """Processes are forked off one that has imported all and done nothing: no second is lost."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tensorflow", "keras", "tl_keras.workflows.update"])
    return found


def outcome(run: Path) -> list[np.ndarray | str]:
    import keras

    weights = keras.saving.load_model(run / "model.keras", compile=False).get_weights()
    return [*weights, *(row.rsplit(",", 1)[0] for row in (run / "history.csv").open())]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lp-ft", "gradual", "tuned", "update"])
def test_killed_at_random_moments_it_ends_with_the_same_bits(kind, place, server, tmp_path):
    def start(out):
        process = server.Process(target=work, args=(kind, place, out))
        process.start()
        return process

    began = time.monotonic()
    start(tmp_path / "undisturbed").join()
    whole, chance = time.monotonic() - began, random.Random(kind)
    kills, runs = 0, [tmp_path / "0"]
    while kills < KILLS:
        process = start(runs[-1])
        process.join(chance.uniform(0.05, 0.7) * whole)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
            runs.append(tmp_path / str(len(runs)))
    start(runs[-1]).join()
    expected = outcome(tmp_path / "undisturbed")
    for run in runs:
        assert all(map(np.array_equal, outcome(run), expected))
        assert sorted(path.name for path in run.rglob(".tl_keras-*")) == []
    assert list(tmp_path.glob(".tl_keras-*")) == []
