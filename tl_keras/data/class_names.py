"""Class names that are written differently and likely mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from tl_keras.errors import DataError

__all__ = ["alike", "merged_classes", "plain"]

_LONG = 5


def plain(name: str) -> str:
    """Return a name without what people write in different ways.

    Compatibility forms are composed (NFKC), case is folded, and everything that is no letter
    or digit becomes one space.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    marks = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded)
    return " ".join(marks.split())


def _singular(word: str) -> str:
    for ending, single in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("xes", "x"),
        ("ses", "s"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + single
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def alike(left: str, right: str) -> str:
    """Say in what two class names are alike, "" when they are not.

    Names that differ in a number are never alike: "class 1" is not "class 2". A single letter
    changed, left out, added or swapped with its neighbour counts from five letters on
    (Damerau 1964).
    """
    a, b = plain(left), plain(right)
    if a == b:
        return "case, spaces, signs or form of the letters"
    if re.findall(r"\d+", a) != re.findall(r"\d+", b) or not (a and b):
        return ""
    if a.replace(" ", "") == b.replace(" ", ""):
        return "spaces or signs"
    if _singular(a) == _singular(b):
        return "one and many"
    if min(len(a), len(b)) >= _LONG and _one_letter_apart(a, b):
        return "one letter"
    return ""


def _one_letter_apart(a: str, b: str) -> bool:
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    swapped = a[start + 1 : start + 2] + a[start : start + 1] + a[start + 2 :]
    return a[start + 1 :] == b[start + 1 :] or swapped == b[start:]


def merged_classes(
    old: Sequence[str], new: Sequence[str], confirmed: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the old classes in their order, and after them those that are new.

    Args:
        old: The classes of a trained model, in output order.
        new: The classes of new samples.
        confirmed: New classes that may look like others.

    Raises:
        DataError: A new name is written almost as another class, or a confirmed name is not
            among the new samples' classes or is an old one.
    """
    sure, classes, doubts = set(confirmed), list(old), []
    if unknown := sorted(sure - (set(new) - set(old))):
        raise DataError(
            f"--new-class {unknown[0]!r} is no new class of these samples; "
            f"expected one of {', '.join(sorted(set(new) - set(old))) or 'none: all are known'}"
        )
    for name in new:
        if name in classes:
            continue
        near = [(other, why) for other in classes if (why := alike(name, other))]
        if near and name not in sure:
            doubts.append((name, *near[0]))
        classes.append(name)
    if doubts:
        raise DataError(_doubtful(doubts))
    return tuple(classes)


def _doubtful(doubts: Sequence[tuple[str, str, str]]) -> str:
    listed = "; ".join(f"{name!r} and {other!r} differ in {why}" for name, other, why in doubts)
    name, other, _ = doubts[0]
    return (
        f"The same class may be there under another spelling: {listed}. If it is the same, name "
        f"the new samples' class {other!r}; if it is another, confirm: --new-class {name!r}."
    )
