"""Write the model card of a bundle: a README.md in the form of the Hugging Face Hub.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.variant import Latency, Variant
from tl_keras import modalities, tasks
from tl_keras.errors import ExportError
from tl_keras.models.views import count_views, parse_views
from tl_keras.reports.html import environment

__all__ = ["TEMPLATES", "card", "check_license", "context", "fastest", "task_words"]

_MEDIAPIPE = {"image-classification": "vision.ImageClassifier",
              "text-classification": "text.TextClassifier"}  # fmt: skip
TEMPLATES = Path(__file__).with_name("templates")


def task_words(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what card, page and figure call a bundle's task, and what they say of its outputs."""
    task, modality = tasks.get(manifest["task"]), manifest.get("modality", "image")
    name = f"{modality}-{task.kind}"
    return {
        "name": name,
        # The Hub has no task of its own for regression: a tag says it.
        "on_hub": f"{modality}-classification" * (
            modality in ("image", "text", "audio") and name.endswith("classification")
        ),
        "mediapipe": _MEDIAPIPE.get(name, "") * (modality == "image" or "word_pieces" in manifest),
        "outputs": task.plural,
        "agreement": "same label" if task.ranked else "same answer",
    }


def context(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> dict[str, Any]:
    """Return what both templates show of a bundle.

    Args:
        manifest: of the bundle.
        variants: the same that the manifest describes.
    """
    modality = modalities.get(manifest.get("modality", "image"))
    noun = modality.noun
    sides = [" × ".join(map(str, one["shape"])) for one in manifest["inputs"]]
    if noun == "image":
        height, width, *_ = manifest["input"]["shape"]
        sides = [f"{width} × {height} pixels"]
    return {
        "noun": noun,
        "nouns": f"{noun}s",
        "last_step": modality.last_step,
        "tokenize": [one for one in manifest.get("steps", ()) if one["step"] == "tokenize"],
        "manifest": manifest,
        "variants": variants,
        "fastest": fastest,
        "task": task_words(manifest),
        "chosen": next(v for v in variants if v.name == manifest["default"]),
        "input": f"{noun}s of {' and '.join(sides)}",
        "images": _describe_images(manifest, variants, f"{noun}s"),
        "largest": max(variant.bytes for variant in variants),
        "scored": any(variant.verdict.accuracy is not None for variant in variants),
        "timed": any(variant.latencies for variant in variants),
        "versions": ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
    }


def _describe_images(
    manifest: Mapping[str, Any], variants: Sequence[Variant], nouns: str
) -> dict[str, str]:
    """Say which samples figures, choices and calibration come from: "153 test images"."""
    said = manifest.get("images") or {"figures": {nouns: variants[0].verdict.count}}
    words = {
        duty: " and ".join(f"{count} {name}" for name, count in found.items())
        for duty, found in said.items()
    }
    used = [v.facts["calibration_samples"] for v in variants if "calibration_samples" in v.facts]
    if used and "calibration" in said:
        (name,) = said["calibration"]
        words["calibration"] = f"{max(used)} other {name}"
    searched = any(variant.attempts for variant in variants)
    same = " (the same that the figures come from)" * (words.get("choice") == words["figures"])
    return {**words, "searched": words.get("choice", "") + same if searched else ""}


def card(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> str:
    """Write the model card.

    Args:
        manifest: of the bundle.
        variants: the same that the manifest describes.

    Returns:
        Markdown behind a YAML head.
    """
    shown = context(manifest, variants)
    threads = {latency.threads for v in variants if (latency := fastest(v))}
    made = environment(TEMPLATES).overlay(autoescape=False, finalize=_escape)
    made.filters = {**made.filters, "code": _code, "yaml": _yaml, "raw": _Raw}
    return made.get_template("card.md.j2").render(
        **shown,
        head=_head(manifest, variants, shown),
        formats=list(dict.fromkeys(variant.format for variant in variants)),
        runtimes={"tflite": "ai-edge-litert", "onnx": "onnxruntime"},
        tflite=next((v["file"] for v in manifest["variants"] if v["format"] == "tflite"), ""),
        made_by={**manifest["facts"], **manifest["versions"]},
        count_views=lambda text: count_views(parse_views(text)),
        threads=threads.pop() if len(threads) == 1 else None,
        most=50,
    )


def _head(
    manifest: Mapping[str, Any], variants: Sequence[Variant], shown: Mapping[str, Any]
) -> dict[str, Any]:
    """What the Hub reads: task, library, tags, license, accuracies."""
    task = shown["task"]
    formats = list(dict.fromkeys(variant.format for variant in variants))
    head: dict[str, Any] = {"pipeline_tag": task["on_hub"]} if task["on_hub"] else {}
    head["library_name"] = "onnx" if formats == ["onnx"] else "tflite"
    head["tags"] = [task["name"], "tl_keras", *formats]
    if manifest["facts"].get("license"):
        head["license"] = manifest["facts"]["license"]
    metrics = [
        {"type": "accuracy", "name": f"accuracy of {v.name}", "value": round(v.verdict.accuracy, 6)}
        for v in variants if v.verdict.accuracy is not None
    ]  # fmt: skip
    if metrics:
        kind = f"{manifest.get('modality', 'image')}folder"
        data = {"name": f"{shown['images']['figures']} of {manifest['name']}", "type": kind}
        result = {"task": {"type": task["name"]}, "dataset": data, "metrics": metrics}
        head["model-index"] = [{"name": manifest["name"], "results": [result]}]
    return head


class _Raw(str):
    """Text that is Markdown already."""


def _escape(value: Any) -> str:
    """Text that Markdown shows as it is, in one line; "" for None."""
    if value is None or isinstance(value, _Raw):
        return value or ""
    line = html.escape(re.sub(r"\s+", " ", str(value)), quote=False)
    return re.sub(r"([\\`*_\[\]|~]|^[#+>-](?=\s)|(?<=^\d)[.)](?=\s))", r"\\\1", line)


def _code(value: Any) -> str:
    """A code span that holds any text."""
    line = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " * (len(fence) > 1)
    return _Raw(f"{fence}{room}{line}{room}{fence}")


def _yaml(record: Mapping[str, Any]) -> str:
    """A line a key; JSON is YAML, which saves every question of quoting."""
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items())
    return _Raw("\n".join(lines))


def check_license(name: str) -> None:
    """Refuse what no hub would read as a license.

    Raises:
        ExportError: if the name is neither empty nor one lower-case word, such as "apache-2.0".
    """
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise ExportError(
            f"The license is '{name}'; expected an identifier as in "
            "https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0 or other."
        )


def fastest(variant: Variant) -> Latency | None:
    """Return the latency with most threads, which the tables show; None if none was measured."""
    return max(variant.latencies, key=lambda latency: latency.threads, default=None)
