"""The bundle's page: accuracy, size and latency of all variants side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.bundle.card import fastest, size
from export.variant import Latency, Variant, Verdict
from tl_keras.reports import html as page

__all__ = ["report"]

_CAPTION = (
    "To the left is faster, above is better; a circle's area is the file's size, and the line "
    "through it the 95 % interval of the accuracy."
)


def report(manifest: Mapping[str, Any], variants: Sequence[Variant], plot: Path) -> str:
    """Write one self-contained page.

    Args:
        manifest: of the bundle.
        variants: the same that the manifest describes.
        plot: PNG of the accuracy–latency–size picture.

    Returns:
        HTML that needs neither script nor network.
    """
    title = f"{manifest['name']}: files for a device"
    sides = " × ".join(str(side) for side in manifest["input"]["shape"][:2])
    parts = (
        f"<header><h1>{page.name(manifest['name'])}: files for a device</h1>"
        + page.paragraph(
            f"{len(variants)} variants, {len(manifest['classes'])} classes, pictures of {sides} "
            f"pixels, {variants[0].verdict.pictures} validation pictures",
            "soft",
        )
        + "</header><main>",
        _headline(manifest, variants),
        page.section("All variants", _overview(manifest, variants), _notes(variants)),
        page.section("Accuracy, latency and size", page.png(plot, _described(variants), _CAPTION)),
        page.section("Latency", _latencies(variants)),
        page.section("Against the Keras model", _verdicts(variants), _per_class(variants)),
        page.section("The search", _attempts(variants)),
        page.section("How it was made", _facts(manifest)),
        "</main>",
    )
    return page.page(title, "\n".join(part for part in parts if part))


def _headline(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> str:
    chosen = next(v for v in variants if v.name == manifest["default"])
    latency, verdict = fastest(chosen), chosen.verdict
    tiles = page.term_list(
        [
            ("take by default", page.escape(chosen.name)),
            ("accuracy", _accuracy(verdict)),
            ("size", size(chosen.bytes)),
            ("a picture takes", f"{latency.median_ms:.2f} ms" if latency else ""),
            ("same label as Keras", page.share(verdict.agreement)),
        ],
        "tiles",
    )
    return tiles


def _overview(manifest: Mapping[str, Any], variants: Sequence[Variant]) -> str:
    head = ["variant", "size", "accuracy", "95 % interval", "drop, points", "ms/picture"]
    largest = max(variant.bytes for variant in variants)
    rows = []
    for variant in variants:
        latency, verdict = fastest(variant), variant.verdict
        mark = " (default)" if variant.name == manifest["default"] else ""
        rows.append(
            [
                page.escape(variant.name + mark),
                f"{size(variant.bytes)} ({page.share(variant.bytes / largest, 0)})",
                _accuracy(verdict),
                _interval(verdict),
                f"{100 * verdict.drop:+.2f}",
                f"{latency.median_ms:.2f}" if latency else "–",
            ]
        )
    return page.table(head, rows, ["", "n", "n", "n", "n", "n"])


def _accuracy(verdict: Verdict) -> str:
    return "–" if verdict.accuracy is None else page.share(verdict.accuracy)


def _interval(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        return "–"
    return f"{page.share(verdict.low)} to {page.share(verdict.high)}"


def _notes(variants: Sequence[Variant]) -> str:
    return "".join(
        page.paragraph(f"{page.escape(v.name)}: {page.escape(note)}", "note")
        for v in variants
        for note in v.notes
    )


def _described(variants: Sequence[Variant]) -> str:
    words = []
    for variant in variants:
        latency, verdict = fastest(variant), variant.verdict
        time = f", {latency.median_ms:.2f} ms" if latency else ""
        score = "" if verdict.accuracy is None else f", accuracy {100 * verdict.accuracy:.1f} %"
        words.append(f"{variant.name}: {size(variant.bytes)}{time}{score}")
    return "; ".join(words)


def _latencies(variants: Sequence[Variant]) -> str:
    head = ["variant", "runtime", "threads", "median, ms", "90 %, ms", "first, ms", "memory, MB"]
    rows = [
        [page.escape(variant.name), page.escape(one.runtime), str(one.threads), *_times(one)]
        for variant in variants
        for one in variant.latencies
    ]
    words = (
        "Median and 90th percentile of one picture after warming up, all variants in turn; "
        "“first” is loading and the first answer, “memory” the peak, in a process of its own."
    )
    made = page.table(head, rows, ["", "", "n", "n", "n", "n", "n"])
    return page.paragraph(words, "soft") + made if made else ""


def _times(one: Latency) -> list[str]:
    first = "–" if one.first_ms is None else f"{one.first_ms:.0f}"
    peak = "–" if one.peak_mb is None else f"{one.peak_mb:.0f}"
    return [f"{one.median_ms:.2f}", f"{one.p90_ms:.2f}", first, peak]


def _verdicts(variants: Sequence[Variant]) -> str:
    head = ["variant", "pictures", "same label", "largest difference", "mean difference"]
    rows = [
        [
            page.escape(variant.name),
            str(variant.verdict.pictures),
            page.share(variant.verdict.agreement),
            f"{variant.verdict.max_difference:.1e}",
            f"{variant.verdict.mean_difference:.1e}",
        ]
        for variant in variants
    ]
    return page.table(head, rows, ["", "n", "n", "n", "n"])


def _per_class(variants: Sequence[Variant]) -> str:
    """Show the recall each class lost, where any class lost or won some."""
    kept = [v for v in variants if any(v.verdict.per_class_drop.values())]
    if not kept:
        return page.paragraph("No class lost or won recall in any variant.")
    worst: dict[str, float] = {}
    for variant in kept:
        for name, drop in variant.verdict.per_class_drop.items():
            worst[name] = max(worst.get(name, -1.0), drop)
    names = sorted(worst, key=lambda name: -worst[name])
    rows = [
        [page.name(name), *(f"{100 * v.verdict.per_class_drop.get(name, 0.0):+.1f}" for v in kept)]
        for name in names
    ]
    head = ["class", *(variant.name for variant in kept)]
    made = page.table(head, rows, ["", *("n" for _ in kept)])
    return page.details("Recall lost by each class, points", made, len(names) <= 20)


def _attempts(variants: Sequence[Variant]) -> str:
    head = ["variant", "strategy", "drop, points", "same label", "seconds", "", "note"]
    rows = [
        [
            page.escape(variant.name),
            page.escape(attempt.strategy),
            f"{100 * attempt.drop:+.2f}",
            page.share(attempt.agreement),
            f"{attempt.seconds:.0f}",
            "passed" if attempt.passed else "not enough",
            page.escape(attempt.note),
        ]
        for variant in variants
        for attempt in variant.attempts
    ]
    return page.table(head, rows, ["", "", "n", "n", "n", "", "w"])


def _facts(manifest: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    shown = [
        ("fingerprint of the data", _text(manifest["data"].get("fingerprint"))),
        ("versions", page.escape(versions)),
        *((str(key), _text(value)) for key, value in manifest["facts"].items()),
    ]
    return page.term_list(shown, "facts")


def _text(value: Any) -> str:
    return html.escape(str(value)) if isinstance(value, str | int | float) else ""
