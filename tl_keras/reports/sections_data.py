"""The report's parts about the data, its limits, and doing it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_keras.reports import html as page
from tl_keras.reports.run_facts import added, duration, main_split, pick, split_totals, thousands

__all__ = ["data", "limits", "reproducing"]

_FEW = 20
_MOST_LISTED = 500


def data(run: Mapping[str, Any]) -> str:
    """Counts a split and class, what was left out, what is there twice."""
    totals = split_totals(run)
    words = ", ".join(f"{thousands(n)} {page.escape(split)}" for split, n in totals.items())
    root = pick(run, "data", "root", default="")
    origin = page.paragraph(f"From <code>{page.escape(root)}</code>.") if root else ""
    return page.section(
        "The data", origin, page.paragraph(f"Pictures: {words}." if words else ""),
        _counts(run), _left_out(run), _duplicates(run))


def _counts(run: Mapping[str, Any]) -> str:
    counts = pick(run, "data", "counts", default={})
    counts = {split: of for split, of in counts.items() if isinstance(of, Mapping)}
    listed = [*pick(run, "classes", default=[]), *(c for of in counts.values() for c in of)]
    classes = list(dict.fromkeys(str(c) for c in listed)) if counts else []
    rows = [
        [page.name(c), *(thousands(of.get(c, 0)) for of in counts.values())] for c in classes
    ]
    table = page.table(["class", *counts], rows, ["", *["n"] * len(counts)])
    return page.details("Pictures of each class", table, opened=len(classes) <= 12)


def _left_out(run: Mapping[str, Any]) -> str:
    left = pick(run, "data", "left_out", default=[])
    if not left:
        return ""
    rows = [
        [page.name(pick(one, "path", default=one)), page.escape(pick(one, "reason", default=""))]
        for one in left[:_MOST_LISTED]
    ]
    more = len(left) - len(rows)
    count = f"{thousands(len(left))} picture{'s were' if len(left) != 1 else ' was'} left out"
    listed = page.table(["picture", "reason"], rows)
    listed += page.paragraph(f"… and {thousands(more)} more, in run.json." if more else "")
    return f"<h3>{count}</h3>{page.details('Which, and why', listed, opened=len(rows) <= 10)}"


def _duplicates(run: Mapping[str, Any]) -> str:
    groups = pick(run, "data", "duplicates", default=[])
    if not groups:
        return ""
    lines = "".join(f"<li>{_group(group)}</li>" for group in groups[:_MOST_LISTED])
    return (
        f"<h3>{thousands(len(groups))} picture{'s are' if len(groups) != 1 else ' is'} there more "
        f'than once</h3>{page.details("Which", f"<ul class=plain>{lines}</ul>")}'
    )


def _group(group: Any) -> str:
    if isinstance(group, Mapping):
        group = group.get("paths") or group.get("keys") or list(group.values())
    return ", ".join(map(page.name, group)) if isinstance(group, list | tuple) else page.name(group)


def limits(run: Mapping[str, Any], evaluations: Mapping[str, dict]) -> str:
    """What the figures cannot say."""
    split = main_split(evaluations)
    if split is None:
        return ""
    figures = evaluations[split]
    said = [*_interval(figures), *_validation(split), *_small_classes(figures), *_records(run)]
    if figures.get("task", "classes") == "classes":
        said.append("It always names one of its classes, whatever it is shown. A picture of "
                    "something else gets a name too, at times with high confidence.")
    said.append("The pictures it was measured on come from the same source as those it was "
                "trained on. With another camera, light or place it may do worse: measure there.")
    items = "".join(f"<li>{text}</li>" for text in said)
    return page.section("What this does not tell", f'<ul class="plain">{items}</ul>')


def _interval(figures: Mapping[str, Any]) -> list[str]:
    score = figures.get("accuracy")
    if not isinstance(score, Mapping):
        return []
    half = 50 * (score["high"] - score["low"])
    return [
        f"{thousands(figures.get('count'))} pictures pin the accuracy down to about "
        f"±{half:.1f} points. Two runs that differ by less may differ by chance."
    ]


def _validation(split: str) -> list[str]:
    if split == "test":
        return []
    return ["There was no test split. These are the pictures by which the best epoch was chosen, "
            "so the figures flatter the model a little."]


def _small_classes(figures: Mapping[str, Any]) -> list[str]:
    small = [r for r in figures.get("per_class") or [] if r["support"] < _FEW]
    if not small:
        return []
    names = ", ".join(page.name(r["name"]) for r in small[:8]) + (" …" if len(small) > 8 else "")
    return [f"{len(small)} of {len(figures['per_class'])} classes have fewer than {_FEW} pictures "
            f"here ({names}): read their intervals, not their figures."]


def _records(run: Mapping[str, Any]) -> list[str]:
    said = []
    if pick(run, "data", "duplicates", default=[]):
        said.append("Some pictures are there more than once. A picture that is in two splits is "
                    "known by heart, not recognised.")
    if pick(run, "data", "left_out", default=[]):
        said.append("Pictures that could not be read were left out. If the model will meet such "
                    "pictures in use, they count as failures there.")
    return said


def reproducing(run: Mapping[str, Any]) -> str:
    """The command, the seed, the versions, the data's fingerprint."""
    command, seed = pick(run, "command", default=""), pick(run, "seed")
    if isinstance(command, list | tuple):
        command = " ".join(map(str, command))
    versions = pick(run, "versions", default={})
    weights, head = pick(run, "weights", default=""), pick(run, "head", default={})
    facts = page.term_list((
        ("seed", page.escape("" if seed is None else seed)),
        ("data fingerprint", _code(pick(run, "data", "fingerprint", default=""))),
        ("weights of the base", _code(weights)),
        ("head", _code(", ".join(f"{k}={v}" for k, v in head.items()) if head else "")),
        ("added to the base", page.escape(added(run))),
        ("versions", page.escape(", ".join(f"{k} {v}" for k, v in versions.items()))),
        ("times", page.escape(_times(run))),
    ), "facts")
    shown = f'<pre tabindex="0"><code>{page.escape(command)}</code></pre>' if command else ""
    return page.section("Doing it again", shown, facts)


def _code(value: Any) -> str:
    return f"<code>{page.escape(value)}</code>" if value else ""


def _times(run: Mapping[str, Any]) -> str:
    timings = pick(run, "timings", default={})
    told = [(key.replace("_seconds", "").replace("_", " "), duration(value))
            for key, value in timings.items() if not isinstance(value, Mapping | list)]
    return ", ".join(f"{key} {value}" for key, value in told if value)
