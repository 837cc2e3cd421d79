"""Lets a regression learn targets of mean 0 and spread 1, whatever their units.

A network whose targets are far from 0..1 hardly learns: its first outputs are near 0, and a step
is as large for prices in millions as for shares. The mean and spread of the training labels are
folded into the last layer's weights afterwards, so that the model gives the labels' own units.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.models import graph
from tl_keras.tasks.base import Scale

if TYPE_CHECKING:
    import keras

__all__ = ["scaled_output"]


@contextlib.contextmanager
def scaled_output(model: keras.Model, scale: Scale | None) -> Iterator[Scale | None]:
    """Have a model's last layer give scaled outputs for the time being.

    A layer whose bias is zero throughout has not learned yet: its kernel is kept as it is. Any
    other is first brought to the scaled units, so that training goes on where it stood.

    Args:
        model: Its last layer with weights must be a linear Dense; else nothing is scaled.
        scale: Mean and spread of each output; None scales nothing.

    Yields:
        The scale that holds, or None.
    """
    layer = _last_dense(model) if scale is not None else None
    if scale is None:
        yield None
        return
    if layer is None:
        logging.getLogger(__name__).warning(
            "the targets are not scaled, since '%s' does not end in a linear Dense layer with a "
            "bias; expected one, as keras.layers.Dense(outputs)", model.name
        )
        yield None
        return
    kernel, bias = layer.get_weights()
    if np.any(bias):
        layer.set_weights([kernel / scale.spread, (bias - scale.mean) / scale.spread])
    try:
        yield scale
    finally:
        kernel, bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
        layer.set_weights([kernel * scale.spread, bias * scale.spread + scale.mean])


def _last_dense(model: keras.Model) -> Any:
    """Return the linear Dense layer that gives a model's output, or None."""
    import keras

    for step in reversed(graph.steps(model)):
        layer = step.operation
        plain = getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"
        if isinstance(layer, keras.layers.Dense):
            return layer if plain and layer.use_bias else None
        if not isinstance(layer, keras.layers.Activation) or not plain:
            return None
    return None
