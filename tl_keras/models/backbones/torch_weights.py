"""Makes a base of the tensors that torch saved for the same network.

The tables of `torch_names` say which tensors belong to which layer, and in what else torch's
network differs; the Keras graph is changed where it does, and the tensors are turned into Keras'
order of axes. Every tensor must have its place and every place its tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.model_folder import read_config
from tl_keras.models.backbones.preprocessing import Scaling, read_chain, scaling_of
from tl_keras.models.backbones.torch_names import TorchNames, origins_of
from tl_keras.models.backbones.vit import embedding
from tl_keras.models.graph import steps
from tl_keras.models.rewrite import Rewriter, stable_names

if TYPE_CHECKING:
    import keras

    from tl_keras.models.backbones.registry import BackboneInfo

__all__ = ["from_torch"]

_NORMALIZATION = {
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("weight", "bias"),
}


def from_torch(
    plain: keras.Model, tensors: Mapping[str, np.ndarray], info: BackboneInfo, path: Path
) -> tuple[keras.Model, Scaling]:
    """Make a base from tensors by the names of timm, torchvision, transformers and others.

    Args:
        plain: The base as its constructor built it; its weights are not used.
        tensors: Name to array, in torch's order of axes.
        info: The base's entry.
        path: Where the tensors come from; timm's config.json, or transformers'
            preprocessor_config.json, is looked for beside it.

    Returns:
        A flat copy of the base that computes what torch's network does, and the scaling of RGB
        0..255 that its weights expect, in place of the graph's own and of `info.scaling`.

    Raises:
        ModelError: They are of another network: a tensor is missing, left over, not finite or
            of another shape; or nothing tells which network they are of.
    """
    names, tensors = _origin(tensors, info, path)
    names, scaling = _settings(names, info, path)
    model = _as_torch_builds(plain, names)
    _fill(model, tensors, names, _Refusal(path, info))
    own = read_chain(model)
    # A file that says nothing of scaling is of weights that the graph's own layers were made for.
    return model, own if scaling is None else replace(scaling, layers=own.layers)


class _Refusal:
    """Makes the error of a file that is of another network."""

    def __init__(self, path: Path, info: BackboneInfo) -> None:
        self.path, self.info = path, info

    def __call__(self, why: str) -> ModelError:
        return ModelError(
            f"{self.path} does not hold weights of {self.info.name}: {why}; give the file of this "
            "base, or choose the base it was made for")


def _origin(
    tensors: Mapping[str, np.ndarray], info: BackboneInfo, path: Path
) -> tuple[TorchNames, dict[str, np.ndarray]]:
    """Whose names they are, and the tensors without what stands in front of all names."""
    known = origins_of(info.name)
    if not known:
        raise ModelError(
            f"got {path} for {info.name}, for which files of torch are not known how to take; give "
            "one of Keras (.weights.h5, .h5 or .keras)")
    for names in known:
        sign = re.compile(f"({names.inside})?{re.escape(names.sign)}")
        found = next(filter(None, map(sign.fullmatch, tensors)), None)
        if found:
            inside = (found.group(1) or "") if names.inside else ""
            return names, {name.removeprefix(inside): array for name, array in tensors.items()}
    signs = " or ".join(dict.fromkeys(f"{names.sign!r} ({names.origin})" for names in known))
    raise _Refusal(path, info)(f"it has no {signs}, but {min(tensors)!r}")


def _settings(
    names: TorchNames, info: BackboneInfo, path: Path
) -> tuple[TorchNames, Scaling | None]:
    """What the files beside the weights say of the network."""
    scaling = None if names.scaling == "included" else scaling_of(names.scaling)
    config = read_config(path.parent, needed=False)
    trained = config.get("pretrained_cfg", config)
    if "architecture" in config and isinstance(trained, dict):
        scaling = _scaling(path, trained.get("mean"), trained.get("std")) or scaling
    processor = read_config(path.parent, "preprocessor_config.json", needed=False)
    if processor.get("do_normalize", True):
        given = _scaling(path, processor.get("image_mean"), processor.get("image_std"))
        scaling = given or scaling
    if not names.architecture:
        return names, scaling
    architecture = str(config.get("architecture", ""))
    if not re.fullmatch(names.architecture, architecture):
        raise ModelError(
            f"{path} has timm's names for {info.name}, but its config.json, which must lie beside "
            f"it, names {architecture or 'no architecture'!r}; expected one like "
            f"{names.architecture!r}: how such a network pads stands nowhere else")
    if architecture.startswith("tf_"):
        names = replace(names, epsilon=1e-3, symmetric=False)
    return names, scaling


def _scaling(path: Path, mean: Any, deviation: Any) -> Scaling | None:
    if mean is None and deviation is None:
        return None
    try:
        values, spread = np.array(mean, np.float64), np.array(deviation, np.float64)
    except (TypeError, ValueError):
        values = spread = np.empty(0)
    if values.shape != (3,) or spread.shape != (3,) or not (
            np.isfinite(values).all() and np.isfinite(spread).all() and (spread > 0).all()):
        raise ModelError(
            f"beside {path}: got mean {mean!r} and deviation {deviation!r} of the images; expected "
            "three numbers each, as timm and transformers write them")
    return Scaling(1 / (255 * spread), -values / spread)


class _TorchRewriter(Rewriter):
    """Replays a model with torch's padding, strides and epsilon."""

    def __init__(self, model: keras.Model, names: TorchNames) -> None:
        super().__init__(stable_names(model))
        self.torch = names

    def replacement(self, operation: Any, args: tuple, kwargs: dict) -> Callable[..., Any] | None:
        kind = type(operation).__name__
        if kind == "BatchNormalization":
            return _normalize
        if kind == "ZeroPadding2D" and self.torch.symmetric:
            return _pad
        if kind in ("Conv2D", "DepthwiseConv2D") and operation.padding == "same" and (
                self.strides(operation) > 1 and self.torch.symmetric):
            return _convolve_padded
        if kind == "Conv2D" and self.strides(operation) != operation.strides[0]:
            return _convolve
        return super().replacement(operation, args, kwargs)

    def strides(self, operation: Any) -> int:
        """The strides of a convolution there."""
        for pattern, strides in self.torch.strides:
            if re.fullmatch(pattern, operation.name):
                return strides
        return int(operation.strides[0])


