"""A run killed at any moment ends with the same weights as one that was left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHILD = """
import json, os, signal, sys
from tl_keras.utils.quiet import start_tensorflow
start_tensorflow()
from tl_keras.runs.config import RunConfig
from tl_keras.workflows.fit import resume, train

out, task, at = sys.argv[1], sys.argv[2], int(sys.argv[3])

def progress(name, done, total):
    if name == task and done >= at:
        os.kill(os.getpid(), signal.SIGKILL)

settings = {"augment": "affine", "views": 2, "batch_size": 16}
job = RunConfig.of("digits", "small_resnet", 16, "none", dropout=0.2, plan="lp-ft",
          settings=settings, epochs=(6, 3), save_every=0)
if os.path.exists(out):
    resume(out, progress=progress)
else:
    train(job, out, progress=progress)
"""

KILLS = [
    ("features, train, view 2", 64),
    ("stage head", 23),
    ("stage all", 3),
    ("stage all", 17),
    ("scores, test", 512),
]


def _child(out: Path, task: str = "", at: int = 0) -> int:
    command = [sys.executable, "-c", CHILD, str(out), task, str(at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, -9):
        pytest.fail(done.stderr[-3000:])
    return done.returncode


def _weights(run: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(run / "model.keras", compile=False).get_weights()


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert _child(tmp_path / "undisturbed") == 0
    for task, at in KILLS:
        assert _child(tmp_path / "killed", task, at) == -9, f"not killed in {task}"
        if task.startswith("features"):
            assert list((tmp_path / "killed" / "state" / "features").rglob("*.part"))
    assert _child(tmp_path / "killed") == 0
    left, right = _weights(tmp_path / "undisturbed"), _weights(tmp_path / "killed")
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    assert not (tmp_path / "killed" / "state").exists()
    rows = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / name / "history.csv").open()]
        for name in ("undisturbed", "killed")
    ]
    assert rows[0] == rows[1]


def test_resuming_a_complete_run_is_refused(tmp_path: Path) -> None:
    from tl_keras.errors import RunError
    from tl_keras.runs.directory import RunDirectory
    from tl_keras.workflows.fit import resume

    RunDirectory.create(tmp_path / "run", {"state": "complete"})
    with pytest.raises(RunError, match="nothing to resume"):
        resume(tmp_path / "run")


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    from tl_keras.errors import RunError
    from tl_keras.runs.directory import RunDirectory

    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(RunError, match="schema 99, this version reads up to 2"):
        RunDirectory(tmp_path)


def test_a_half_written_record_is_named(tmp_path: Path) -> None:
    from tl_keras.errors import RunError
    from tl_keras.runs.directory import RunDirectory

    (tmp_path / "run.json").write_text('{"schema": 1, "sta')
    with pytest.raises(RunError, match="does not read"):
        RunDirectory(tmp_path)
    assert os.listdir(tmp_path) == ["run.json"]
