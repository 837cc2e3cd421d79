"""The model card of a bundle: a README.md in the form of the Hugging Face Hub.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from export.variant import Latency, Variant
from tl_keras.errors import ExportError

__all__ = ["card", "check_license", "fastest", "size"]

_TEXT = """# {name}

Gives {what} for a picture. Made by tl_keras {version}{base}; every file here was compared with the
Keras model that it was made from{compared}.

| variant | size | accuracy | drop | same label | {latency} |
|---|---:|---:|---:|---:|---:|
{rows}

Take `{default}` when nothing else is known. `report.html` shows all variants side by side;
`manifest.json` has every figure.
{notes}
## How to use it

A picture goes in as it is: RGB, values 0..255, resized as a whole to {width} × {height} pixels.
Scaling is part of the model.

    {run}

needs only numpy, pillow and the runtime (`{packages}`).{mediapipe}

To see that the files are whole and answer here as they should, without TensorFlow:

    tl-export check .

## Outputs

{outputs}

## Limits

The figures are those of {pictures} validation pictures of one data set{data}; pictures of another
kind can give other figures. Latencies are those of the machine that made this bundle. The folder
`golden` holds a few of the validation pictures.
"""
_MEDIAPIPE = """ The .tflite files carry the labels and the
normalization that MediaPipe Tasks reads:

    from mediapipe.tasks.python import vision
    classifier = vision.ImageClassifier.create_from_model_path("{file}")"""
_RUNTIMES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
_MOST_LABELS = 50


def card(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> str:
    """Write the model card.

    Args:
        manifest: of the bundle.
        variants: the same that the manifest describes.

    Returns:
        Markdown behind a YAML head.
    """
    formats = list(dict.fromkeys(variant.format for variant in variants))
    first = next((v for v in manifest["variants"] if v["format"] == "tflite"), None)
    height, width, _ = manifest["input"]["shape"]
    facts = {**manifest["facts"], **manifest["versions"]}
    fingerprint = manifest["data"].get("fingerprint")
    text = _TEXT.format(
        name=_line(manifest["name"]),
        what=manifest["output"]["values"],
        version=facts.get("tl_keras", ""),
        base=f" from the base `{_line(str(facts['base']))}`" if facts.get("base") else "",
        compared=f", on {variants[0].verdict.pictures} validation pictures",
        latency=_latency_head(variants),
        rows="\n".join(_row(variant) for variant in variants),
        default=manifest["default"],
        notes="".join(f"\n- `{v.name}`: {_line(note)}" for v in variants for note in v.notes)
        + "\n" * any(v.notes for v in variants),
        width=width,
        height=height,
        run="\n    ".join(f"python run_{format_}.py photo.jpg" for format_ in formats),
        packages="` or `".join(_RUNTIMES[format_] for format_ in formats),
        mediapipe=_MEDIAPIPE.format(file=first["file"]) if first else "",
        outputs=_outputs(manifest["classes"]),
        pictures=variants[0].verdict.pictures,
        data=f" (fingerprint `{fingerprint[:16]}`)" if fingerprint else "",
    )
    return f"{_head(manifest, variants)}\n{text}"


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


def _line(text: str) -> str:
    return " ".join(text.split())


def _head(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> str:
    """Write the YAML head; JSON is YAML, which saves every question of quoting."""
    formats = list(dict.fromkeys(variant.format for variant in variants))
    record: dict[str, Any] = {
        "pipeline_tag": "image-classification",
        "library_name": "onnx" if formats == ["onnx"] else "tflite",
        "tags": ["image-classification", "tl_keras", *formats],
    }
    if manifest["facts"].get("license"):
        record["license"] = manifest["facts"]["license"]
    metrics = [
        {"type": "accuracy", "name": f"accuracy of {v.name}", "value": round(v.verdict.accuracy, 6)}
        for v in variants
        if v.verdict.accuracy is not None
    ]
    if metrics:
        task = {"type": "image-classification"}
        data = {"name": f"validation pictures of {manifest['name']}", "type": "imagefolder"}
        result = {"task": task, "dataset": data, "metrics": metrics}
        record["model-index"] = [{"name": manifest["name"], "results": [result]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items()]
    return "\n".join(["---", *lines, "---"])


def fastest(variant: Variant) -> Latency | None:
    """Return the latency with most threads, which the tables show; None if none was measured."""
    return max(variant.latencies, key=lambda latency: latency.threads, default=None)


def size(count: int) -> str:
    """Return a number of bytes as people read it: "8.88 MB", "12 kB"."""
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _latency_head(variants: Sequence[Variant]) -> str:
    threads = {latency.threads for v in variants if (latency := fastest(v))}
    if len(threads) != 1:
        return "ms/picture"
    (count,) = threads
    return f"ms/picture ({count} thread{'s' * (count > 1)})"


def _row(variant: Variant) -> str:
    verdict, latency = variant.verdict, fastest(variant)
    accuracy = "–"
    if verdict.accuracy is not None:
        accuracy = f"{100 * verdict.accuracy:.1f} %"
        if verdict.low is not None and verdict.high is not None:
            accuracy += f" ({100 * verdict.low:.1f}–{100 * verdict.high:.1f})"
    cells = [
        f"`{variant.name}`",
        size(variant.bytes),
        accuracy,
        f"{100 * verdict.drop:+.1f} points",
        f"{100 * verdict.agreement:.1f} %",
        f"{latency.median_ms:.2f}" if latency else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _outputs(names: Sequence[str]) -> str:
    listed = ", ".join(f"{i} {_line(name)}" for i, name in enumerate(names[:_MOST_LABELS]))
    more = f", and {len(names) - _MOST_LABELS} more" if len(names) > _MOST_LABELS else ""
    return f"{len(names)}, in the order of `labels.txt`: {listed}{more}."
