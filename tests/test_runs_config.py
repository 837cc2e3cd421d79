from __future__ import annotations

import json

import pytest

from tl_keras.errors import RunError, TLKerasError
from tl_keras.models.build import build_model
from tl_keras.runs.config import RunConfig
from tl_keras.runs.prepare import plan_for

FULL = RunConfig.of(
    "photos", "small_resnet", 16, "none", plan="lora",
    settings={"batch_size": 8, "augment": "flip"}, epochs=(1, 2), lr_scale=0.5, adapt="block*",
    rank=2, minutes=10.0, task="tags", val=0.3, test=0.1, seed=7,
    dense=(4, 5), dropout=0.1, precision="float32", devices=2, save_every=1.0, skip_bad=True,
)  # fmt: skip
# As version 1 wrote it, field by field.
OLD = {
    "data": "photos", "base": "small_resnet", "size": 16, "weights": "none", "pooling": "avg",
    "dense": [4, 5], "dropout": 0.1, "plan": "lora",
    "settings": {"batch_size": 8, "augment": "flip"}, "epochs": [1, 2], "rate": 0.5,
    "task": "tags", "val": 0.3, "test": 0.1, "seed": 7, "precision": "float32", "devices": 2,
    "skip_bad": True, "save_every": 1.0, "adapt": "block*", "rank": 2, "minutes": 10.0,
}  # fmt: skip


def test_a_configuration_comes_back_from_its_record_and_from_that_of_version_1():
    written = json.loads(json.dumps(FULL.to_dict()))
    assert RunConfig.from_dict(written) == RunConfig.from_dict(OLD) == FULL
    assert (written["plan"]["name"], written["data"]["source"]) == ("lora", "photos")


def test_what_a_record_says_that_cannot_be_is_refused():
    for change in ({"version": 99}, {"plan": {"speed": 1}}, {"data": {}}, {"extra": {}}):
        with pytest.raises(RunError):
            RunConfig.from_dict({**FULL.to_dict(), **change})
    with pytest.raises(TLKerasError, match="nothere"):
        RunConfig.from_dict({**OLD, "base": "nothere"})
    with pytest.raises(TypeError, match="unknown option 'rate'"):
        FULL.replace(rate=2.0)


def test_a_stage_takes_the_learning_rate_given_for_it_and_the_factor_holds_for_the_others():
    model = build_model("small_resnet", 3, size=16, weights=None)
    given = RunConfig.of("digits", "small_resnet", 16, learning_rate=(6e-4,), lr_scale=0.5)
    rates = [stage.learning_rate for stage in plan_for(given, model).stages]
    assert rates == pytest.approx([6e-4, 2e-4])
