"""Texts go the whole way: from a table to a run, its report, new texts and a bundle."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from text_models import save_bert_folder

from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory

GOOD, BAD = ("good", "great"), ("bad", "awful")


def write_table(path, count=80, seed=0, third="", split=""):
    draw = np.random.default_rng(seed)
    rows = ["text,label" + (",split" if split else "")]
    for number in range(count):
        label = "pn"[number % 2]
        words = draw.choice(["the", "movie", "film", "plot", "was", "it", "and"], 4).tolist()
        words.insert(int(draw.integers(5)), str(draw.choice(GOOD if label == "p" else BAD)))
        words.append(f"{''.join(draw.choice(list('abcdefgh'), 3))}{third}")
        rows.append(f"{' '.join(words)},{label}" + (f",{split}" if split else ""))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    save_bert_folder(folder / "net")
    write_table(folder / "data.csv")
    write_table(folder / "test.csv", 40, seed=1)
    return folder


@pytest.fixture(scope="module")
def run(place):
    from tl_keras.workflows.fit import train

    config = RunConfig.of(
        str(place / "data.csv"), f"bert:{place / 'net'}", task="text", epochs=(1, 2))
    return train(config, place / "run")


def test_a_run_on_texts_learns_and_carries_its_tokenizer(place, run):
    from tl_keras.workflows.evaluate import evaluate_run, predict_files

    assert run.record["data"]["modality"] == "text"
    assert (run.path / "vocab.txt").read_bytes() == (place / "net/vocab.txt").read_bytes()
    assert run.record["metrics"]["out_of_fold"]["accuracy"]["value"] > 0.7
    found = evaluate_run(run.path, str(place / "test.csv"), None, lambda *_: None)
    assert found["accuracy"]["value"] > 0.7
    again = RunDirectory(run.path).modality
    assert again.settings == run.record["data"]["reading"] and again.length == run.record["size"]
    rows = predict_files(run.path, [place / "test.csv"], 1, lambda *_: None, texts=["it was awful"])
    assert rows[0]["path"] == "it was awful" and rows[0]["outputs"][0]["name"] == "n"
    assert len(rows) == 41 and rows[1]["path"].endswith("test.csv, row 1")


def test_a_run_opens_and_answers_when_its_base_is_gone(place, run):
    from tl_keras.workflows.evaluate import predict_files

    (place / "net").rename(place / "moved")
    try:
        assert RunDirectory(run.path).config.model.backbone == f"bert:{place / 'net'}"
        rows = predict_files(run.path, [], 1, lambda *_: None, texts=["it was awful"])
        assert rows[0]["outputs"][0]["name"] == "n"
    finally:
        (place / "moved").rename(place / "net")


def test_the_report_shows_texts_and_what_simple_answers_give(run):
    names = [one["name"] for one in run.record["baselines"]]
    assert names == ["words alone", "class names alone"]
    assert run.record["baselines"][0]["metrics"]["accuracy"]["value"] > 0.8
    page = re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", (run.path / "report.html").read_text())
    assert "What simple answers give" in page and "words alone" in page
    assert "Its worst mistakes" not in page or "<blockquote>" in (
        run.path / "report.html").read_text()
    assert not re.findall(r".*\b(?:image|picture|photo|pixel|px)\b.*", page, re.I)


def test_a_text_that_is_in_the_test_split_is_not_learned_from(place, tmp_path):
    from tl_keras.runs.prepare import prepare

    text = (place / "data.csv").read_text().splitlines()
    rows = [f"{text[0]},split", *(f"{row},train" for row in text[1:]),
            *(f"{row},test" for row in text[1:7])]  # fmt: skip
    path = tmp_path / "shared.csv"
    path.write_text("\n".join(rows))
    config = RunConfig.of(str(path), f"bert:{place / 'net'}", task="text")
    data = prepare(config, lambda *_: None)
    assert len(data.splits.train) == 74 and len(data.splits.test) == 6
    assert any("6 texts" in note for note in data.notes)


def test_other_scripts_and_unknown_words_are_told_of(place, tmp_path):
    from tl_keras.runs.prepare import load

    path = tmp_path / "a.csv"
    hello = "\u043f\u0440\u0438\u0432\u0435\u0442"
    path.write_text(f"text,label\nthe film,a\nit was bad,b\n{hello},a\n")
    samples = load(RunConfig.of(str(path), f"bert:{place / 'net'}", task="text"))
    notes = " ".join(samples.modality.check(samples).notes)
    assert "1 in cyrillic" in notes and "not in the base's vocabulary" in notes


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["lora", "lp-ft", "gradual", "full"])
def test_plans_of_stages_train_texts(place, tmp_path, plan):
    from tl_keras.workflows.fit import train

    data = str(write_table(tmp_path / "more.csv", 240))
    config = RunConfig.of(
        data, f"bert:{place / 'net'}", task="text", plan=plan, test=0.25,
        settings={"augment": "drop", "batch_size": 8},
        lr_scale=10.0 if plan in ("lp-ft", "gradual") else 3.0,
    )  # fmt: skip
    run = train(config, tmp_path / "run")
    assert run.record["metrics"]["test"]["accuracy"]["value"] > 0.65
    if plan == "lora":
        adapted = json.dumps(run.record["adaptation"])
        assert "query" in adapted and "value" in adapted and "up" not in adapted


@pytest.mark.slow
def test_every_other_job_takes_texts(place, run, tmp_path):
    from tl_keras.probing.probe import ProbeOptions
    from tl_keras.workflows.drift import report_drift
    from tl_keras.workflows.probe import ProbeConfig, probe
    from tl_keras.workflows.update.config import UpdateConfig
    from tl_keras.workflows.update.run import update

    new = str(write_table(tmp_path / "new.csv", 60, seed=2, third="x"))
    assert report_drift(run.path, new, out=tmp_path / "drift").page.exists()
    config = RunConfig.of(str(place / "data.csv"), f"bert:{place / 'net'}", task="text", test=0.25)
    made = probe(ProbeConfig(config, options=ProbeOptions("ridge")), tmp_path / "probe")[0]
    assert made.record["metrics"]["test"]["accuracy"]["value"] > 0.7
    updated = update(UpdateConfig(str(run.path), new, epochs=(2, 2)), tmp_path / "updated")
    assert updated.complete and updated.modality.settings == run.modality.settings


def test_a_word_weighs_what_its_absence_takes_from_the_answer():
    from tl_keras.analysis.occlusion import weigh_words

    def ask(texts):
        sure = np.array([0.5 + 0.3 * ("good" in text) - 0.2 * ("bad" in text) for text in texts])
        return np.stack([1 - sure, sure], axis=1)

    (first, second) = weigh_words(["a good bad film", "good"], [1, 0], ask)
    assert [word for word, _ in first] == ["a", "good", "bad", "film"]
    np.testing.assert_allclose([weight for _, weight in first], [0, 0.3, -0.2, 0], atol=1e-9)
    np.testing.assert_allclose(second[0][1], -0.3, atol=1e-9)


def test_the_page_of_a_label_check_exports_texts_as_a_table_that_fit_takes(place, tmp_path):
    from tl_keras.workflows.check_data import check_labels

    config = RunConfig.of(str(place / "data.csv"), f"bert:{place / 'net'}", task="text")
    page = tmp_path / "page.html"
    check_labels(config, page)
    source = page.read_text("utf-8")
    rows = json.loads(re.search(r'(?s)id="data">(.*?)</script>', source)[1])
    first = (place / "data.csv").read_text().splitlines()[1]
    assert rows["head"] == "text" and f"{rows['paths'][0]},{rows['labels'][0]}" == first
    assert "fit corrected.csv --task text" in source
