"""Each image of a run has one duty, and a run leaves whatever splits it has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from export_models import settle, small_model

from export.bundle.golden import verify_bundle
from export.pipeline import ExportConfig, export
from export.quantize.search import Limits
from export.source import allot, from_run
from tl_keras.data.builtin import builtin
from tl_keras.data.samples import from_arrays
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.runs.directory import RunDirectory


def some(count, start=0):
    shown = np.full((count, 8, 8, 3), 0, np.uint8)
    keys = [str(start + index) for index in range(count)]
    return from_arrays(shown, np.arange(count) % 2, ["a", "b"], keys=keys)


def parted(train, val=0, test=0):
    last = some(test, 20_000) if test else None
    return Splits(some(train), some(val or 2, 10_000).take(range(val)), last)


@pytest.mark.parametrize(
    ("splits", "figures", "choice", "calibration"),
    [
        (parted(244), {"held-back training images": 61}, {"training images": 122}, 61),
        (parted(244, 0, 153), {"test images": 153}, {"training images": 122}, 122),
        (parted(200, 46), {"validation images": 23},
         {"validation images": 23, "training images": 100}, 100),
        (parted(200, 46, 153), {"test images": 153},
         {"validation images": 46, "training images": 100}, 100),
        (parted(5000), {"held-back training images": 500}, {"training images": 500}, 4000),
        (parted(900, 800, 9), {"test images": 9}, {"validation images": 800}, 900),
        (parted(2), {"held-back training images": 1}, {}, 1),
    ],
)  # fmt: skip
def test_figures_choice_and_calibration_come_from_different_images(
    splits, figures, choice, calibration
):
    found = allot(splits)
    assert {found.figures.name: len(found.figures.samples)} == figures
    assert {one.name: len(one.samples) for one in found.choice} == choice
    assert len(found.calibration) == calibration
    parts = [found.figures.samples, found.calibration, *(one.samples for one in found.choice)]
    keys = [key for part in parts for key in part.keys]
    assert len(set(keys)) == len(keys)
    learned = {"training images", "held-back training images"}
    assert all(one.labelled == (one.name not in learned) for one in (found.figures, *found.choice))
    # What is trained on has none of those that figures come from.
    assert not set(found.data.train.keys) & set(found.figures.samples.keys)


def test_images_without_labels_stand_in_for_training_images():
    found = allot(parted(244, 0, 153), some(600, 30_000))
    assert [(one.name, len(one.samples)) for one in found.choice] == [("unlabeled images", 600)]
    assert len(found.calibration) == 244
    few = allot(parted(244, 0, 153), some(100, 30_000), 20)
    assert {one.name: len(one.samples) for one in few.choice} == {
        "unlabeled images": 20, "training images": 20,
    }  # fmt: skip
    assert len(few.figures.samples) == 20


def test_shares_are_stratified():
    found = allot(parted(244))
    for part in (found.figures.samples, found.choice[0].samples, found.calibration):
        assert abs(np.bincount(part.labels) - len(part) / 2).max() <= 1


def test_a_run_without_any_image_is_refused():
    with pytest.raises(ExportError, match="no images to compare on"):
        allot(Splits(some(2).take([]), some(2).take([]), None))


@pytest.fixture(scope="module")
def model():
    samples = builtin("digits")
    made = small_model(outputs=10)
    settle(made, samples.reader(made).read(range(32), 0)["image"])
    return made


@pytest.mark.parametrize("words", [("train",), ("train", "val"), ("train", "test")])
def test_a_run_leaves_whatever_splits_it_has(model, words, tmp_path):
    """Digits, 10 of 11 to train on; int8, from the run directory to a bundle that checks."""
    samples = builtin("digits")
    last = np.arange(len(samples)) % 11 == 0
    others = samples.take(last)
    splits = Splits(
        samples if len(words) == 1 else samples.take(~last),
        others if "val" in words else samples.take([]),
        others if "test" in words else None,
    )
    facts = {"root": "builtin:digits", "task": "classes"}
    record = {"state": "incomplete", "data": facts, "classes": list(samples.class_names)}
    run = RunDirectory.create(tmp_path / "run", record)
    model.save(run.path / "model.keras")
    run.write_split(splits)
    run.write_labels(samples.class_names)
    run.finish()
    config = ExportConfig(("tflite",), ("int8",), Limits(0.05, train=False), fresh=False)
    _, small = export(from_run(run.path, samples=200), config, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").passed
    figures = {"train": "held-back training", "val": "validation", "test": "test"}[words[-1]]
    counts = {"train": 200, "val": 82, "test": 164}
    assert small.verdict.images == {f"{figures} images": counts[words[-1]]}
    assert (small.verdict.accuracy is None) == (words[-1] == "train")
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert f"{figures} images" in manifest["images"]["figures"]
    assert f"on {counts[words[-1]]} {figures} images" in (
        " ".join((tmp_path / "bundle/README.md").read_text().split())
    )