def _normalize(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    return rewriter.make(operation, lambda config: type(operation).from_config(
        {**config, "epsilon": rewriter.torch.epsilon}), prefix)(x)


def _pad(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    sides = [(max(pair), max(pair)) for pair in operation.padding]
    return rewriter.make(operation, lambda config: type(operation).from_config(
        {**config, "padding": sides}), prefix)(x)


def _convolve(rewriter: Any, operation: Any, prefix: str, x: Any, **changes: Any) -> Any:
    strides = rewriter.strides(operation)
    return rewriter.make(operation, lambda config: type(operation).from_config(
        {**config, "strides": (strides, strides), **changes}), prefix)(x)


def _convolve_padded(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    import keras

    sides = [(side // 2, side // 2) for side in operation.kernel_size]
    x = keras.layers.ZeroPadding2D(sides, name=f"{prefix}{operation.name}_pad")(x)
    return _convolve(rewriter, operation, prefix, x, padding="valid")


def _as_torch_builds(plain: keras.Model, names: TorchNames) -> keras.Model:
    import keras

    entry = keras.Input(tuple(plain.inputs[0].shape)[1:], name="images")
    rewriter = _TorchRewriter(plain, names)
    outputs = rewriter.run(plain, [entry])
    rewriter.copy_weights()  # those of a Normalization behind the input are no torch tensors
    return keras.Model(entry, outputs[0], name=plain.name)


def _fill(
    model: keras.Model, tensors: Mapping[str, np.ndarray], names: TorchNames, refuse: _Refusal
) -> None:
    left = {name for name in tensors
            if not any(re.fullmatch(one, name) for one in names.ignores())}
    layers = [step.operation for step in steps(model) if _learns(step.operation)]
    for layer, prefix in zip(layers, _prefixes(layers, names, tensors), strict=True):
        if type(layer).__name__ == "EinsumDense":
            arrays, used = _embedding(layer, tensors, names, refuse)
        else:
            arrays, used = _arrays(layer, prefix, tensors, refuse)
        left -= used
        wanted = [tuple(weight.shape) for weight in layer.weights]
        if [array.shape for array in arrays] != wanted:
            got = ", ".join(str(array.shape) for array in arrays)
            raise refuse(f"{min(used)!r} and its like give {layer.name!r} {got} where "
                         f"{', '.join(map(str, wanted))} is expected")
        if not all(np.isfinite(array).all() for array in arrays):
            raise refuse(f"{min(used)!r} holds numbers that are not finite")
        layer.set_weights(arrays)
    if left:
        raise refuse(f"{len(left)} of its tensors have no place, such as {min(left)!r}")


def _learns(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ())) and type(layer).__name__ != "Normalization"


def _prefixes(
    layers: list[Any], names: TorchNames, tensors: Mapping[str, np.ndarray]
) -> list[str]:
    """What each layer is called there."""
    found: list[tuple[str, dict[str, str]]] = []
    blocks: dict[tuple[str, str], int] = {}
    for layer in layers:
        if type(layer).__name__ == "EinsumDense" and names.embedding:
            found.append(("", {}))
            continue
        for pattern, template in names.rules:
            match = re.fullmatch(pattern, layer.name)
            if match:
                groups = match.groupdict()
                found.append((template, groups))
                if "block" in groups:
                    blocks.setdefault((groups.get("stage", ""), groups["block"]), len(blocks))
                break
        else:
            raise ModelError(f"layer {layer.name!r} has no place in files of {names.origin}")
    formed = [template.format(**_fields(groups, blocks, names)) for template, groups in found]
    return [_first_held(one, tensors) for one in formed]


def _first_held(prefixes: str, tensors: Mapping[str, np.ndarray]) -> str:
    """The first of several prefixes that the tensors have."""
    choices = prefixes.split("|")
    held = [one for one in choices if f"{one}.weight" in tensors]
    return held[0] if held else choices[0]


def _fields(
    groups: dict[str, str], blocks: dict[tuple[str, str], int], names: TorchNames
) -> dict[str, Any]:
    """What stands for the groups of a pattern in a prefix."""
    key = (groups.get("stage", ""), groups.get("block", ""))
    flat = int(groups["flat"]) if "flat" in groups else blocks.get(key, 0)
    fields: dict[str, Any] = {**groups, "flat": flat, "flat0": flat - 1, "flat1": flat + 1}
    for name, text in groups.items():
        number = int(text) if text.isdigit() else ord(text[0]) - ord("a") + 1
        fields |= {f"{name}1": number + 1, f"{name}0": number - 1, f"{name}00": number - 2}
    fields["vgg"] = 2 * flat + fields.get("stage0", 0)
    stage = 0
    while stage < len(names.stages) and flat >= names.stages[stage]:
        flat -= names.stages[stage]
        stage += 1
    return {**fields, "s": stage, "b": flat}


def _arrays(
    layer: Any, prefix: str, tensors: Mapping[str, np.ndarray], refuse: _Refusal
) -> tuple[list[np.ndarray], set[str]]:
    """The arrays of a layer in Keras' order of weights and axes, and the tensors they are of."""
    prefix, _, part = prefix.partition("[")
    used: set[str] = set()

    def take(name: str) -> np.ndarray:
        if name not in tensors:
            raise refuse(f"it has no {name!r}, which is {layer.name!r} here")
        used.add(name)
        values = np.asarray(tensors[name], np.float32)
        return values if not part else _third(values, int(part[0]))

    kind = type(layer).__name__
    if kind in _NORMALIZATION:
        return [take(f"{prefix}.{role}") for role in _NORMALIZATION[kind]], used
    arrays = [_kernel(kind, take(prefix if prefix in tensors else f"{prefix}.weight"))]
    if layer.use_bias:
        # A convolution before a batch normalization has none there.
        missing = kind == "Conv2D" and f"{prefix}.bias" not in tensors
        arrays.append(np.zeros(layer.filters, np.float32) if missing else take(f"{prefix}.bias"))
    return arrays, used


def _third(values: np.ndarray, part: int) -> np.ndarray:
    size = len(values) // 3
    return values[part * size : (part + 1) * size]


def _kernel(kind: str, kernel: np.ndarray) -> np.ndarray:
    """Torch's (out, in, height, width) or (out, in) in Keras' order."""
    if kind == "Conv2D" and kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if kind == "DepthwiseConv2D" and kernel.ndim == 4:
        return kernel.transpose(2, 3, 0, 1)
    if kind == "DepthwiseConv2D":  # a factor for each channel
        return kernel.reshape(1, 1, -1, 1)
    if kind == "Dense" and kernel.ndim == 4 and kernel.shape[2:] == (1, 1):
        kernel = kernel[:, :, 0, 0]
    return kernel.T if kind == "Dense" else kernel


def _embedding(
    layer: Any, tensors: Mapping[str, np.ndarray], names: TorchNames, refuse: _Refusal
) -> tuple[list[np.ndarray], set[str]]:
    """The first layer of a vision transformer, which torch has in several parts."""
    used = {name for name in names.embedding.values() if name in tensors}
    try:
        joined = embedding(tensors, names.embedding, layer.weights[1].shape[0])
    except KeyError as error:
        raise refuse(f"it has no {error.args[0]!r}, which is {layer.name!r} here") from error
    except ValueError as error:
        raise refuse(str(error)) from error
    return [joined["kernel"], joined["bias"]], used
