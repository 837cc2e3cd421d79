"""The report of a shift: one page that needs nothing else, and its figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.drift import Shift
from tl_keras.data.samples import Samples
from tl_keras.reports import html as page
from tl_keras.reports.drift_figures import plot_remedy, plot_shift
from tl_keras.utils.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SETS", "headline", "p_text", "write_shift"]

SETS = (("new", "new pictures, unseen"), ("known", "known pictures"))

_SHOWN = 12
_LARGEST = 320
_REMEDIES = (
    ("batchnorm", "re-estimates BatchNorm's statistics on the new pictures; needs no label"),
    ("first-block", "tunes the first block on labelled new pictures: for blur, noise, light"),
    ("lp-ft", "trains the head, then all, on labelled new pictures"),
)


def headline(facts: dict[str, Any]) -> str:
    """The finding in one sentence, plain text."""
    p_value, accuracy = p_text(facts["mmd"]["p_value"]), facts.get("accuracy") or {}
    true = accuracy.get("true")
    if not facts["shifted"]:
        # What chance explains may still cost accuracy.
        known = "" if true is None else (
            f"; {100 * true:.1f} % of the new ones are named rightly, of the known ones "
            f"{100 * accuracy['reference']:.1f} %"
        )  # fmt: skip
        return f"No shift that chance would not explain ({p_value}){known}."
    said = f"The new pictures differ from the known ones ({p_value})"
    if not accuracy:
        return f"{said}."
    fallen = accuracy["reference"] - (accuracy["estimated"]["value"] if true is None else true)
    guess, the = ("an estimated ", "the estimated") if true is None else ("", "the")
    lost = f"{guess}{100 * fallen:.0f} points of accuracy are lost"
    return f"{said}; {lost if fallen >= 0.01 else f'{the} accuracy holds'}."


def p_text(value: float | None) -> str:
    """A p-value as text, "" for None."""
    return "" if value is None else f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"


def write_shift(
    folder: Path,
    title: str,
    shift: Shift,
    new: Samples,
    notes: Sequence[str],
    remedy: dict[str, Any] | None = None,
) -> Path:
    """Write report.html, shift.json and shift.png into a folder.

    Args:
        folder: Made if missing; older files of these names are replaced.
        title: Which run and which pictures, plain text.
        shift: What was found.
        new: The new pictures, of which the most unlike are shown.
        notes: Sentences for the reader, plain text.
        remedy: What a remedy gave, see `tl_keras.workflows.adapt.remedy_run`.

    Returns:
        The page's path.

    Raises:
        StorageError: It cannot be written.
    """
    plot = plot_shift(shift, folder / "shift.png")
    facts = {**shift.facts, "notes": list(notes), **({"remedy": remedy} if remedy else {})}
    write_atomically(folder / "shift.json", (json.dumps(facts, indent=1) + "\n").encode())
    said = "".join(f"<li>{page.escape(note)}</li>" for note in notes)
    shown = page.png(plot, "Both sets' features, discrepancy, confidence and novelty.", "")
    body = [
        f"<header><h1>Shift: {page.name(title)}</h1>",
        page.paragraph(page.escape(headline(facts))),
        page.term_list(_tiles(facts), "tiles"),
        "</header>\n<main>",
        page.section("Both sets", shown),
        _accuracy(facts),
        _classes(facts),
        _features(facts),
        _unlike(shift, new),
        _remedies(facts) if remedy is None else _remedy(folder, remedy),
        page.section("How to read this", f'<ul class="plain">{said}{_READING}</ul>'),
        "</main>",
    ]
    html = page.page(f"Shift: {title}", "\n".join(part for part in body if part) + "\n")
    return write_atomically(folder / "report.html", html.encode("utf-8", "replace"))


_READING = (
    "<li>The p-value is the share of random partitions of all pictures that differ as much as "
    "known and new ones do. A small one says that there is a difference, not that it matters: "
    "the accuracy says that.</li>"
    "<li>The A-distance is 0 for sets that a classifier cannot tell apart and 2 for sets that "
    "it always can.</li>"
    "<li>The estimated accuracy counts the new pictures on which the model is as sure as it is "
    "where it is right (average thresholded confidence). The first estimate is the mean of that "
    "and of one which also counts as wrong what a model says too often (by optimal transport): it "
    "is the better one where the classes are about as frequent as they were. Both fail where the "
    "model is sure of wrong answers.</li>"
)


_ESTIMATES = (
    ("estimated", "estimated, if the classes are as frequent as before"),
    ("thresholded", "estimated from confidence alone"),
)


def _tiles(facts: dict[str, Any]) -> list[tuple[str, str]]:
    accuracy = facts.get("accuracy") or {}
    true = accuracy.get("true")
    return [
        ("discrepancy", page.escape(p_text(facts["mmd"]["p_value"]))),
        ("A-distance, 0\u00a0to\u00a02", f"{facts['domain']['a_distance']:.2f}"),
        ("estimated accuracy", page.share(accuracy["estimated"]["value"]) if accuracy else ""),
        ("true accuracy", "" if true is None else page.share(true)),
        ("unlike the training set", page.share(facts["unlike"], 0)),
        ("new pictures", str(facts["pictures"]["new"])),
    ]


def _accuracy(facts: dict[str, Any]) -> str:
    if "accuracy" not in facts:
        return ""
    accuracy, sure = facts["accuracy"], facts["confidence"]
    rows = [
        ["accuracy", page.share(accuracy["reference"]),
         "" if accuracy["true"] is None else page.share(accuracy["true"]), ""],
        *(_estimate(name, accuracy[key]) for key, name in _ESTIMATES),
        ["mean confidence", page.share(sure["reference"]), page.share(sure["new"]),
         f"change {100 * sure['low']:+.1f} to {100 * sure['high']:+.1f} points"],
    ]  # fmt: skip
    head = ["", "known pictures", "new pictures", "95 % interval"]
    return page.section("Accuracy and confidence", page.table(head, rows, ["", "n", "n", "n"]))


def _estimate(name: str, found: dict[str, float]) -> list[str]:
    interval = f"{page.share(found['low'])} to {page.share(found['high'])}"
    return [name, "", page.share(found["value"]), interval]


def _classes(facts: dict[str, Any]) -> str:
    rows = [
        [page.name(row["name"]), page.share(row["reference_share"]), page.share(row["new_share"]),
         p_text(row["p_value"]) or '<span class="soft">too few</span>',
         "" if row["recall"] is None else page.share(row["recall"])]
        for row in facts.get("classes", [])
    ]  # fmt: skip
    head = ["class, as the model says", "of the known", "of the new", "shift within", "true recall"]
    return page.section("Classes", page.table(head, rows, ["", "n", "n", "n", "n"]))


def _features(facts: dict[str, Any]) -> str:
    found = facts["features"]
    rows = [
        [f"channel {row['feature']}", f"{row['shift']:+.2f}", f"{row['ks']:.2f}",
         p_text(row["p_value"])]
        for row in found["strongest"]
    ]  # fmt: skip
    intro = page.paragraph(
        f"{found['shifted']} of {found['count']} features where the base ends differ by more than "
        "chance (p &lt; 0.01 for all of them together). The strongest:"
    )
    head = ["feature", "shift in standard deviations", "largest difference of distributions", "p"]
    return page.section("Features", intro, page.table(head, rows, ["", "n", "n", "n"]))


def _unlike(shift: Shift, new: Samples) -> str:
    distances, usual = shift.novelty[1], np.sort(shift.novelty[0])
    items = []
    for index in np.argsort(-distances, kind="stable")[:_SHOWN]:
        key = new.keys[index]
        further = 1 - np.searchsorted(usual, distances[index]) / len(usual)
        shown = _opened(new, int(index))
        seen = page.picture(shown, key) if shown else '<span class="gone">cannot be opened</span>'
        share = page.share(further, 0) if further else "none"
        items.append(
            f"<li>{seen}<p>distance {distances[index]:.2f}<br>{share} of the known ones "
            f"{'is' if not further else 'are'} further<br>"
            f'<span class="soft">{page.name(key.rsplit("/", 1)[-1])}</span></p></li>'
        )
    return page.section("Most unlike the training set", f'<ul class="grid">{"".join(items)}</ul>')


def _opened(samples: Samples, index: int) -> Image | None:
    try:
        picture = samples.decoder(samples.items[index]).convert("RGB")
    except (OSError, ValueError):
        return None  # moved or damaged since: the figures still stand
    picture.thumbnail((_LARGEST, _LARGEST))
    return picture


def _remedies(facts: dict[str, Any]) -> str:
    if not facts["shifted"]:
        return ""
    rows = [[f"<code>--remedy {name}</code>", page.escape(what)] for name, what in _REMEDIES]
    return page.section("What may help", page.table(["flag", "what it does"], rows))


def _remedy(folder: Path, facts: dict[str, Any]) -> str:
    present = [(name, facts[part]) for part, name in SETS if part in facts]
    rows = [
        [
            name,
            str(found["pictures"]),
            page.share(found["before"]),
            page.share(found["after"]),
            f"{100 * found['change']['low']:+.1f} to {100 * found['change']['high']:+.1f} points",
        ]
        for name, found in present
    ]
    head = ["accuracy on", "pictures", "before", "after", "change, 95 % interval"]
    plot = plot_remedy(present, folder / "remedy.png")
    shown = page.png(plot, "Accuracy before and after the remedy.", "", 30)
    table = page.table(head, rows, ["", "n", "n", "n", "n"])
    return page.section(f"What the remedy {facts['name']} gave", table, shown)
