"""Plans check themselves and survive JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tl_keras.errors import PlanError
from tl_keras.training.optimizers import warmup_cosine
from tl_keras.training.plan import PLAN_NAMES, Plan, Stage, named_plan


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_a_plan_survives_json(name: str) -> None:
    plan = named_plan(name, batch_size=8, augment="flip")
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_record_whose_stages_have_a_rate_is_read() -> None:
    plan = named_plan("lp-ft")
    record = plan.to_dict()
    for stage in record["stages"]:
        stage["rate"] = stage.pop("learning_rate")
    assert Plan.from_dict(record) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("learning_rate", -1.0), ("decay", 1.5),
     ("warmup", 1.0),
     ("patience", -1), ("train", ()), ("batchnorm", "off")],
)  # fmt: skip
def test_a_stage_refuses_a_value_out_of_range(field: str, value: object) -> None:
    good = Stage("head", ("head",), 1, 1e-3)
    with pytest.raises(PlanError, match=f"stage 'head': {field} is"):
        dataclasses.replace(good, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("views", 0), ("label_smoothing", 1.0), ("weight_decay", -1.0),
     ("cache_dtype", "int8"), ("stages", ())],
)  # fmt: skip
def test_a_plan_refuses_a_value_out_of_range(field: str, value: object) -> None:
    with pytest.raises(PlanError, match=field):
        named_plan("probe", **{field: value}) if field != "stages" else Plan("empty", ())


def test_two_stages_of_one_name_are_refused() -> None:
    stage = Stage("head", ("head",), 1, 1e-3)
    with pytest.raises(PlanError, match="different names"):
        Plan("twice", (stage, stage))


def test_an_unknown_plan_offers_the_nearest() -> None:
    with pytest.raises(PlanError, match="Did you mean gradual"):
        named_plan("gradul")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(PlanError, match="batchsize"):
        named_plan("probe", batchsize=3)


def test_gradual_goes_down_block_by_block_at_falling_rates() -> None:
    plan = named_plan("gradual", blocks=4)
    selectors = [stage.train[-1] for stage in plan.stages]
    assert selectors == ["head", "blocks:1", "blocks:2", "blocks:3", "all"]
    rates = [stage.learning_rate for stage in plan.stages]
    assert rates == sorted(rates, reverse=True)


def test_the_rate_climbs_to_its_peak_and_falls_to_nothing() -> None:
    rates = [warmup_cosine(step, 100, 0.5, warmup=0.1) for step in range(101)]
    assert rates[9] == pytest.approx(0.5)
    assert all(a < b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a >= b for a, b in zip(rates[10:100], rates[11:], strict=True))
    assert rates[55] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0.0)
