"""Prune, cluster or quantize a model by tfmot, each with a short fine-tune.

Each step goes from a Keras 3 model to a Keras 3 model, the last one to a .tflite file. Batch
normalisation is folded before anything is clustered or rounded. Pruning comes before that: which
weights of a layer are small must not depend on how its channels are scaled afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.compress.fine_tune import FineTune, count_steps, fine_tune
from export.compress.graph import flatten_trainable, fold_trainable, make_quantizable
from export.compress.keras2.convert import from_keras2, to_keras2
from export.compress.keras2.load import load_tf_keras, load_tfmot
from export.compress.quantizers import wrap_for_rounding
from export.convert import tflite
from export.source import Signature, read_signature
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.features.extract import read_ahead
from tl_keras.training.batchnorm import reestimate
from tl_keras.utils.suggest import did_you_mean

if TYPE_CHECKING:
    import keras

__all__ = ["METHODS", "Compressed", "check_method", "compress"]

METHODS = {
    "qat": "quantization-aware training: int8 weights and activations",
    "prune": "magnitude pruning: the smallest weights of each layer but the smallest become zero",
    "prune_2_4": "pruning of two weights in each four along a kernel's input channels",
    "cluster": "clustering: few different weights in each layer",
    "prune+qat": "pruning, then quantization-aware training that keeps the zeros",
    "cluster+qat": "clustering, then quantization-aware training that keeps equals equal",
}
"""What each name does."""

SPARSITY, CLUSTERS = 0.5, 32
# Kernels that are pruned; of all their weights, the share that the smallest may hold and be spared,
# if the others need not become sparser than this for it.
_PRUNED, _SPARED, _MOST = ("Conv2D", "Dense"), 0.05, 0.9
_PRESERVED = {"prune": "zeros", "cluster": "clusters"}


@dataclass(frozen=True, eq=False)
class Compressed:
    """What a compression gave.

    Attributes:
        model: the plain Keras model; None where it ends in integers.
        tflite: the contents of the .tflite file: with QAT int8, images as uint8, RGB
            0..255, else float32 in; float32 out.
        left_in_float: names of the layers that QAT left in float.
    """

    model: keras.Model | None
    tflite: bytes
    left_in_float: tuple[str, ...] = ()


def check_method(method: str) -> None:
    """Check a method's name.

    Raises:
        ExportError: if it is unknown; the nearest are offered.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS, 2)
        raise ExportError(f"Unknown method {method!r}.{hint} Known: {', '.join(METHODS)}.")


def compress(
    model: keras.Model, data: Splits, method: str, how: FineTune | None = None,
    sparsity: float = SPARSITY, clusters: int = CLUSTERS,
) -> Compressed:  # fmt: skip
    """Compress a model, and fine-tune it meanwhile.

    Args:
        model: functional; it is not changed.
        data: the training split is fine-tuned on.
        method: a name in `METHODS`.
        how: the fine-tune of each step.
        sparsity: share of all kernels' weights that "prune" sets to zero, above 0 and below 1;
            the smallest kernels keep theirs, and the others lose more for it.
        clusters: different weights that "cluster" leaves in each layer, 2 to 256.

    Raises:
        ExportError: if the method is unknown, or a layer has no counterpart in tf_keras.
    """
    check_method(method)
    if not 0 < sparsity < 1 or not 2 <= clusters <= 256:
        raise ExportError(
            f"Got sparsity {sparsity} and {clusters} clusters; expected a share between 0 and 1, "
            "and 2 to 256 clusters."
        )
    how = how or FineTune()
    first, _, then = method.partition("+")
    if first == "cluster":
        plain = _cluster(fold_trainable(model), model, data, how, clusters)
    elif first == "qat":
        plain = fold_trainable(model)
    else:
        share = None if first == "prune_2_4" else sparsity
        plain = fold_trainable(_prune(flatten_trainable(model), model, data, how, share))
    if first != "qat" and not then:
        return Compressed(plain, tflite.convert(plain, _read(model, data)))
    contents, left = _quantize(plain, model, data, how, _PRESERVED.get(first, ""))
    return Compressed(None, contents, tuple(left))


