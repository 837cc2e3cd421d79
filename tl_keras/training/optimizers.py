"""Learning rates: AdamW whose rate may differ by layer, and how rates go over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

__all__ = ["LayerwiseAdamW", "depth_factors", "inner_optimizer", "warmup_cosine"]


@keras.saving.register_keras_serializable(package="tl_keras")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with a factor on the rate by layer.

    Biases and normalisation parameters are not decayed.

    Args:
        learning_rate: The rate of layers without a factor.
        factors: Layer name to factor, 0 or more; layers not named have factor 1.
        **options: What `keras.optimizers.AdamW` takes.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        factors: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.factors = dict(factors or {})
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    def build(self, variables: list[Any]) -> None:
        """Make the slots (see `keras.optimizers.Optimizer`)."""
        super().build(variables)
        self._paths = [variable.path for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable at its own rate (see `keras.optimizers.Optimizer`)."""
        path = self._paths[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * self.factor(path))

    def factor(self, path: str) -> float:
        """Return the factor of the variable with this path ("block5_conv1/kernel")."""
        return next((self.factors[part] for part in path.split("/") if part in self.factors), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration, factors included."""
        return {**super().get_config(), "factors": self.factors}


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer that a loss-scaling one (as mixed_float16 has it) wraps, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def depth_factors(blocks: list[list[str]], decay: float) -> dict[str, float]:
    """Return each base layer's factor: `decay` to the power of its block's depth.

    The top block has depth 1, the one below 2, and so on; the head is not named and keeps
    factor 1. Source: discriminative fine-tuning, Howard and Ruder, arXiv 1801.06146.

    Args:
        blocks: Layer names by block, bottom to top.
        decay: In (0, 1]; with 1 the result is empty.
    """
    if decay == 1:
        return {}
    depths = {name: len(blocks) - i for i, block in enumerate(blocks) for name in block}
    return {name: decay**depth for name, depth in depths.items()}


def warmup_cosine(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """Return the rate at a step: a linear climb to the peak, then half a cosine to zero.

    Source: Loshchilov and Hutter, arXiv 1608.03983 (without restarts), with the linear
    warm-up of Goyal et al., arXiv 1706.02677.

    Args:
        step: Steps taken so far, 0 or more.
        steps: Steps in all, at least 1.
        peak: Highest rate.
        warmup: Share of the steps in which the rate climbs, in [0, 1).
    """
    climb = int(round(warmup * steps))
    if step < climb:
        return peak * (step + 1) / climb
    progress = min(1.0, (step - climb) / max(1, steps - climb))
    return 0.5 * peak * (1.0 + math.cos(math.pi * progress))
