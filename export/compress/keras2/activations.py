"""Activations that one Keras lacks, or means something else by, as layers that both have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.compress.keras2.config import refuse

__all__ = ["after", "spelled_out"]

_ONLY_KERAS_3 = {
    "celu", "glu", "hard_shrink", "hard_tanh", "log_sigmoid", "soft_shrink", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "tanh_shrink", "threshold",
}  # fmt: skip
# Keras 3: relu6(x + 3) / 6. Keras 2: clip(0.2 x + 0.5, 0, 1). Each as (scale, offset) before a
# clipped ReLU, its ceiling, and the factor behind it.
_HARD = {"tf_keras": (1.0, 3.0, 6.0, 1 / 6), "keras": (0.2, 0.5, 1.0, 1.0)}


def spelled_out(layer: Any, config: dict[str, Any], library: Any) -> str | None:
    """Take an activation out of a configuration that the other Keras computes otherwise.

    Args:
        layer: the layer that has it.
        config: its translated configuration; changed in place.
        library: the other Keras, as a module.

    Returns:
        The name of what must come after the layer instead; None for nothing.

    Raises:
        ExportError: if nothing that both have computes it.
    """
    name = config.get("activation")
    if not isinstance(name, str | dict) and name is not None:
        raise refuse(layer, f"its activation {name!r} is a function of its own")
    if name in _ONLY_KERAS_3 if isinstance(name, str) else name is not None:
        raise refuse(layer, f"{library.__name__} lacks the activation {name!r}")
    recurrent = config.get("recurrent_activation") in ("hard_sigmoid", "hard_silu", "hard_swish")
    if name not in ("hard_sigmoid", "hard_silu", "hard_swish") and not recurrent:
        return None
    if recurrent or "recurrent_initializer" in config:
        raise refuse(layer, f"{library.__name__} computes {name or 'hard_sigmoid'} otherwise")
    config["activation"] = "linear"
    return "hard_sigmoid" if name == "hard_sigmoid" else "hard_silu"


def after(kind: str, name: str, library: Any) -> Callable[[Any], Any]:
    """Layers that compute an activation; made once, to be called as often as needed.

    Args:
        kind: "hard_sigmoid" or "hard_silu" (Howard et al. 2019, arXiv 1905.02244).
        name: what their names begin with.
        library: the Keras to make them of, as a module.
    """
    layers, (scale, offset, ceiling, factor) = library.layers, _HARD[library.__name__]
    shift = layers.Rescaling(scale, offset, name=f"{name}_shift")
    clip = layers.ReLU(ceiling, name=f"{name}_clip")
    divide = layers.Rescaling(factor, name=f"{name}_divide") if factor != 1.0 else None
    times = layers.Multiply(name=f"{name}_times") if kind == "hard_silu" else None

    def call(x: Any) -> Any:
        y = clip(shift(x))
        y = divide(y) if divide is not None else y
        return times([x, y]) if times is not None else y

    return call
