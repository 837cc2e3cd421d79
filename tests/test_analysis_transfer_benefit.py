from __future__ import annotations

import json

import numpy as np
import pytest
from training_models import coloured, small_model, splits
from typer.testing import CliRunner

from tl_keras.analysis.transfer_benefit import (
    compare_transfer,
    fresh,
    scratch_plan,
    transfer_verdict,
)
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError
from tl_keras.training.plan import Plan, Stage, named_plan
from tl_keras.utils.stats import paired_difference


def right(accuracy, pictures=400, seeds=3, seed=0):
    return np.random.default_rng(seed).uniform(size=(seeds, pictures)) < accuracy


@pytest.mark.parametrize(
    ("pretrained", "scratch", "word"),
    [(0.95, 0.8, "helps"), (0.7, 0.85, "hurts"), (0.9, 0.9, "no difference")],
)
def test_the_word_follows_the_difference(pretrained, scratch, word):
    found = transfer_verdict(right(pretrained), right(scratch, seed=1))
    assert found.word == word
    assert found.low < found.difference < found.high
    assert f"{100 * found.difference:+.1f} points" in found.sentence


def test_equal_ways_are_told_apart_in_one_of_twenty_cases_at_most():
    words = [
        transfer_verdict(right(0.9, 200, 3, s), right(0.9, 200, 3, s + 1000)).word
        for s in range(60)
    ]
    assert sum(word != "no difference" for word in words) <= 5


def test_pairing_pictures_makes_the_interval_narrower():
    hard = np.random.default_rng(0).uniform(size=300) < 0.7
    better = hard | (np.random.default_rng(1).uniform(size=300) < 0.1)
    _, low, high = paired_difference(better, hard)
    _, wide_low, wide_high = paired_difference(better, np.random.default_rng(2).permutation(hard))
    assert high - low < wide_high - wide_low
    assert low > 0


def test_the_interval_is_that_of_the_textbook_for_one_seed():
    a, b = right(0.8, 1000, 1)[0], right(0.7, 1000, 1, 1)[0]
    _, low, high = paired_difference(a, b)
    error = (a.astype(float) - b).std() / np.sqrt(1000)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_a_sure_difference_that_is_too_small_to_matter_is_none():
    scratch = np.ones((3, 4_000), bool)
    scratch[:, :24] = False
    found = transfer_verdict(np.ones_like(scratch), scratch)
    assert found.low > 0
    assert found.word == "no difference"


def test_ways_judged_on_other_pictures_are_refused():
    with pytest.raises(DataError, match="same pictures"):
        paired_difference(right(0.9, 10), right(0.9, 11))


def test_scratch_sees_the_pictures_as_often_and_trains_all():
    plan = scratch_plan(named_plan("lp-ft"))
    assert plan.epochs == named_plan("lp-ft").epochs
    assert plan.stages[0].train == ("all",)
    assert plan.stages[0].batchnorm == "train"


def test_a_fresh_model_is_the_same_graph_with_other_weights():
    model = small_model()
    other = fresh(model)
    assert [one.name for one in other.layers[1:]] == [one.name for one in model.layers[1:]]
    kernel = "block1_conv"
    assert not np.array_equal(
        other.get_layer(kernel).get_weights()[0], model.get_layer(kernel).get_weights()[0]
    )


@pytest.mark.slow
def test_a_base_that_knows_the_task_helps_and_one_with_dead_features_hurts():
    data = Splits(coloured(24, 0), coloured(30, 1), coloured(90, 2))
    knowing = small_model()
    from tl_keras.training.trainer import fit

    fit(knowing, splits(300, 60), scratch_plan(named_plan("full")), seed=0)
    good = knowing.get_weights()

    def helpful(seed):
        model = small_model()
        model.set_weights(good)
        return model

    def dead(seed):
        model = small_model()
        for layer in model.layers:
            if layer.name == "block1_bn":  # nothing passes, and no gradient comes back
                layer.set_weights([np.zeros(4), np.full(4, -9.0), np.zeros(4), np.ones(4)])
        return model

    short = Plan("probe", (Stage("head", ("head",), epochs=2, learning_rate=1e-3),), batch_size=8)
    assert compare_transfer(helpful, data, short, seeds=2).verdict.word == "helps"
    long = named_plan("lp-ft", batch_size=4)
    assert compare_transfer(dead, data, long, seeds=2).verdict.word == "hurts"


def test_one_seed_and_few_pictures_are_refused():
    with pytest.raises(PlanError, match="at least 2"):
        compare_transfer(lambda seed: small_model(), splits(), named_plan("probe"), seeds=1)
    few = Splits(coloured(24, 0), coloured(9, 1), None)
    with pytest.raises(DataError, match="got 9 pictures"):
        compare_transfer(lambda seed: small_model(), few, named_plan("probe"))


@pytest.mark.slow
def test_the_command_writes_a_page_with_a_picture(folder, tmp_path):
    from tl_keras.cli.app import app

    words = ["verdict", str(folder), "--base", "small_resnet", "--size", "16", "--epochs", "1"]
    words += ["--seeds", "2", "--test", "0.6", "--plan", "probe", "--out", str(tmp_path / "told")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "told" / "verdict.json").read_text())
    assert facts["word"] in ("helps", "hurts", "no difference")
    assert facts["sentence"] in " ".join(done.output.split())
    page = (tmp_path / "told" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "none"], "pretrained weights; got none"),
        (["--plan", "auto"], "one plan with scratch, got auto"),
        (["--seeds", "1"], "1 is not in its range, from 2"),
    ],
)
def test_what_cannot_be_judged_is_refused_at_once(folder, tmp_path, words, said):
    from tl_keras.cli.app import app

    done = CliRunner().invoke(
        app, ["verdict", str(folder), *words, "--out", str(tmp_path / "told")]
    )
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "told").exists()


def test_a_verdict_overwrites_nothing(folder, tmp_path):
    from tl_keras.cli.app import app

    (tmp_path / "report.html").write_text("of a run")
    words = ["verdict", str(folder), "--base", "small_resnet", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "choose another --out" in " ".join(done.output.split())
    assert (tmp_path / "report.html").read_text() == "of a run"
