"""AdamW whose rate may differ from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

__all__ = ["LayerwiseAdamW", "depth_factors", "inner_optimizer"]


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
