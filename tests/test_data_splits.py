"""Splits are seeded and stable; images on two sides are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tl_keras import modalities
from tl_keras.data.samples import Samples
from tl_keras.data.splits import assign, find_shared, leave_out, shared_error, split
from tl_keras.errors import DataError


def _samples(counts, splits=None, prefix=""):
    keys = [f"{c}/{prefix}{i}.jpg" for c, n in enumerate(counts) for i in range(n)]
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple("abcdefghij"[: len(counts)])
    return Samples(
        keys, labels, names, tuple(keys), modalities.get("image"), splits, root="/data"
    )


def _words(samples, **more):
    return dict(zip(samples.keys, assign(samples, **more)))


@pytest.mark.parametrize("seed", range(20))
def test_an_added_image_moves_at_most_one_other_at_each_border(seed):
    for count in range(3, 40):
        before = _words(_samples([count]), test=0.15, seed=seed)
        after = _words(_samples([count + 1]), test=0.15, seed=seed)
        moved = [(word, after[key]) for key, word in before.items() if after[key] != word]
        borders = [frozenset(pair) for pair in moved]
        assert len(borders) == len(set(borders)) <= 2
        assert frozenset(("test", "train")) not in borders


def test_a_class_does_not_move_with_the_others():
    some, more = _words(_samples([40, 60])), _words(_samples([40, 75, 30]))
    assert all(more[key] == word for key, word in some.items() if key.startswith("0/"))


def test_the_order_of_the_files_does_not_matter():
    samples = _samples([40, 60])
    shuffled = samples.take(np.random.default_rng(0).permutation(100))
    assert _words(samples) == _words(shuffled)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    samples = _samples([100, 100])
    assert assign(samples, seed=3) == assign(samples, seed=3) != assign(samples, seed=4)


def test_the_assignment_of_known_names_never_changes():
    words = assign(_samples([12, 12]), test=0.2, seed=0)
    assert "".join(word[1] for word in words) == "rrrearrrraaererarrrraera"


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.2, 0.1), (0.25, 0.33)])
def test_shares_are_met_in_every_class_to_the_image(val, test):
    counts = [5, 10, 11, 40, 173, 3000]
    samples = _samples(counts)
    words = np.array(assign(samples, val, test))
    for label, count in enumerate(counts):
        row = words[samples.labels == label]
        assert (row == "test").sum() == int(test * count + 0.5)
        assert (row != "train").sum() == int((val + test) * count + 0.5)


def test_digests_of_different_images_change_nothing_and_copies_follow_the_first():
    samples = _samples([30, 30])
    plain = _words(samples, test=0.2)
    assert _words(samples, test=0.2, groups=[f"{i}" for i in range(60)]) == plain
    copied = _samples([31, 30]).take(range(61))
    digests = [copied.keys[0] if i == 30 else key for i, key in enumerate(copied.keys)]
    words = _words(copied, test=0.2, groups=digests)
    assert words["0/30.jpg"] == words["0/0.jpg"] == plain["0/0.jpg"]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("test", [0.0, 0.2])
def test_small_classes_have_an_image_in_every_part(seed, test):
    parts = split(_samples([1, 2, 3, 4]), test=test, seed=seed)
    assert parts.train.counts()["a"] == 1
    assert all(parts.train.counts()[name] >= 1 for name in "bcd")
    assert all(parts.val.counts()[name] >= 1 for name in "bcd")
    if test:
        assert all(parts.test.counts()[name] >= 1 for name in "cd")
    else:
        assert parts.test is None


def test_no_image_is_lost_or_doubled():
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


def test_groups_across_classes_and_of_any_size_leave_no_class_without():
    samples = _samples([60, 60])
    sizes = [35, 30, 20, 12, 10, 7, 3, 2, 1]
    groups = np.repeat([f"patient {name}" for name in range(9)], sizes)
    groups = np.random.default_rng(0).permutation(groups).tolist()
    for seed in range(30):
        words = np.array(assign(samples, 0.2, 0.1, seed, groups))
        for name in set(groups):
            assert len(set(words[np.array(groups) == name])) == 1
        for label in range(2):
            assert set(words[samples.labels == label]) == {"train", "val", "test"}
            assert (words[samples.labels == label] == "train").mean() > 0.4


@pytest.mark.parametrize("count", [5, 10, 30, 99, 1000])
@pytest.mark.parametrize("task", ["tags", "values"])
def test_shares_of_tags_and_values_are_met_however_few_there_are(task, count):
    numbers = np.random.default_rng(0).normal(size=(count, 2))
    labels = numbers.astype(np.float32) if task == "values" else (numbers > 1.2).astype(np.uint8)
    samples = replace(_samples([count]), labels=labels, class_names=("x", "y"), task=task)
    parts = split(samples)
    assert len(parts.train) + len(parts.val) == count
    assert abs(len(parts.val) - 0.2 * count) <= 3


@pytest.mark.parametrize(
    "shares", [{"val": 0}, {"val": 1.0}, {"val": 0.6, "test": 0.4}, {"test": -1}]
)
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(DataError, match="Shares"):
        assign(_samples([5, 5]), **shares)


def test_an_empty_part_is_an_error():
    with pytest.raises(DataError, match="val split of /data is empty"):
        split(_samples([1, 1]))


def test_the_same_image_in_two_splits_or_classes_is_found_and_named():
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


def test_images_grouped_by_their_digests_never_straddle_carved_splits():
    samples = _samples([200, 200])
    digests = [f"{i // 4}" for i in range(400)]
    assert not find_shared(samples, digests, assign(samples, test=0.2, groups=digests))
