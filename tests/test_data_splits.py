"""Splits are seeded and stable; pictures on two sides are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tl_keras.data.samples import Samples
from tl_keras.data.splits import assign, find_shared, leave_out, shared_error, split
from tl_keras.errors import DataError


def _samples(counts, splits=None, prefix=""):
    keys = [f"{c}/{prefix}{i}.jpg" for c, n in enumerate(counts) for i in range(n)]
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple("abcdefghij"[: len(counts)])
    return Samples(keys, labels, names, tuple(keys), splits, root="/data")


def _words(samples, **more):
    return dict(zip(samples.keys, assign(samples, **more)))


def test_adding_pictures_moves_none():
    some, more = _samples([40, 60, 50]), _samples([400, 61, 50, 30])
    before, after = _words(some, test=0.1), _words(more, test=0.1)
    assert all(after[key] == word for key, word in before.items())


def test_the_order_of_the_files_does_not_matter():
    samples = _samples([40, 60])
    shuffled = samples.take(np.random.default_rng(0).permutation(100))
    assert _words(samples) == _words(shuffled)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    samples = _samples([100, 100])
    assert assign(samples, seed=3) == assign(samples, seed=3) != assign(samples, seed=4)


def test_the_assignment_of_known_names_never_changes():
    words = assign(_samples([12, 12]), test=0.2, seed=0)
    assert "".join(word[1] for word in words) == "rareraerrerrrerereerrrea"


def test_shares_are_near_what_was_asked_in_every_class():
    words = np.array(assign(_samples([3000, 3000]), val=0.2, test=0.1)).reshape(2, 3000)
    for row in words:
        assert abs((row == "val").mean() - 0.2) < 0.03
        assert abs((row == "test").mean() - 0.1) < 0.03


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("test", [0.0, 0.2])
def test_small_classes_have_a_picture_in_every_part(seed, test):
    parts = split(_samples([1, 2, 3, 4]), test=test, seed=seed)
    assert parts.train.counts()["a"] == 1
    assert all(parts.train.counts()[name] >= 1 for name in "bcd")
    assert all(parts.val.counts()[name] >= 1 for name in "bcd")
    if test:
        assert all(parts.test.counts()[name] >= 1 for name in "cd")
    else:
        assert parts.test is None


def test_no_picture_is_lost_or_doubled():
    samples = _samples([50, 7])
    parts = split(samples, test=0.2)
    keys = [*parts.train.keys, *parts.val.keys, *parts.test.keys]
    assert sorted(keys) == sorted(samples.keys)


def test_splits_of_the_source_are_kept_and_validation_is_carved_from_train():
    given = ("train",) * 60 + ("test",) * 40
    samples = _samples([50, 50], given)
    words = assign(samples, val=0.25, test=0.3)
    assert all(now == "test" for now, was in zip(words, given) if was == "test")
    assert {now for now, was in zip(words, given) if was == "train"} == {"train", "val"}
    full = _samples([2, 2], ("train", "val", "train", "val"))
    assert assign(full) == full.splits
    assert split(full).test is None


def test_a_test_split_is_carved_beside_a_given_validation_only_when_asked_for():
    samples = _samples([100, 100], (("val",) * 20 + ("train",) * 80) * 2)
    assert split(samples).test is None
    parts = split(samples, test=0.3)
    assert len(parts.val) == 40
    assert 30 < len(parts.test) < 70


def test_unsaid_samples_join_the_carving():
    samples = _samples([40, 40], (("",) * 40 + ("test",) * 20 + ("train",) * 20))
    words = np.array(assign(samples))
    assert set(words[:40]) == {"train", "val"}
    assert set(words[40:60]) == {"test"}


def test_a_group_stays_together():
    samples = _samples([60, 60])
    groups = [f"patient {i % 20}" for i in range(120)]
    words = assign(samples, test=0.2, groups=groups)
    for name in set(groups):
        assert len({word for word, group in zip(words, groups) if group == name}) == 1


def test_tags_and_values_are_split_without_strata():
    samples = _samples([30])
    tags = replace(
        samples, labels=np.zeros((30, 2), np.float32), class_names=("x", "y"), task="tags"
    )
    parts = split(tags)
    assert len(parts.train) + len(parts.val) == 30 and len(parts.val) > 0


@pytest.mark.parametrize(
    "shares", [{"val": 0}, {"val": 1.0}, {"val": 0.6, "test": 0.4}, {"test": -1}]
)
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(DataError, match="Shares"):
        assign(_samples([5, 5]), **shares)


def test_an_empty_part_is_an_error():
    with pytest.raises(DataError, match="val split of /data is empty"):
        split(_samples([1, 1]))


def test_the_same_picture_in_two_splits_or_classes_is_found_and_named():
    samples = _samples([3, 3])
    words = ("train", "val", "train", "test", "train", "train")
    digests = ("p", "p", "q", "p", "q", "r")
    found = find_shared(samples, digests, words)
    assert [pair.kind for pair in found] == ["splits", "splits", "classes"]
    assert str(found[0]) == "0/0.jpg (train: a) = 0/1.jpg (val: a)"
    assert str(found[2]) == "0/2.jpg (train: a) = 1/1.jpg (train: b)"


def test_copies_within_one_split_and_class_are_no_conflict():
    samples = _samples([3, 3])
    assert not find_shared(samples, ("p", "p", "", "", "q", "q"), ("train",) * 6)


def test_the_error_lists_the_first_twenty_and_counts_the_rest():
    samples = _samples([25, 25])
    digests = [f"{i}" for i in range(25)] * 2
    error = shared_error(find_shared(samples, digests, ("train",) * 50))
    assert "25 times" in str(error) and "and 5 more" in str(error)
    assert str(error).count(" = ") == 20


def test_leaving_out_ends_every_conflict_and_keeps_the_test_split_whole():
    samples = _samples([6, 2])
    words = ("train", "val", "test", "train", "val", "train", "train", "test")
    digests = ("p", "p", "p", "q", "q", "r", "r", "s")
    dropped = leave_out(samples, digests, words)
    assert dropped == (0, 1, 3, 5, 6)
    kept = [i for i in range(8) if i not in dropped]
    again = samples.take(kept)
    assert not find_shared(again, [digests[i] for i in kept], [words[i] for i in kept])


def test_pictures_grouped_by_their_digests_never_straddle_carved_splits():
    samples = _samples([200, 200])
    digests = [f"{i // 4}" for i in range(400)]
    assert not find_shared(samples, digests, assign(samples, test=0.2, groups=digests))
