"""Samples that show nearly the same, and samples that are like no other.

Copies are found by a perceptual hash of the content, not by a model's features: of photos saved
again at a quarter of the size, MobileNetV2's features have other photos as nearest neighbors,
while the hashes of copies and of other photos lie far apart. Outliers are found by features. Both
searches are exact and go block by block: memory grows with the samples, never with all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.errors import DataError

__all__ = ["SAME", "describe_group", "find_near_duplicates", "find_neighbors", "find_outliers"]

SAME = 0.17
"""Largest share of differing bits of the hashes of one image saved twice. On real photos, copies
of JPEG quality 40, or of half the size, differ by 0.08 at most, copies of a quarter of the size by
0.16; of 120,000 pairs of different photos none differs by less than 0.29."""
_NEIGHBORS = 10
_DIMENSIONS = 128
_FENCE = 3.0


def find_near_duplicates(
    hashes: Sequence[np.ndarray | None], same: float = SAME
) -> list[list[int]]:
    """Group the samples that show the same, also when saved again at another quality or size.

    Args:
        hashes: perceptual hash of each sample, uint8 of packed bits, all of one length, or None
            where there is none.
        same: largest share of differing bits.

    Returns:
        Ascending indices of each group of two or more, groups by their first.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = np.array([i for i, one in enumerate(hashes) if one is not None], np.int64)
    if len(known) < 2:
        return []
    bits = np.unpackbits(np.stack([hashes[i] for i in known]), axis=1)
    # Of bits as -1 and 1, the squared distance is four times the number that differ.
    distances, near = _nearest(2.0 * bits.astype(np.float32) - 1.0)
    row, column = np.nonzero(distances**2 / 4 <= same * bits.shape[1] + 1e-3)
    marks: np.ndarray = np.ones(len(row), np.int8)
    graph = coo_array((marks, (row, near[row, column])), shape=(len(known), len(known)))
    names = connected_components(graph, directed=False)[1]
    order = np.argsort(names, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(names[order])) + 1)
    return sorted(known[part].tolist() for part in parts if len(part) > 1)


def describe_group(group: Sequence[int], labels: Sequence[str], splits: Sequence[str]) -> str:
    """Say what near duplicates do: "leak", "contradict" or "repeat".

    Args:
        group: their indices.
        labels: of all samples, as text.
        splits: of all samples; "" where it is not decided.

    Returns:
        "leak" where they are in two splits, "contradict" where their labels differ.
    """
    if len({splits[i] for i in group if splits[i]}) > 1:
        return "leak"
    return "contradict" if len({labels[i] for i in group}) > 1 else "repeat"


def find_neighbors(features: np.ndarray, count: int = _NEIGHBORS) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other samples of each sample, by the cosine of centered features.

    Features of more than 128 dimensions are projected on their first 128 principal components.

    Args:
        features: (n, d), finite; at least 2 samples.
        count: neighbors, n - 1 at most.

    Returns:
        Cosines float64 (n, count), -1..1, largest first, and indices int64 (n, count).

    Raises:
        DataError: the features are no such array.
    """
    distances, near = _nearest(_directions(features), count)
    return 1.0 - distances**2 / 2.0, near


def _nearest(points: np.ndarray, count: int = _NEIGHBORS) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances and indices of the nearest other points, nearest first."""
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(points) - 1)
    search = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(points)
    distances, indices = search.kneighbors(points)
    # Among equal points the point itself may stand anywhere, or not be among the first.
    itself = indices == np.arange(len(points))[:, None]
    itself[~itself.any(1), -1] = True
    shape = (len(points), count)
    return distances[~itself].reshape(shape).astype(np.float64), indices[~itself].reshape(shape)


def _directions(features: np.ndarray) -> np.ndarray:
    """Centered features of length 1, float32, in few dimensions."""
    from sklearn.decomposition import PCA

    points = np.asarray(features, np.float32)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise DataError(
            f"got features of shape {points.shape}; expected finite numbers (n, d), n at least 2"
        )
    if min(points.shape) > _DIMENSIONS:
        points = PCA(_DIMENSIONS, svd_solver="randomized", random_state=0).fit_transform(points)
    points = points - points.mean(0)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.ascontiguousarray(points / np.maximum(lengths, np.finfo(np.float32).tiny))


def find_outliers(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each sample is from its nearest others, and which are far from all.

    The distance is 1 minus the mean cosine to the ten nearest (Kuan and Mueller 2022, arXiv
    2207.03061, average it likewise). Far is beyond the upper quartile by more than three times the
    distance of the quartiles (Tukey 1977).

    Args:
        features: (n, d), finite.

    Returns:
        Distances float64 (n,), 0..2, and the indices int64 of outliers, the farthest first.

    Raises:
        DataError: the features are no such array.
    """
    distances = 1.0 - find_neighbors(features)[0].mean(1)
    low, high = np.quantile(distances, [0.25, 0.75])
    far = np.flatnonzero(distances > high + _FENCE * (high - low))
    return distances, far[np.argsort(-distances[far], kind="stable")]
