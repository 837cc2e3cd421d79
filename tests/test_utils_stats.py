from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tl_keras.utils.stats import paired_difference, paired_interval, wilson


def test_wilsons_interval_is_scipys():
    from scipy.stats import binomtest

    for right, count in [(0, 10), (3, 4), (8, 10), (500, 500), (17, 2000)]:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilsons_interval_of_a_mean_covers_it_more_often_than_promised():
    generator = np.random.default_rng(0)
    drawn = generator.beta(0.1, 2, (400, 60))
    ends = [wilson(one.sum(), 60) for one in drawn]
    assert np.mean([low <= 0.1 / 2.1 <= high for low, high in ends]) >= 0.95


@pytest.mark.parametrize(
    ("gained", "lost", "count"), [(12, 2, 50), (0, 0, 46), (5, 1, 46), (0, 30, 30), (3, 0, 500)]
)
def test_the_ends_of_the_paired_interval_are_where_the_score_test_begins_to_refuse(
    gained, lost, count
):
    found = paired_interval(gained, lost, count)
    for end in found:
        if abs(end) == 1:
            continue
        statistic = abs(score_statistic(gained, lost, count, end))
        assert statistic == pytest.approx(1.959964, abs=2e-3)
    assert found[0] <= (gained - lost) / count <= found[1]
    assert paired_interval(lost, gained, count) == pytest.approx((-found[1], -found[0]))


def score_statistic(gained, lost, count, difference):
    """Tango's statistic, the restricted likelihood maximized by a search instead of a formula."""
    same = count - gained - lost

    def unlikely(share):
        cells = np.array([share + difference, share, 1 - 2 * share - difference])
        seen = np.array([gained, lost, same])
        return -np.sum(seen[seen > 0] * np.log(np.maximum(cells[seen > 0], 1e-300)))

    least, most = max(0.0, -difference), min(1.0, (1 - difference) / 2)
    options = {"bounds": (least, most), "method": "bounded", "options": {"xatol": 1e-12}}
    share = minimize_scalar(unlikely, **options).x
    variance = count * (2 * share + difference * (1 - difference))
    return (gained - lost - count * difference) / np.sqrt(variance)


def test_the_paired_interval_is_the_published_one():
    """Bentur et al. 2009 as in Fagerland, Lydersen, Laake 2014: 1 and 7 discordant of 21."""
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_with_nothing_changed_the_interval_is_as_wide_as_the_sample_is_small():
    low, high = paired_interval(0, 0, 46)
    assert -low == high == pytest.approx(1.959964**2 / (46 + 1.959964**2), abs=1e-6)


@pytest.mark.parametrize("count", [46, 200])
def test_the_paired_interval_covers_the_truth_in_95_of_100_samples(count):
    generator, cells = np.random.default_rng(count), (0.06, 0.03, 0.91)
    drawn = generator.multinomial(count, cells, 1500)
    ends = [paired_interval(gained, lost, count) for gained, lost, _ in drawn]
    covered = np.mean([low <= 0.03 <= high for low, high in ends])
    assert 0.935 <= covered <= 0.985


def test_one_run_each_way_is_compared_by_the_paired_interval():
    before = np.repeat([True, False], [40, 10])
    after = before.copy()
    after[:3], after[-1:] = False, True
    assert paired_difference(after, before) == (
        pytest.approx(-0.04),
        *map(pytest.approx, paired_interval(1, 3, 50)),
    )