def _prune(
    plain: keras.Model, teacher: keras.Model, data: Splits, how: FineTune, sparsity: float | None
) -> keras.Model:
    """Zhu and Gupta 2017, arXiv 1710.01878; without a sparsity 2 of 4 (arXiv 2104.08378)."""
    api, total = load_tfmot().sparsity.keras, count_steps(data, how)
    end, spared = max(1, total * 2 // 3), frozenset[str]()
    if sparsity is None:
        schedule = api.ConstantSparsity(0.5, 0, frequency=1)
        options = {"pruning_schedule": schedule, "sparsity_m_by_n": (2, 4)}
    else:
        spared, share = _choose_spared(plain, sparsity)
        schedule = api.PolynomialDecay(0.0, share, 0, end, frequency=max(1, end // 20))
        options = {"pruning_schedule": schedule}

    def wrap(layer: Any) -> Any:
        if type(layer).__name__ not in _PRUNED or layer.name in spared:
            return layer
        wide = layer.get_weights()[0].shape[-2] % 4 == 0
        return api.prune_low_magnitude(layer, **options) if sparsity or wide else layer

    student = load_tf_keras().models.clone_model(to_keras2(plain), clone_function=wrap)
    fine_tune(student, teacher, data, how, "pruning", [api.UpdatePruningStep()])
    slim = from_keras2(api.strip_pruning(student))
    _settle(slim, data, how)
    return slim


def _choose_spared(model: keras.Model, sparsity: float) -> tuple[frozenset[str], float]:
    """Names of the smallest kernels, which keep all weights, and the share for the others.

    They hold few of the weights and do much of the work: without them the zeros are as many,
    and the answers nearer (benchmarks/README.md).
    """
    sizes = {
        layer.name: layer.get_weights()[0].size
        for layer in model.layers
        if type(layer).__name__ in _PRUNED
    }
    total, held, spared = sum(sizes.values()), 0, set()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        held += sizes[name]
        if held > _SPARED * total or sparsity * total > _MOST * (total - held):
            held -= sizes[name]
            break
        spared.add(name)
    return frozenset(spared), sparsity * total / (total - held) if total else sparsity


def _settle(model: keras.Model, data: Splits, how: FineTune) -> None:
    """Measure batch normalisation's statistics anew: without half the weights, all sums shift."""
    if not any(type(layer).__name__ == "BatchNormalization" for layer in model.layers):
        return
    chunks = np.split(
        np.arange(len(data.train)), range(how.batch_size, len(data.train), how.batch_size)
    )
    reestimate(model, read_ahead(data.train.reader(model), chunks))


def _cluster(
    plain: keras.Model, teacher: keras.Model, data: Splits, how: FineTune, clusters: int
) -> keras.Model:
    """Han et al. 2016, arXiv 1510.00149, section 3."""
    api = load_tfmot().clustering.keras
    start = api.CentroidInitialization.KMEANS_PLUS_PLUS

    def wrap(layer: Any) -> Any:
        kernel = type(layer).__name__ in ("Conv2D", "Dense")
        # Few weights have nothing to share.
        if not kernel or layer.get_weights()[0].size < 4 * clusters:
            return layer
        return api.cluster_weights(
            layer, number_of_clusters=clusters, cluster_centroids_init=start)  # fmt: skip

    load_tf_keras().utils.set_random_seed(how.seed)
    student = load_tf_keras().models.clone_model(to_keras2(plain), clone_function=wrap)
    fine_tune(student, teacher, data, how, "clustering")
    return from_keras2(api.strip_clustering(student))


def _quantize(
    plain: keras.Model, teacher: keras.Model, data: Splits, how: FineTune, preserve: str
) -> tuple[bytes, list[str]]:
    """Jacob et al. 2018, arXiv 1712.05877."""
    student, left = wrap_for_rounding(to_keras2(make_quantizable(plain)), preserve)
    fine_tune(student, teacher, data, how, "quantization-aware training")
    signature = _read(teacher, data)

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if signature.in_bytes:
            converter.inference_input_type = tf.uint8

    return tflite.convert(student, signature, configure), left


def _read(model: keras.Model, data: Splits) -> Signature:
    return read_signature(model, data.train.modality, data.train.task)
