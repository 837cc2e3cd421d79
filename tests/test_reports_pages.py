"""Every page is read back as a reader's browser would: parsed, checked, and rendered."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import meta
from PIL import Image

from tl_keras import modalities
from tl_keras.errors import StorageError
from tl_keras.evaluation.calibration import fit_temperature
from tl_keras.evaluation.mistakes import collect_mistakes
from tl_keras.reports import figures as plots
from tl_keras.reports import html, run_report
from tl_keras.reports.drift_report import write_drift_report
from tl_keras.reports.filters import duration, thousands
from tl_keras.reports.ranking_report import write_ranking_report
from tl_keras.reports.run_report import write_report
from tl_keras.reports.transfer_report import write_transfer_report
from tl_keras.tasks import evaluate

EVIL = '<script>alert("x")</script>&\'"><img src=http://evil.example/x onerror=y>'
SHARE = {"value": 0.75, "low": 0.5, "high": 0.875}
VOID = {"meta", "img", "br", "link", "hr", "input", "wbr"}


class Reader(HTMLParser):
    """Collects tags, attributes, text, and tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def text_of(path) -> str:
    return " ".join(" ".join(read(path).text).split())


def a_run(names: list[str]) -> dict:
    return {
        "schema": 1, "state": "complete", "created": "2026-01-02T03:04:05", "seed": 7,
        "versions": {"tl_keras": "0.1.0", "keras": "3.15.1"},
        "data": {
            "root": f"/photos/{EVIL}", "task": "classes", "fingerprint": "sha256:abc123",
            "counts": {s: {n: 5 for n in names} for s in ("train", "val", "test")},
            "left_out": [{"path": f"a/{EVIL}.jpg", "reason": "zero bytes"}],
            "duplicates": [["a/1.png", "b/2.png"]],
        },
        "classes": names, "base": "mobilenet_v2", "weights": "imagenet", "size": 160,
        "head": {"pooling": "avg"},
        "plan": {"name": "lp-ft", "stages": [
            {"name": "head", "train": "head", "epochs": 20, "learning_rate": 1e-3},
            {"name": "all", "train": "all", "epochs": 8, "learning_rate": 1e-4}]},
        "stages": [{"name": "head", "trainable_parameters": 12810, "cut": "out_relu", "views": 4,
                    "epochs_run": 9, "best_epoch": 8, "best_val_accuracy": 0.8, "seconds": 3.21}],
        "precision": {"chosen": "float32", "reason": "bfloat16 was slower"},
        "timings": {"total": 125.0}, "metrics": {}, "command": f"tl-keras fit {EVIL}",
        "update": {
            "new_classes": [EVIL], "keep": ["replay"], "memory": {"exemplars": 9, "bytes": 2e6},
            "steps": [{"name": f"{k} {EVIL}"} for k in range(3)], "matrix": [[0.5, None, 1.0]] * 3,
            "accuracy": {EVIL: {"count": 8, "before": SHARE, "after": SHARE}},
            "forgetting": 0.25, "gone": 2,
        },
        "data_quality": {
            "suspect_count": 1, "near_duplicate_count": 1,
            "suspects": [{"key": f"a/{EVIL}.jpg", "split": "", "label": EVIL, "suggested": EVIL,
                          "score": 0.98}],
            "near_duplicates": [{"kind": "leak", "keys": [f"a/{EVIL}.jpg", "b/2.png"]}],
            "drop": {"reason": EVIL, "dropped": 1, "suspects": 1, "share": 1.0, "tried": [
                {"share": 1.0, "count": 1, "gain": 0.02, "low": 0.01, "high": 0.03,
                 "accuracy_before": 0.9, "accuracy_after": 0.91}]},
        },
        "probe": {"classifier": EVIL, "at": "relu", "found": {"C": 1.0, "note": EVIL},
                  "compared": [{"place": EVIL, "dimensions": 9, "accuracy": 0.5, "log_loss": 1.0}]},
        "baselines": [{"name": EVIL, "what": EVIL, "split": "test", "metrics": {"accuracy": {
            "value": 0.99, "low": 0.97, "high": 1.0}}}],
        "auto": {"plan": "top", "why": EVIL, "final": {"kept": EVIL}, "trials": [
            {"plan": "top", "share": 0.5, "accuracy": 0.75, "loss": 0.5, "seconds": 2.0},
            {"plan": "full", "share": 0.5, "accuracy": None, "loss": None, "note": EVIL,
             "seconds": 2.0}]},
        "distillation": {
            "why": EVIL, "kept": "alone", "views": 4, "seconds": {"teacher": 2.0},
            "lesson": {"loss": "kd+features", "temperature": 4, "alpha": 0.5, "mixup": 0.2},
            "teacher": {"name": EVIL, "parameters": 123456},
            "scores": {"alone": {"val": {"accuracy": SHARE}}, EVIL: {}},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    folder, data = tmp_path_factory.mktemp("run"), load_digits()
    model = LogisticRegression(C=50, max_iter=100).fit(data.data[:150], data.target[:150])
    names = [f"digit {k}" for k in range(9)] + [EVIL]
    given = {"val": slice(150, 400), "test": slice(400, 700)}
    predicted = {s: model.predict_proba(data.data[part]) for s, part in given.items()}
    temperature = fit_temperature(predicted["val"], data.target[given["val"]])
    figures = {s: evaluate(predicted[s], data.target[part], names, temperature=temperature)
               for s, part in given.items()}
    history = [{"stage": "head", "learning_rate": 1e-3, "loss": 1 / k, "accuracy": 1 - 1 / k,
                "val_loss": 1.1 / k, "val_accuracy": 0.95 - 1 / k} for k in range(2, 9)]
    labels = data.target[given["test"]]
    items = [(p * 15).astype(np.uint8) for p in data.images[given["test"]]]
    show = modalities.get("image").thumbnail
    found = collect_mistakes(items, show, predicted["test"], labels, names, 6)
    drawn = {
        "curves": plots.plot_curves(history, folder / "curves.png"),
        "confusion": plots.plot_confusion(figures["test"]["confusion"], names, folder / "c.png"),
        "reliability": plots.plot_reliability(predicted["test"], labels, folder / "r.png", 1.5),
        "mistakes": plots.plot_mistakes(found, folder / "m.png"),
    }
    path = write_report(folder / "report.html", run=a_run(names), history=history,
                        evaluations=figures, plots=drawn, mistakes=found)
    return path, figures, drawn, found, names


def drift_page(folder):
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(2, 20, 2))
    facts = {
        "pictures": {"new": 20}, "shifted": True, "mmd": {"p_value": 0.002, "value": 0.4},
        "domain": {"a_distance": 1.5}, "unlike": 0.3, "notes": [EVIL],
        "features": {"shifted": 1, "count": 9,
                     "strongest": [{"feature": 3, "shift": 1.0, "ks": 0.5, "p_value": 1e-9}]},
        "confidence": {"reference": 0.9, "new": 0.7, "low": -0.3, "high": -0.1},
        "accuracy": {"reference": 0.9, "true": None, **dict.fromkeys(
            ("estimated", "thresholded"), {"value": 0.7, "low": 0.6, "high": 0.8})},
        "classes": [{"name": EVIL, "reference_share": 0.5, "new_share": 0.5, "p_value": None,
                     "recall": None}],
        "remedy": {"name": EVIL, "known": {"pictures": 20, "before": 0.9, "after": 0.8,
                                           "change": {"low": -0.2, "high": 0.1}}},
    }  # fmt: skip
    evidence = {"null": rng.normal(size=50), "points": sides, "novelty": np.abs(sides[..., 0]),
                "confidence": np.abs(sides[..., 1])}  # fmt: skip
    shown = {0: Image.new("RGB", (9, 9)), 1: EVIL}
    return write_drift_report(folder, EVIL, facts, evidence, [EVIL] * 20, shown.get)


def transfer_page(folder):
    facts = {"low": -0.1, "difference": 0.0, "high": 0.1, "word": "no difference",
             "sentence": EVIL, "budget": EVIL}  # fmt: skip
    right = np.eye(3, dtype=bool)
    return write_transfer_report(folder, EVIL, facts, {"pretrained": right, "scratch": right})


def ranking_page(folder):
    one = {"name": EVIL, "scores": {"ridge": 0.5, "knn": 0.5, "logme": 1.0, "h_score": 2.0},
           "intervals": {"ridge": (0.4, 0.6), "knn": (0.4, 0.6)},
           "costs": {"size": 2e6, "latency": 1.5, "fine_tuning": 30.0}}  # fmt: skip
    advice = {"candidates": [one], "as_good": [EVIL], "recommendation": EVIL}
    return write_ranking_report(folder, EVIL, advice)


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return [made[0], *(write(folder / write.__name__)
                       for write in (drift_page, transfer_page, ranking_page))]  # fmt: skip


def test_a_page_needs_nothing_from_outside_and_runs_nothing(pages):
    for path in pages:
        page = read(path)
        assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
        for name, value in page.attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster"):
                assert value.startswith("data:image/")
        source = path.read_text(encoding="utf-8")
        assert "default-src 'none'" in source and "@import" not in source and "url(" not in source


def test_a_name_that_is_html_is_shown_as_text_on_every_page(pages):
    for path in pages:
        source = path.read_text(encoding="utf-8")
        assert "<script" not in source and "<img src=http" not in source
        assert EVIL in "".join(read(path).text)


def test_the_page_of_a_drift_says_how_many_images_there_are(pages):
    source = pages[1].read_text(encoding="utf-8")
    assert "<dt>new images</dt><dd>20</dd>" in source and "<td>20</td><td>90.0" in source


def test_every_section_has_its_template_and_gives_it_all_that_it_names(made):
    environment = html.environment()
    files = environment.list_templates(filter_func=lambda name: name.startswith("sections/"))
    assert files == sorted(f"sections/{name}.html.j2" for name in run_report.SECTIONS)
    facts = run_report.Facts(a_run(made[4]), [], made[1], made[2], made[3])
    for name, make in run_report.SECTIONS.items():
        source, *_ = environment.loader.get_source(environment, f"sections/{name}.html.j2")
        named = meta.find_undeclared_variables(environment.parse(source))
        assert named <= {*make(facts), *run_report.SHARED, "noun", "nouns"}, name


def test_a_task_that_nobody_knows_shows_all_its_figures(tmp_path):
    figures = {"task": "boxes", "count": 12, "map_50": {"value": 0.8, "low": 0.7, "high": 0.9},
               "seconds": 1.25, "per_box": [{"name": EVIL, "recall": 0.5, "note": None}],
               "curve": [1, 2, 3]}  # fmt: skip
    run = {"data": {"modality": "sound", "task": "boxes", "counts": {"train": {}, "val": {}}}}
    path = write_report(tmp_path / "r.html", run=run, history=[], evaluations={"val": figures},
                        plots={})  # fmt: skip
    text = text_of(path)
    for said in ("map 50", "0.8 (0.7 to 0.9)", "seconds", "1.25", "samples 12", "0.5", "–"):
        assert said in text, said
    assert EVIL in "".join(read(path).text)


def test_what_a_task_warns_of_stands_at_the_top(tmp_path):
    worse = evaluate(np.array([9.0, -4.0]), np.array([1.0, 2.0]), [EVIL], task="values")
    path = write_report(tmp_path / "r.html", run={}, history=[], evaluations={"val": worse},
                        plots={})  # fmt: skip
    assert "worse than by always saying its mean" in text_of(path).partition("Metrics")[0]


def test_the_figures_on_the_page_are_those_of_the_test_split(made):
    text, score = text_of(made[0]), made[1]["test"]["accuracy"]
    for share in (score["value"], score["low"], score["high"]):
        assert f"{100 * share:.1f}" in text
    assert f"{round(score['value'] * 300)} of 300 test images" in text
    for said in ("mobilenet_v2", "lp-ft", "2 min 05 s", "9 of 20", "out_relu", "12 810",
                 "2 earlier images are no longer", "+25.0 points: accuracy lost", "123 456 weights",
                 "student alone (this run)", "top 50 % 75.0 %", "C 1, note",
                 "sha256:abc123", "zero bytes", "keras 3.15.1", "bfloat16 was slower",
                 "more than once"):
        assert said in text.replace("\u202f", " "), said


def test_every_class_has_a_row_with_its_recall(made):
    source = made[0].read_text(encoding="utf-8")
    table = source.split("Class by class")[1].split("</table>")[0]
    rows = table.split("<tr>")[2:]
    assert len(rows) == 10
    for row, known in zip(rows, made[1]["test"]["per_class"], strict=True):
        assert f"{100 * known['recall']:.0f}\u202f%" in row
        assert f">{known['support']}<" in row


def test_every_image_in_the_page_opens_and_says_what_it_shows(made):
    source = made[0].read_text(encoding="utf-8")
    shown = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', source)
    assert len(shown) == 3 + len(made[3])  # three plots, and the gallery instead of its plot
    for content in shown:
        Image.open(io.BytesIO(base64.b64decode(content))).load()
    described = [v for k, v in read(made[0]).attributes if k == "alt"]
    assert len(described) == len(shown) and all(described)


def test_without_a_gallery_the_plot_of_the_mistakes_is_shown(made, tmp_path):
    path = write_report(tmp_path / "r.html", run={}, history=[], evaluations=made[1],
                        plots=made[2])
    assert path.read_text(encoding="utf-8").count("<img") == 4


def test_without_a_test_split_validation_speaks_and_the_page_says_so(made, tmp_path):
    path = write_report(tmp_path / "r.html", run={}, history=[], plots={},
                        evaluations={"val": made[1]["val"]})
    assert "250 validation images" in text_of(path)
    assert "no test split" in text_of(path)
    assert "no test split" not in text_of(made[0])


@pytest.mark.parametrize("run", [
    {}, {"data": None, "plan": None, "stages": None, "versions": None, "timings": None},
    {"data": {"counts": {"train": 5}, "left_out": ["a.jpg"], "duplicates": [{"paths": ["a"]}]},
     "stages": [{"name": "head"}], "plan": {"stages": [{}]}, "size": None, "head": {}},
    {"state": "training", "data": {"root": "bad\udc80name"}, "classes": ["\udcff", "نمل", "猫"]},
])
def test_whatever_the_record_lacks_is_left_out_without_a_word(run, tmp_path):
    text = text_of(write_report(tmp_path / "r.html", run=run, history=[], evaluations={},
                                plots={"curves": tmp_path / "gone.png"}))
    assert "None" not in text and "nan" not in text.split()
    assert ("not complete" in text) == (run.get("state") == "training")


@pytest.mark.parametrize(("after", "said"), [(0.03, "worth applying"), (0.2, "does not help")])
def test_temperature_is_praised_only_where_it_helped(made, tmp_path, after, said):
    figures = {**made[1]["test"], "nll": 1.0, "nll_calibrated": 0.9, "ece": 0.1,
               "ece_calibrated": after}
    path = write_report(tmp_path / "r.html", run={}, history=[], evaluations={"test": figures},
                        plots={})
    assert said in text_of(path)


def test_tags_and_values_have_a_page_too(tmp_path):
    tags = evaluate(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, 0]]), ["sun", "sea"],
                    task="tags")
    values = evaluate(np.array([1.0, 2.5]), np.array([1.0, 2.0]), ["age"], task="values")
    one, two = (
        write_report(tmp_path / f"{k}.html", run={}, history=[], evaluations=figures, plots={})
        for k, figures in enumerate([{"test": tags}, {"val": values}])
    )
    assert "mean average precision" in text_of(one) and "sea" in text_of(one)
    assert "mean absolute error" in text_of(two) and "0.25" in text_of(two)


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    import os

    path = write_report(tmp_path / "r.html", run={}, history=[], evaluations={}, plots={})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        write_report(path, run={"base": "x"}, history=[], evaluations={}, plots={})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_numbers_are_told_as_people_say_them():
    assert thousands(2257984) == "2\u202f257\u202f984" and thousands(None) == ""
    assert [duration(s) for s in (8.26, 125, 4320, "", None)] == [
        "8.3\u202fs", "2\u202fmin 05\u202fs", "1\u202fh 12\u202fmin", "", ""]


