from __future__ import annotations

import numpy as np
import pytest

from export.quantize.calibration import (
    choose_stratified,
    clip_ranges,
    collect,
    read_calibration_inputs,
)
from tl_keras.data.samples import from_arrays
from tl_keras.errors import ExportError
from tl_keras.modalities.base import InputSpec


def samples(labels, task="classes"):
    count = len(labels)
    noise = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return from_arrays(noise, np.array(labels), task=task)


def test_each_class_has_its_share():
    chosen = choose_stratified(samples([0] * 60 + [1] * 30 + [2] * 10), 20)
    assert len(set(chosen)) == 20
    assert np.bincount((chosen >= 60).astype(int) + (chosen >= 90)).tolist() == [12, 6, 2]


def test_the_seed_decides_and_a_larger_sample_contains_the_smaller():
    data = samples([0, 1] * 40)
    assert (choose_stratified(data, 30) == choose_stratified(data, 30)).all()
    assert set(choose_stratified(data, 10)) < set(choose_stratified(data, 30))
    assert set(choose_stratified(data, 10)) != set(choose_stratified(data, 10, seed=1))


def test_all_are_taken_where_there_are_fewer():
    assert sorted(choose_stratified(samples([0, 1, 1]), 99)) == [0, 1, 2]


def test_values_are_spread_and_rare_tags_are_not_forgotten():
    values = samples(np.arange(100.0), "values")
    tenths = choose_stratified(values, 10) // 10
    assert sorted(tenths.tolist()) == list(range(10))
    tags = np.zeros((100, 2))
    tags[:, 0], tags[:10, 1] = 1, 1
    assert (choose_stratified(samples(tags, "tags"), 20) < 10).sum() == 2


@pytest.mark.parametrize("count", [0, -1])
def test_nothing_to_calibrate_with_is_refused(count):
    with pytest.raises(ExportError, match="at least 1"):
        choose_stratified(samples([0, 1]), count)


def test_pictures_are_plain_bytes_of_the_right_size():
    data = samples([0, 1, 0, 1])
    specs = {"image": InputSpec((8, 8, 3), "uint8", "RGB")}
    read = read_calibration_inputs(data, specs, 4)["image"]
    assert (read.dtype, read.shape) == (np.uint8, (4, 8, 8, 3))
    assert sorted(read.sum(axis=(1, 2, 3))) == sorted(data.items.sum(axis=(1, 2, 3)))


def observed(values):
    return collect([{"x": np.asarray(values, np.float32)}])


def test_ranges_keep_all_values_and_an_exact_zero():
    found = collect([{"x": np.array([1.0, 5.0])}, {"x": np.array([2.0, 9.0])}])
    assert clip_ranges(found)["x"] == (0.0, 9.0)
    assert clip_ranges(observed([-3.0, -1.0]))["x"] == (-3.0, 0.0)


def test_clipping_leaves_rare_large_values_out():
    values = np.append(np.random.default_rng(0).normal(size=2000), 100.0)
    whole, percentile, mse = (clip_ranges(observed(values), clip)["x"][1]
                              for clip in ("min-max", "percentile", "mse"))  # fmt: skip
    assert whole == 100.0
    assert percentile < 100.0
    assert clip_ranges(observed(values[:-1]), "mse")["x"][1] <= values[:-1].max() + 1e-6
    assert mse <= 100.0


def test_the_values_that_are_kept_come_from_all_channels():
    tensor = np.zeros((1, 112, 112, 96), np.float32) + np.arange(96, dtype=np.float32)
    kept = collect([{"x": tensor}])["x"].values[0]
    assert len(np.unique(kept)) == 96


def test_what_cannot_be_rounded_is_refused():
    with pytest.raises(ExportError, match="nan.*expected finite"):
        observed([1.0, np.nan])
    with pytest.raises(ExportError, match="min-max, percentile, mse"):
        clip_ranges(observed([1.0]), "best")


def test_clipping_by_error_counts_the_error_of_16_bits_where_there_are_16():
    batches = list(np.random.default_rng(0).normal(size=(40, 2000)))
    found = collect({"x": values} for values in [*batches, np.array([20.0])])
    eight, sixteen = (clip_ranges(found, "mse", bits)["x"] for bits in (8, 16))
    assert eight[1] < 20.0, "a step of 8 bits is worth cutting the outlier"
    assert sixteen[1] == 20.0, "a step of 16 bits is not"
