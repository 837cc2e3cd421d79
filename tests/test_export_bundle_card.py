"""What a bundle says of itself, its card and its page, is read back with other people's parsers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from export.bundle.card import card, task_words
from export.bundle.figures import plot_variants
from export.bundle.manifest import make_manifest
from export.bundle.report import report
from export.source import Signature
from export.variant import Attempt, Latency, Variant, Verdict
from tl_keras import modalities, tasks
from tl_keras.modalities.base import InputSpec

EVIL = '<script>alert("x")</script> *a* _b_ `c` [d](http://evil.example) | e\n# f'


def bundle(folder, task):
    """A manifest and the variants it describes; every name in it is hostile."""
    accuracy = None if task == "values" else 0.75
    low, high = (None, None) if task == "values" else (0.4, 0.9)
    drops = {EVIL: (0.25, -0.1, 0.6)}
    verdict = Verdict(12, accuracy, low, high, accuracy, 1.0, 1e-6, 1e-7, drops)
    tried = (Attempt("first try", True, 0.0, 1.0, 2.0, EVIL, why=EVIL),)
    made = [
        Variant(
            format_, "fp32", folder / format_, "float32", "float32", 2_000_000, "0" * 64, verdict,
            tried, (EVIL,), (Latency("LiteRT", 2, 1.5, 1.75, 34.0, None),),
        )
        for format_ in ("tflite", "onnx")
    ]  # fmt: skip
    source = SimpleNamespace(
        name=EVIL, task=task, originals="own", resize_in_graph=False,
        class_names=(EVIL, "b"), keys=("k",),
        modality=modalities.get("image"), kind=tasks.get(task),
        signature=Signature({"image": InputSpec((16, 24, 3), "uint8", "RGB")}, 2, "scores"),
    )  # fmt: skip
    facts = {"images": {"figures": {"test images": 12}}}
    facts |= {"base": EVIL, "versions": {"tl_keras": "1"}, "data": {"fingerprint": "ab" * 32}}
    return make_manifest(source, made, [], "onnx-fp32", facts), made


@pytest.mark.parametrize("task", ["classes", "values"])
def test_names_in_a_card_are_text_to_a_reader_of_markdown_and_yaml(task, tmp_path):
    yaml, markdown = pytest.importorskip("yaml"), pytest.importorskip("markdown_it")
    text = card(*bundle(tmp_path, task))
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert all(isinstance(facts[key], str | list) for key in facts)
    if task == "classes":
        assert facts["model-index"][0]["name"] == EVIL
    tokens = markdown.MarkdownIt("commonmark").enable("table").parse(body)
    inline = [part for token in tokens for part in token.children or ()]
    assert {part.type for part in inline} <= {"text", "code_inline", "softbreak", "text_special"}
    headings = [tokens[k + 1].content for k, t in enumerate(tokens) if t.type == "heading_open"]
    assert len(headings) == 4
    shown = "".join(part.content for part in inline if part.type != "softbreak")
    assert shown.count(EVIL.replace("\n", " ")) >= 4  # title, base, note, first output
    assert len([t for t in tokens if t.type == "tr_open"]) == 3
    assert len([t for t in tokens if t.type == "td_open"]) == (12 if task == "classes" else 8)


def test_the_card_of_a_regression_says_regression_and_no_classifier(tmp_path):
    regression, classes = (card(*bundle(tmp_path, task)) for task in ("values", "classes"))
    assert "image-regression" in regression and "image regression" in regression
    for word in ("image-classification", "ImageClassifier", "accuracy"):
        assert word in classes and word not in regression
    assert "24 × 16 pixels" in classes
    assert task_words({"task": "tags"})["on_hub"] == "image-classification"


@pytest.mark.parametrize("task", ["classes", "tags", "values"])
def test_names_on_the_page_are_text(task, tmp_path):
    described, variants = bundle(tmp_path, task)
    plot = plot_variants(variants, "same label", tmp_path / "plot.png")
    page = report(described, variants, plot)
    assert "<script" not in page and page.count("&lt;script&gt;") >= 6
    assert page.count("<td>12</td>") == 2, "the images that each was compared on"
    assert ("accuracy" in page.partition("<main>")[2]) == (task != "values")
