"""Prune, cluster or quantize a model by tfmot, each with a short fine-tune.

Each step goes from a Keras 3 model to a Keras 3 model, the last one to a .tflite file. Batch
normalisation is folded before: what is pruned, clustered or rounded is what a device computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from export.compress.fine_tune import FineTune, fine_tune
from export.compress.graph import fold_trainable, make_quantizable
from export.compress.keras2.convert import from_keras2, to_keras2
from export.compress.keras2.load import load_tf_keras, load_tfmot
from export.compress.prune import prune
from export.compress.quantizers import wrap_for_rounding
from export.convert import tflite
from export.source import Signature, read_signature
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.utils.suggest import did_you_mean

if TYPE_CHECKING:
    import keras

__all__ = ["METHODS", "Compressed", "check_method", "compress"]

METHODS = {
    "qat": "quantization-aware training: int8 weights and activations",
    "prune": "pruning: weights become zero, in all layers but the smallest; others make up for it",
    "prune_2_4": "the same, with two weights of each four along a kernel's input channels",
    "cluster": "clustering: few different weights in each layer",
    "prune+qat": "pruning, then quantization-aware training that keeps the zeros",
    "cluster+qat": "clustering, then quantization-aware training that keeps equals equal",
}
"""What each name does."""

SPARSITY, CLUSTERS = 0.5, 32
_PRESERVED = {"prune": "zeros", "cluster": "clusters"}


@dataclass(frozen=True, eq=False)
class Compressed:
    """What a compression gave.

    Attributes:
        model: the plain Keras model; None where it ends in integers.
        tflite: the contents of the .tflite file: with QAT int8, images as uint8, RGB
            0..255, else float32 in; float32 out.
        left_in_float: names of the layers that QAT left in float.
        facts: for the record: "pruning", see `export.compress.prune.prune`.
    """

    model: keras.Model | None
    tflite: bytes
    left_in_float: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


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
    plain, facts = fold_trainable(model), dict[str, Any]()
    if first == "cluster":
        plain = _cluster(plain, model, data, how, clusters)
    elif first != "qat":
        share = None if first == "prune_2_4" else sparsity
        plain, facts = prune(plain, model, data, how, share)
        facts = {"pruning": facts}
    if first != "qat" and not then:
        return Compressed(plain, tflite.convert(plain, _read(model, data)), facts=facts)
    contents, left = _quantize(plain, model, data, how, _PRESERVED.get(first, ""))
    return Compressed(None, contents, tuple(left), facts)


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
