"""Rewrite a functional model as one flat graph of stock layers.

Nested models are inlined, layers of `keras.applications` that a saved file cannot be loaded
with are replaced by stock ones of equal value, sums and products with a constant become
layers. Weights are copied; the source model is left untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError
from tl_keras.models.graph import Step, alone, is_functional, steps

if TYPE_CHECKING:
    import keras

__all__ = ["FlatView", "Rewriter", "flat_view", "flatten", "stable_names"]


def _all_operations(model: keras.Model) -> Iterable[Any]:
    for step in steps(model):
        if is_functional(step.operation):
            yield from _all_operations(step.operation)
        else:
            yield step.operation


def _snake(text: str) -> str:
    text = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", text))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()


def _automatic_number(operation: Any) -> int | None:
    """The number that Keras gave a layer without a name ("conv2d" is 0), None when named."""
    stem = _snake(type(operation).__name__)
    found = re.fullmatch(re.escape(stem) + r"(?:_(\d+))?", operation.name)
    return int(found.group(1) or 0) if found else None


def stable_names(model: keras.Model, skip: Iterable[int] = ()) -> dict[int, str]:
    """Names for the layers that Keras numbered, counted from this model's own start.

    Keras counts layers without a name over the whole process ("conv2d_94"), so that the
    second InceptionV3 of a process has other names than the first.

    Args:
        model: A functional model.
        skip: ids of operations that get no name and do not count.

    Returns:
        id of the operation -> name, for automatically named operations only.
    """
    numbered: dict[str, dict[int, int]] = {}
    for operation in _all_operations(model):
        number = _automatic_number(operation)
        if number is not None and id(operation) not in skip:
            numbered.setdefault(_snake(type(operation).__name__), {})[id(operation)] = number
    names = {}
    for stem, members in numbered.items():
        for count, key in enumerate(sorted(members, key=members.__getitem__)):
            names[key] = f"{stem}_{count}" if count else stem
    return names


class Rewriter:
    """Replays the calls of a model on new inputs with new layers.

    Attributes:
        pairs: (source operation, new layer, function from source weights to new weights).
    """

    def __init__(self, names: dict[int, str] | None = None, skip: Iterable[int] = ()) -> None:
        """Start with no layers.

        Args:
            names: id of a source operation -> name of its new layer; others keep theirs.
            skip: ids of source operations to leave out: their input passes through.
        """
        self.names = names or {}
        self.skip = set(skip)
        self.pairs: list[tuple[Any, Any, Callable[[list], list]]] = []
        self._layers: dict[int, Any] = {}
        self._taken: set[str] = set()

    def run(self, model: keras.Model, inputs: list[Any], prefix: str = "") -> list[Any]:
        """Replay `model` on `inputs` (Keras tensors, one a model input).

        Returns:
            The new outputs, one a model output.
        """
        tensors = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
        for step in steps(model):
            if step.inputs:
                outputs = self._call(step, tensors, prefix)
                tensors.update({id(old): new
                                for old, new in zip(step.outputs, outputs, strict=True)})
        return [tensors[id(tensor)] for tensor in model.outputs]

    def _call(self, step: Step, tensors: dict[int, Any], prefix: str) -> list[Any]:
        import keras

        args, kwargs = _substitute((step.args, step.kwargs), tensors)
        if id(step.operation) in self.skip:
            return [args[0]]
        if is_functional(step.operation):
            inner = keras.tree.flatten((args, kwargs.get("inputs", ())))
            return self.run(step.operation, inner, f"{step.name}_")
        if kwargs.get("training") is False:
            kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        replace = self.replacement(step.operation, args, kwargs)
        result = replace(self, step.operation, prefix, *args) if replace else self.layer(
            step.operation, prefix)(*args, **kwargs)
        return keras.tree.flatten(result)

    def replacement(self, operation: Any, args: tuple, kwargs: dict) -> Callable[..., Any] | None:
        """The function that puts stock layers where an operation stood, None to keep it."""
        return _replacement(operation, args, kwargs)

    def name(self, operation: Any, prefix: str) -> str:
        """A name that no other layer of the new graph has."""
        name = self.names.get(id(operation), operation.name)
        if name in self._taken:
            name = f"{prefix}{name}"
        count, stem = 0, name
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def layer(self, operation: Any, prefix: str = "") -> Any:
        """The new layer of the same class and configuration; one for each source layer."""
        import keras

        if not isinstance(operation, keras.Layer):
            return operation
        _refuse_lambda(operation)
        return self.make(operation, type(operation).from_config, prefix)

    def make(self, operation: Any, build: Callable[[dict], Any], prefix: str,
             weights: Callable[[list], list] = list) -> Any:
        """The new layer for a source operation, made once by `build(config)`."""
        if id(operation) not in self._layers:
            config = {**operation.get_config(), "name": self.name(operation, prefix)}
            self._layers[id(operation)] = build(config)
            self.pairs.append((operation, self._layers[id(operation)], weights))
        return self._layers[id(operation)]

    def copy_weights(self) -> None:
        """Give each new layer the weights of its source.

        Raises:
            ModelError: When shapes differ, as a Dense after Flatten does at another size.
        """
        for source, layer, convert in self.pairs:
            weights = source.get_weights() if hasattr(source, "get_weights") else []
            try:
                layer.set_weights(convert(weights))
            except ValueError as error:
                raise ModelError(
                    f"layer {layer.name!r} has weights of another shape at this size; "
                    "build the model at the size it was made for"
                ) from error


class _Sharing(Rewriter):
    """Replays calls with the layers themselves; copied is only what shares its name."""

    def replacement(self, operation: Any, args: tuple, kwargs: dict) -> None:
        return None

    def layer(self, operation: Any, prefix: str = "") -> Any:
        if id(operation) in self._layers:
            return self._layers[id(operation)]
        if operation.name in self._taken:
            return self.make(operation, type(operation).from_config, prefix)
        self._layers[id(operation)] = operation
        self._taken.add(operation.name)
        return operation


@dataclass(frozen=True, eq=False)
class FlatView:
    """A model without a model in it that shares its layers, and so its weights, with a model.

    Attributes:
        model: The flat model; the model itself where it was flat already.
        copies: (layer of the source, layer of the view) where two nested models have layers of
            one name, so that the second one had to be copied.
    """

    model: keras.Model
    copies: tuple[tuple[Any, Any], ...] = ()

    def share_weights(self) -> None:
        """Give the source the weights of what had to be copied."""
        for source, copy in self.copies:
            source.set_weights(copy.get_weights())

    def share_flags(self) -> None:
        """Let the source's weights learn where those of the copies do."""
        for source, copy in self.copies:
            source.trainable = copy.trainable
            for old, new in zip(source.weights, copy.weights, strict=True):
                old.trainable = new.trainable


