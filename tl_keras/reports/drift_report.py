"""Write the report on a drift: one page that needs nothing else, and its figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.reports import style
from tl_keras.reports.filters import p_value, percent
from tl_keras.reports.html import write_page
from tl_keras.utils.files import atomic_files, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SETS", "headline", "plot_drift", "plot_remedy", "write_drift_report"]

SETS = {"new": "new, unseen", "known": "known"}
"""The sets on which a remedy is scored, by their keys in its facts."""

_SHOWN = 12
_SIDES = (("known", style.BLUE), ("new", style.VERMILLION))


def headline(facts: Mapping[str, Any]) -> str:
    """Say the finding in one sentence, plain text."""
    said, accuracy = p_value(facts["mmd"]["p_value"]), facts.get("accuracy") or {}
    true = accuracy.get("true")
    if not facts["shifted"]:
        # What chance explains may still cost accuracy.
        known = "" if true is None else (
            f"; {percent(true)} of the new ones are classified correctly, of the known ones "
            f"{percent(accuracy['reference'])}"
        )  # fmt: skip
        return f"No shift that chance would not explain ({said}){known}."
    said = f"The new data differ from the known data ({said})"
    if not accuracy:
        return f"{said}."
    fallen = accuracy["reference"] - (accuracy["estimated"]["value"] if true is None else true)
    guess, the = ("an estimated ", "the estimated") if true is None else ("", "the")
    lost = f"{guess}{100 * fallen:.0f} points of accuracy are lost"
    return f"{said}; {lost if fallen >= 0.01 else f'{the} accuracy holds'}."


def write_drift_report(
    folder: Path,
    title: str,
    facts: Mapping[str, Any],
    evidence: Mapping[str, Any],
    keys: Sequence[str],
    preview: Callable[[int], Any],
) -> Path:
    """Write report.html, drift.json and drift.png into a folder.

    Args:
        folder: made if missing; older files of these names are replaced.
        title: which run and which images, plain text.
        facts: what `tl_keras.analysis.drift.find_shift` found; notes (sentences for the reader),
            noun (of a sample) and remedy (what it gave, see `tl_keras.workflows.adapt`) may be
            among them.
        evidence: see :func:`plot_drift`.
        keys: names of the new images, of which the most unlike are shown.
        preview: gives the new image of an index to show, small; a text; or None.

    Returns:
        The page's path.

    Raises:
        StorageError: it cannot be written.
    """
    remedy, drawn = facts.get("remedy") or {}, None
    healed = {name: remedy[key] for key, name in SETS.items() if key in remedy}
    usual, distances = np.sort(evidence["novelty"][0]), evidence["novelty"][1]
    unlike = [
        {
            "key": keys[index].rsplit("/", 1)[-1],
            "distance": distances[index],
            "further": 1 - np.searchsorted(usual, distances[index]) / len(usual),
            "preview": preview(int(index)),
        }
        for index in np.argsort(-distances, kind="stable")[:_SHOWN]
    ]
    with atomic_files(folder) as made:
        plot = plot_drift(facts, evidence, made / "drift.png")
        write_atomically(made / "drift.json", (json.dumps(facts, indent=1) + "\n").encode())
        if healed:
            drawn = plot_remedy(healed, made / "remedy.png")
        write_page(
            made / "report.html", "drift.html.j2", title=f"Drift: {title}", facts=facts,
            plot=plot, noun=facts.get("noun", "image"), headline=headline(facts), unlike=unlike,
            healed=healed, remedy_plot=drawn,
        )  # fmt: skip
    return folder / "report.html"


def plot_drift(facts: Mapping[str, Any], evidence: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the two sets in feature space, the permutation test, confidence and novelty.

    Args:
        facts: see :func:`write_drift_report`; mmd is used.
        evidence: null (discrepancies of random partitions); and of the known and of the new
            images, each a pair: points (float (n, 2)), novelty (distances to the training
            images) and confidence (largest probabilities; empty where there are no classes).
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    figure = style.new_figure(9.6, 7.2)
    plane, chance, sure, unlike = figure.subplots(2, 2).ravel()
    style.tidy(plane, "first component", "second component",
               "Features, two principal components", grid="both")  # fmt: skip
    for points, (name, color) in zip(evidence["points"], _SIDES, strict=True):
        plane.scatter(*points.T[:2], s=14, alpha=0.6, color=color, label=name, linewidths=0)
    style.tidy(chance, "squared maximum mean discrepancy", "partitions",
               f"Discrepancy and chance: {p_value(facts['mmd']['p_value'])}")  # fmt: skip
    chance.hist(evidence["null"], bins=40, color=style.GREY, label="random partitions")
    chance.axvline(facts["mmd"]["value"], color=style.VERMILLION, label="known against new")
    if len(evidence["confidence"][0]):
        style.tidy(sure, "confidence", title="How sure the model is (dashed: median)")
        _histograms(sure, evidence["confidence"])
    else:
        sure.axis("off")
    style.tidy(unlike, "distance", title="How unlike the training set (dashed: median)")
    _histograms(unlike, evidence["novelty"])
    for axes in (plane, chance):
        style.legend(axes)
    return style.save(figure, path)


def _histograms(axes: Axes, sides: tuple[np.ndarray, np.ndarray]) -> None:
    everything = np.concatenate(sides)
    low, high = float(everything.min()), float(everything.max())
    bins = np.linspace(low, high, 25) if high > low else np.linspace(low - 0.5, low + 0.5, 25)
    for values, (label, color) in zip(sides, _SIDES, strict=True):
        share = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=bins, weights=share, alpha=0.55, color=color, label=label)
        axes.axvline(float(np.median(values)), color=color, linestyle="--", linewidth=1.2)
    axes.set_ylabel("share of each set", color=style.INK)
    style.legend(axes)


def plot_remedy(sets: Mapping[str, Mapping[str, Any]], path: str | Path) -> Path:
    """Draw accuracy before and after a remedy.

    Args:
        sets: by each set's name, its figures with before and after, 0..1.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    figure = style.new_figure(5.6, 1.2 + 0.6 * len(sets))
    axes = style.tidy(figure.subplots(), "accuracy, %", grid="x")
    for place, found in enumerate(sets.values()):
        for key, color in (("before", style.GREY), ("after", style.BLUE)):
            name = key if place == 0 else None
            axes.scatter(100 * found[key], place, s=70, color=color, label=name, zorder=3)
        ends = (100 * found["after"], place), (100 * found["before"], place)
        axes.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": style.INK})
    axes.set_yticks(range(len(sets)), list(sets))
    axes.set_ylim(len(sets) - 0.5, -0.5)
    style.legend(axes, columns=2)
    return style.save(figure, path)
