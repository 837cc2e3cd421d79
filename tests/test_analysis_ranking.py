from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import NAMES
from training_models import coloured, small_model
from typer.testing import CliRunner

from tl_keras.analysis.candidates import Candidate, parse_candidates
from tl_keras.analysis.ranking import (
    Appraisal,
    Costs,
    Rates,
    advice,
    as_good,
    fine_tune_seconds,
    in_order,
    recommendation,
)
from tl_keras.cli.app import app
from tl_keras.errors import DataError, ModelError
from tl_keras.reports.ranking_report import write_ranking_report
from tl_keras.workflows.advise import appraise, choose_samples, score_features


def appraisal(name, likelihood, ridge, latency=5.0):
    scores = {"ridge_log_likelihood": likelihood, "ridge": ridge, "knn": ridge - 0.05,
              "logme": likelihood, "h_score": 1.0}  # fmt: skip
    spans = {key: (scores[key] - 0.04, scores[key] + 0.03) for key in ("ridge", "knn")}
    return Appraisal(name, scores, spans, Costs(60.0, 9_000_000, latency, 4.0), 64)


FOUND = [
    appraisal("weak", -1.0, 0.6),
    appraisal("slow", -0.2, 0.95, 40.0),
    appraisal("fast", -0.25, 0.93, 4.0),
]


def test_candidates_are_in_the_order_of_their_promise():
    assert [one.name for one in in_order(FOUND)] == ["slow", "fast", "weak"]
    with pytest.raises(DataError, match="no score 'leep'; expected one of ridge_log_likelihood"):
        in_order(FOUND, "leep")


def test_the_fastest_of_those_that_are_as_good_is_named():
    assert [one.name for one in as_good(FOUND)] == ["slow", "fast"]
    words = recommendation(FOUND)
    assert words.startswith("slow promises most: ridge accuracy 95.0 %.")
    assert words.endswith("fast is not clearly worse (93.0 %) and 10.0 times as fast.")
    assert "weak" not in words
    assert recommendation(FOUND[:1]) == "weak promises most: ridge accuracy 60.0 %."


def test_the_time_of_fine_tuning_counts_every_view_and_epoch():
    assert fine_tune_seconds(100, 4, 5, Rates(200.0, 20.0)) == pytest.approx(2 + 25)


def test_a_word_names_base_width_size_layers_and_weights():
    text = "mobilenet_v2@0.35:160:block_3_expand_relu=none, resnet50, vgg16:64"
    assert parse_candidates(text, 96) == [
        Candidate(
            "mobilenet_v2@0.35:160:block_3_expand_relu=none", "mobilenet_v2@0.35", 160,
            "block_3_expand_relu", "none",
        ),
        Candidate("resnet50", "resnet50", 96),
        Candidate("vgg16:64", "vgg16", 64),
    ]  # fmt: skip


def test_a_weights_file_is_named_where_it_makes_the_difference():
    names = [one.name for one in parse_candidates("vgg16=/a/b.h5,resnet50=/a/c.h5,vgg16=none")]
    assert names == ["vgg16=b.h5", "resnet50", "vgg16=none"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mobilnet_v2", "nearest are: mobilenet_v2"),
        (" ,", "expected base"),
        ("vgg16,vgg16", "named twice"),
        ("nowhere.keras", "does not exist"),
        ("vgg16:a:b", "expected base"),
        ("inception_v3:64", "75 px or more"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused(text, message):
    with pytest.raises(ModelError, match=message):
        parse_candidates(text)


def test_pictures_are_chosen_alike_from_every_class_and_never_from_the_test():
    samples = coloured(90, 0)
    words = ("test",) * 30 + ("train",) * 60
    marked = dataclasses.replace(samples, splits=words)
    chosen = choose_samples(marked, 24)
    assert chosen.counts() == {"red": 8, "green": 8, "blue": 8}
    assert set(chosen.splits) == {"train"}
    assert choose_samples(marked, 24).keys == chosen.keys
    assert choose_samples(marked, 24, seed=1).keys != chosen.keys


def test_fewer_than_two_pictures_of_a_class_are_refused_by_name():
    with pytest.raises(DataError, match="two pictures or more of each class.*blue has 1"):
        choose_samples(coloured(5, 0), 24)


def test_ridge_scores_are_those_of_the_closed_form_head():
    from tl_keras.probing.linear import ridge

    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 5)) + labels[:, None]
    scores, spans = score_features(features, labels, 3)
    assert scores["ridge"] == ridge(features, labels, 3).facts["loo_accuracy"]
    assert spans["ridge"][0] < scores["ridge"] < spans["ridge"][1]