def flat_view(model: keras.Model) -> FlatView:
    """See a model flat, with nested models such as `base(x)` or `Sequential([base, ...])` inlined.

    Raises:
        ModelError: When the graph cannot be read.
    """
    import keras

    if not any(is_functional(step.operation) for step in steps(model)):
        return FlatView(model)
    model.trainable = True  # a frozen nested model would hide that its layers learn
    rewriter = _Sharing()
    outputs = rewriter.run(model, list(model.inputs))
    rewriter.copy_weights()
    flat = keras.Model(_inputs(model), alone(outputs), name=model.name)
    copies = [pair[:2] for pair in rewriter.pairs if isinstance(pair[0], keras.Layer)]
    return FlatView(flat, tuple(copies))


def _substitute(structure: Any, tensors: dict[int, Any]) -> Any:
    import keras

    return keras.tree.map_structure(
        lambda leaf: tensors[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf, structure
    )


def _refuse_lambda(operation: Any) -> None:
    if type(operation).__name__ == "Lambda":
        raise ModelError(
            f"layer {operation.name!r} is a Lambda, which a saved model cannot be loaded with "
            "safely; replace it by a stock layer or a keras.ops call"
        )


def flatten(model: keras.Model, size: int | None = None) -> keras.Model:
    """A flat copy of a model: one graph, no model inside a model.

    Args:
        model: A functional or built sequential model.
        size: Side of the new input in pixels, for a model of one image; None keeps its own.

    Returns:
        A functional model with the same layers under the same names; a single image input is
        float32 and called "pixels". A name that two nested models share gets the nested
        model's name in front.

    Raises:
        ModelError: When the graph cannot be read, holds a Lambda, or does not fit `size`.
    """
    import keras

    entries = _entries(model, size)
    rewriter = Rewriter()
    try:
        outputs = rewriter.run(model, keras.tree.flatten(entries))
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"the model cannot be built at {size} px: {error}") from error
    rewriter.copy_weights()
    return keras.Model(entries, alone(outputs), name=model.name)