@pytest.mark.slow
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 500)])
def test_a_browser_shows_the_page_in_light_and_dark(made, tmp_path, dark, width):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
         *(["--blink-settings=preferredColorScheme=0"] if dark else []),
         f"--screenshot={shot}", f"--window-size={width},4000", made[0].as_uri()],
        check=True, capture_output=True, timeout=120)
    seen = np.asarray(Image.open(shot).convert("L"))
    assert (seen[0, 0] < 60) == dark
    assert (np.abs(seen.astype(int) - int(seen[0, 0])) > 40).mean() > 0.03  # there is content
    assert (seen[:, -6:] == seen[0, 0]).all()  # nothing is wider than the window


def test_an_average_of_two_stages_is_not_called_an_epochs(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "curves.png")
    rows = [{"stage": name, "val_accuracy": 0.9, "kept": kept}
            for name, kept in (("head", True), ("head", False), ("all", True))]  # fmt: skip
    for history, said in (
        (rows, "average of the weights of epochs 1 and 3 was kept"),
        (rows[:2], "weights of epoch 1 were kept"),
    ):
        page = write_report(tmp_path / "r.html", run={}, history=history, evaluations={},
                            plots={"curves": tmp_path / "curves.png"})  # fmt: skip
        assert said in text_of(page)
