"""Built-in data sets are offline, fixed and few a class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tl_keras.data import builtin as module
from tl_keras.data.builtin import builtin, builtin_names, is_builtin
from tl_keras.data.splits import split
from tl_keras.errors import DataError


@pytest.mark.parametrize(("name", "count"), [("digits", 10), ("digits@3", 3), ("digits@80", 80)])
def test_digits_have_so_many_images_a_class(name, count):
    samples = builtin(name)
    parts = split(samples)
    assert set(parts.train.counts().values()) == set(parts.val.counts().values()) == {count}
    assert len(parts.test) == 1797 - 20 * count
    assert samples.class_names == tuple("0123456789") and len(set(samples.keys)) == 1797


def test_digits_are_scikit_learns_at_full_range():
    samples = builtin("digits")
    data = load_digits()
    assert samples.items.dtype == np.uint8 and samples.items.shape == (1797, 8, 8, 1)
    assert np.abs(samples.items[..., 0] / 255 - data.images / 16).max() < 1 / 255
    assert samples.labels.tolist() == data.target.tolist()
    assert samples.modality.open(samples.items[0]).mode == "RGB"


def test_the_training_images_of_digits_never_change():
    train = builtin("digits@2").where("train")
    assert train.keys == builtin("digits@2").where("train").keys
    assert set(train.keys) <= set(builtin("digits@5").where("train").keys)
    assert train.keys[:3] == ("digits/0090", "digits/0199", "digits/0203")


@pytest.mark.parametrize("name", ["digits@", "digits@ten", "digits@-1", "digits@0", "digits@81"])
def test_a_number_that_makes_no_sense_is_refused(name):
    with pytest.raises(DataError, match="digits@"):
        builtin(name)


def test_an_unknown_name_is_refused_and_the_nearest_offered():
    with pytest.raises(DataError, match="Did you mean digits"):
        builtin("digit")
    assert is_builtin("digits@7") and not is_builtin("nothing")


def test_a_new_entry_is_one_line_of_data(monkeypatch):
    monkeypatch.setitem(module.BUILTINS, "again", "tl_keras.data.builtin:digits")
    assert "again" in builtin_names() and len(builtin("again@4").where("train")) == 40