@pytest.fixture(scope="module")
def found():
    samples = choose_samples(coloured(60, 0), 30)
    candidate = parse_candidates("small_resnet:16=none,small_resnet:16:stage1_block2_relu=none")
    return [appraise(one, samples, 60) for one in candidate]


def test_what_a_candidate_costs_is_measured(found):
    whole, cut = found
    assert whole.dimensions > cut.dimensions
    assert whole.costs.size > 2 * cut.costs.size > 0
    assert whole.costs.latency > cut.costs.latency > 0
    assert whole.costs.fine_tuning > 0
    assert whole.facts["at"] == "stage3_block2_relu"


def test_leep_is_there_where_the_base_has_a_classifier(tmp_path):
    import keras

    plain = small_model(4)
    pooled = plain.get_layer("head_avg_pool").output
    # As published: the features before the answers.
    keras.Model(plain.inputs, [pooled, plain.outputs[0]]).save(tmp_path / "own.keras")
    samples = choose_samples(coloured(60, 0), 30)
    one = appraise(parse_candidates(str(tmp_path / "own.keras"))[0], samples, 60)
    assert one.name == "own.keras"
    assert -2 < one.scores["leep"] <= 0
    assert one.intervals["matching"][0] <= one.scores["matching"] <= one.intervals["matching"][1]
    assert sorted(one.matches) == ["blue", "green", "red"]
    assert {0} < {i for found in one.matches.values() for i, _ in found} | {0} <= {0, 1, 2, 3}
    page = write_ranking_report(tmp_path / "advice", "Bases", advice([one, appraisal("x", 0, 0.5)]))
    assert "What own.keras calls your classes" in page.read_text(encoding="utf-8")
    assert "leep" not in appraisal("x", 0, 0.5).scores


def test_the_page_shows_every_candidate_and_needs_nothing_else(tmp_path):
    page = write_ranking_report(
        tmp_path / "advice", "Bases for <photos>", {"pictures": 30, **advice(FOUND)}
    )
    html = page.read_text(encoding="utf-8")
    assert "&lt;photos&gt;" in html
    assert all(one.name in html for one in FOUND)
    assert "http" not in html.partition("<body>")[2]
    assert "data:image/png" in html
    record = json.loads((page.parent / "advice.json").read_text())
    assert [one["name"] for one in record["candidates"]] == ["slow", "fast", "weak"]
    assert record["recommendation"] == recommendation(FOUND)


def run(*words):
    return CliRunner().invoke(app, ["advise", *map(str, words)])


def test_the_command_ranks_the_candidates(folder, tmp_path):
    bases = "small_resnet:16,small_resnet:16:stage1_block2_relu=none"
    (folder / NAMES[0] / "bad.png").write_text("text")
    result = run(folder, "--bases", bases, "--out", tmp_path / "advice")
    assert result.exit_code == 2 and "bad.png: no image" in result.stderr
    result = run(folder, "--bases", bases, "--out", tmp_path / "advice", "--skip-bad")
    assert result.exit_code == 0, result.output
    assert "promises most" in result.stdout
    assert "fine-tuning them all would take about" in result.stdout
    assert {p.name for p in (tmp_path / "advice").iterdir()} == {
        "report.html", "advice.png", "advice.json",
    }  # fmt: skip
    again = run(folder, "--bases", bases, "--out", tmp_path / "advice")
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_too_few_pictures_leave_nothing_behind(folder, tmp_path):
    shutil.rmtree(folder / NAMES[0])
    (folder / "one more").mkdir()
    shutil.copy(folder / NAMES[1] / "0.png", folder / "one more" / "0.png")
    result = run(folder, "--bases", "small_resnet", "--out", tmp_path / "advice")
    assert result.exit_code == 2
    assert "one more has 1" in " ".join(result.stderr.split())
    assert not (tmp_path / "advice").exists()
