"""Plans with few parameters, from pictures to a run, stopped and resumed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tl_keras.errors import PlanError
from tl_keras.models.build import build_model
from tl_keras.peft.branches import branches
from tl_keras.peft.files import load_adapter
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.workflows.fit import resume, train


def small(folder, plan, **more):
    values = {"epochs": (1, 1), "save_every": 0, **more}
    return RunConfig.of(str(folder), "small_resnet", 32, plan=plan, **values)


def pixels(size=32):
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3)).astype("float32")


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory):
    from conftest import draw_folder

    place = tmp_path_factory.mktemp("lora")
    job = small(draw_folder(place / "photos"), "lora", epochs=(1, 3), rank=2, lr_scale=3.0)
    return train(job, place / "run")


def test_a_lora_run_ends_with_the_plain_model(lora_run):
    plain = build_model("small_resnet", 3, size=32)
    model = lora_run.model()
    assert [layer.name for layer in model.layers][1:] == [la.name for la in plain.layers][1:]
    assert not branches(model)


def test_the_file_beside_it_makes_the_same_model_of_a_fresh_base(lora_run):
    adapted = load_adapter(build_model("small_resnet", 3, size=32), lora_run.path / "adapter.npz")
    left, right = np.asarray(adapted(pixels())), np.asarray(lora_run.model()(pixels()))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


def test_the_record_says_rank_layers_and_share(lora_run):
    record = RunDirectory(lora_run.path).record
    facts = record["adaptation"]
    assert set(facts["branches"]["lora"].values()) == {2}
    assert 0 < facts["share"] < 0.06
    learnt = facts["parameters"]["branches"] + facts["parameters"]["head"]
    assert record["stages"][-1]["trainable_parameters"] == learnt
    report = (lora_run.path / "report.html").read_text(encoding="utf-8")
    assert f"lora on {len(facts['branches']['lora'])} layer" in report and "(width 2)" in report
    assert (record["config"]["plan"]["rank"], record["config"]["plan"]["adapt"]) == (2, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapt": "no_such*"}, "selector 'no_such\\*' matches no layer"),
        ({"rank": 500}, "no branch|larger than layer"),
        ({"rank": 500, "adapt": "*conv*"}, "rank 500 is larger than layer"),
    ],
)
def test_what_cannot_be_adapted_leaves_no_run(folder, tmp_path, change, message):
    with pytest.raises(PlanError, match=message):
        train(small(folder, "lora", **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_layers_to_adapt_need_a_plan_that_adapts():
    with pytest.raises(PlanError, match="plan 'probe', which adapts none"):
        RunConfig.of("/no/such/folder", plan="probe", adapt="block*")


CHILD = """
import os, signal, sys
from tl_keras.utils.quiet import start_tensorflow
start_tensorflow()
from tl_keras.runs.config import RunConfig
from tl_keras.workflows.fit import train

data, out, plan = sys.argv[1:4]

def progress(name, done, total):
    if name == f"stage {plan}" and done >= 3:
        os.kill(os.getpid(), signal.SIGKILL)

train(RunConfig.of(data, "small_resnet", 32, plan=plan, epochs=(1, 2), dropout=0.2,
          settings={"augment": "affine", "batch_size": 8}, save_every=0), out, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["lora", "bias"])
def test_a_run_killed_in_its_second_stage_ends_with_the_same_bits(folder, tmp_path, plan):
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "killed"), plan]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == -9
    settings = {"augment": "affine", "batch_size": 8}
    job = small(folder, plan, epochs=(1, 2), dropout=0.2, settings=settings)
    runs = [train(job, tmp_path / "undisturbed"), resume(tmp_path / "killed")]
    left, right = (run.model().get_weights() for run in runs)
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    if plan != "bias":
        files = [np.load(run.path / "adapter.npz", allow_pickle=False) for run in runs]
        assert all(np.array_equal(files[0][name], files[1][name]) for name in files[0].files)


@pytest.mark.slow
def test_a_run_cut_between_training_and_its_end_is_merged_on_resume(folder, tmp_path, monkeypatch):
    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tl_keras.workflows.fit.finish", cut)
        with pytest.raises(KeyboardInterrupt):
            train(small(folder, "lora"), tmp_path / "run")
    run = resume(tmp_path / "run")
    assert run.complete
    assert not branches(run.model())
