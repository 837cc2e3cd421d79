from __future__ import annotations

import pytest

from tl_keras.data.class_names import alike, merged_classes
from tl_keras.errors import DataError

SAME = [
    ("ants", "Ants"), ("ants", "ant"), ("ants", " ANTS "), ("T-shirt", "t shirt"),
    ("T-shirt", "tshirt"), ("caf\u00e9", "cafe\u0301"), ("berry", "berries"), ("fox", "Foxes"),
    ("\uff41nt", "ant"), ("stra\u00dfe", "strasse"), ("butterfly", "buterfly"),
    ("butterfly", "butterlfy"), ("hammer", "hammner"),
]  # fmt: skip
OTHER = [
    ("ants", "bees"), ("class 1", "class 2"), ("1", "11"), ("cat", "car"), ("glass", "gla"),
    ("\u732b", "\u72ac"), ("bus", "bull"), ("shirt", "T-shirt"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SAME)
def test_spellings_of_one_class_are_found(left, right):
    assert alike(left, right)
    assert alike(right, left)


@pytest.mark.parametrize(("left", "right"), OTHER)
def test_other_classes_are_not_mistaken(left, right):
    assert alike(left, right) == ""


def test_old_classes_keep_their_places_and_new_ones_follow():
    assert merged_classes(["wasp", "ant"], ["bee", "ant", "zebra"]) == (
        "wasp", "ant", "bee", "zebra",
    )  # fmt: skip


def test_another_spelling_is_refused_with_both_ways_out():
    with pytest.raises(DataError) as told:
        merged_classes(["ants", "bees"], ["Ant", "wasp"])
    assert "'Ant' and 'ants'" in str(told.value)
    assert "--new-class 'Ant'" in str(told.value)
    assert merged_classes(["ants"], ["Ant"], ["Ant"]) == ("ants", "Ant")


def test_two_new_spellings_of_one_class_are_refused():
    with pytest.raises(DataError, match="'bees' and 'bee'"):
        merged_classes(["ants", "wasps"], ["bee", "bees"])


def test_confirming_what_is_not_new_is_refused():
    with pytest.raises(DataError, match="'bee' is no new class"):
        merged_classes(["ant", "bee"], ["bee"], ["bee"])