def _entries(model: keras.Model, size: int | None) -> Any:
    """New inputs in the structure of the model's own."""
    import keras

    if not is_functional(model):
        steps(model)  # says what is wrong with it
    first = tuple(model.inputs[0].shape)[1:]
    if len(model.inputs) == 1 and len(first) == 3:
        return keras.Input((size, size, 3) if size else first, name="pixels")
    return keras.tree.map_structure(
        lambda x: keras.Input(tuple(x.shape)[1:], dtype=x.dtype, name=x.name), _inputs(model))


def _inputs(model: keras.Model) -> Any:
    """The inputs in the structure that the model is called with; a Sequential has one."""
    import keras

    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _is_stock(operation: Any) -> bool:
    return type(operation).__module__.split(".")[0] == "keras"


def _common(config: dict) -> dict:
    return {key: config[key] for key in ("name", "dtype", "trainable") if key in config}


def _layer_scale(rewriter: Rewriter, operation: Any, prefix: str, x: Any) -> Any:
    import keras

    return rewriter.make(
        operation,
        lambda config: keras.layers.DepthwiseConv2D(1, use_bias=False, **_common(config)),
        prefix,
        lambda weights: [weights[0].reshape(1, 1, -1, 1)],
    )(x)


def _stochastic_depth(rewriter: Rewriter, operation: Any, prefix: str, x: Any) -> Any:
    import keras

    return rewriter.make(
        operation,
        lambda config: keras.layers.Dropout(
            operation.drop_path_rate, noise_shape=(None, 1, 1, 1), **_common(config)),
        prefix,
    )(x)


def _scaled_sum(rewriter: Rewriter, operation: Any, prefix: str, pair: Any) -> Any:
    import keras

    total = rewriter.make(
        operation, lambda config: keras.layers.Add(**_common(config)), prefix)
    scale = keras.layers.Rescaling(operation.scale, name=f"{total.name}_factor")
    return total([pair[0], scale(pair[1])])


def _depthwise(rewriter: Rewriter, operation: Any, prefix: str, x: Any) -> Any:
    """A convolution with one group a channel: as a depthwise one it also trains on a CPU."""
    import keras

    def build(config: dict) -> Any:
        keys = ("kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias",
                "bias_initializer", "bias_regularizer", "bias_constraint")
        return keras.layers.DepthwiseConv2D(
            **{key: config[key] for key in keys}, **_common(config),
            depthwise_initializer=config["kernel_initializer"],
            depthwise_regularizer=config["kernel_regularizer"],
        )

    return rewriter.make(
        operation, build, prefix,
        lambda weights: [weights[0].transpose(0, 1, 3, 2), *weights[1:]],
    )(x)


def _arithmetic(rewriter: Rewriter, operation: Any, prefix: str, a: Any, b: Any) -> Any:
    """A sum or product of two tensors, or of a tensor and a number."""
    import keras

    tensors = [value for value in (a, b) if isinstance(value, keras.KerasTensor)]
    kind, name = type(operation).__name__, rewriter.name(operation, prefix)
    if len(tensors) == 2:
        return getattr(keras.layers, kind)(name=name)(tensors)
    number = float(b if tensors[0] is a else a)
    scale, offset = (number, 0.0) if kind == "Multiply" else (1.0, number)
    return keras.layers.Rescaling(scale, offset, name=name)(tensors[0])


_REPLACED: dict[str, Callable[..., Any]] = {
    "LayerScale": _layer_scale,
    "StochasticDepth": _stochastic_depth,
    "CustomScaleLayer": _scaled_sum,
}


def _replacement(operation: Any, args: tuple, kwargs: dict) -> Callable[..., Any] | None:
    """The function that puts stock layers of equal value where an operation stood.

    Returns:
        A function (rewriter, operation, prefix, *args) -> new tensor; None when the operation
        is kept, since a saved file can be loaded with it.
    """
    import keras

    kind = type(operation).__name__
    if not _is_stock(operation):
        return None
    if not isinstance(operation, keras.Layer):
        plain = len(args) == 2 and all(
            isinstance(value, (int, float, keras.KerasTensor)) for value in args)
        return _arithmetic if kind in ("Add", "Multiply") and plain and not kwargs else None
    if kind == "Conv2D" and operation.groups > 1:
        channels = args[0].shape[-1]
        return _depthwise if operation.groups == channels == operation.filters else None
    return _REPLACED.get(kind)
