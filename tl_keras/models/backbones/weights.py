"""Weights of a base: from Keras' servers, from a file, shipped, or random.

Files are compared with the base before they are loaded: Keras itself fills what it finds and
says nothing of what is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models.backbones import packages, registry
from tl_keras.models.backbones import preprocessing as scaling
from tl_keras.models.backbones.keras2_files import keras2_version, load_keras2
from tl_keras.models.backbones.requirements import prepare_to_load
from tl_keras.models.backbones.safetensors_file import read_safetensors
from tl_keras.models.backbones.torch_archive import read_torch_archive
from tl_keras.models.backbones.torch_weights import from_torch
from tl_keras.models.graph import head_layers, steps
from tl_keras.models.rewrite import flatten
from tl_keras.utils.files import irregular

if TYPE_CHECKING:
    import keras

__all__ = ["finish", "load_user_model", "load_weights", "own_scaling", "weights_here"]

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_SUFFIXES = (".keras", ".weights.h5", ".h5", ".safetensors")
SHIPPED = Path(__file__).parent / "pretrained"


def load_weights(info: registry.BackboneInfo, size: int, weights: str | Path | None) -> keras.Model:
    """Build a base with its weights and its scaling.

    Args:
        info: Entry of the base.
        size: Side of the input in pixels.
        weights: "imagenet", the name of shipped weights, a file, or None.

    Returns:
        A flat model for RGB 0..255, float32 (None, size, size, 3).

    Raises:
        ModelError: When the file is missing, unreadable or of another base.
        DownloadError: When "imagenet" cannot be fetched, or must be put in its place first.
    """
    if weights == "imagenet" and registry.is_own(info):
        weights = _placed(info)
        if weights.suffix == ".pth":
            return _from_tensors(info, size, weights, read_torch_archive(weights))
    if str(weights).endswith(".safetensors"):
        path = Path(str(weights)).expanduser()
        return _from_tensors(info, size, path, read_safetensors(path))
    if weights is not None and str(weights).endswith(".keras"):
        return _from_keras_file(info, size, Path(weights))
    plain = _imagenet(info, size) if weights == "imagenet" else registry.construct(info, size)
    if weights not in (None, "imagenet"):
        _fill(plain, _file_of(info, weights), info)
    return finish(plain, info, scaling.scaling_of(info.scaling).then(own_scaling(plain, info)))


def finish(plain: keras.Model, info: registry.BackboneInfo, scale: scaling.Scaling) -> keras.Model:
    """Put a base, as its constructor built it, behind its scaling.

    Args:
        plain: The base with its weights; it is copied.
        info: Its entry.
        scale: From RGB 0..255 to what the first layer that is kept expects.

    Returns:
        A flat model for RGB 0..255.
    """
    model = scaling.with_scaling(plain, scale, info.name.replace("@", "_"))
    if scale.swapped:
        scaling.swap_channels(model)
    return model


def own_scaling(plain: keras.Model, info: registry.BackboneInfo) -> scaling.Scaling:
    """What a base's own scaling layers do together.

    EfficientNet's published files hold the deviation where the variance belongs; Keras mends
    it by one more Rescaling, but only for weights="imagenet".

    Args:
        plain: The base with its weights.
        info: Its entry.

    Returns:
        From RGB 0..255 (or what `info.scaling` makes of it) to what the layers behind expect.
    """
    chain = scaling.read_chain(plain)
    deviation = np.array(scaling.IMAGENET_DEVIATION)
    if info.module == "efficientnet" and np.allclose(
            chain.scale * 255, 1 / np.sqrt(deviation), rtol=1e-4):
        factor = 1 / np.sqrt(deviation)
        return chain.then(scaling.Scaling(factor, np.zeros(3)))
    return chain


def _placed(info: registry.BackboneInfo) -> Path:
    """The file of published weights that Keras does not fetch, put where it keeps its own.

    Where there is none, that of the installed package that carries them.
    """
    if info.default_weights != "imagenet":
        raise ModelError(
            f"got weights 'imagenet' for {info.name}, which has none; expected "
            f"{info.default_weights!r}, a file or None")
    found = _placed_file(info) or packages.find_package(info.name)
    if found:
        return found
    place = _keras_home() / "models" / f"{info.name}_imagenet.keras"
    way = f"{packages.EXTRA}, or put" if info.name in packages.PACKAGES else "put"
    raise DownloadError(
        f"Keras has no weights of {info.name} to download; {way} a file of them at {place} "
        "(or .weights.h5), or give one, or weights None for random ones")


def _placed_file(info: registry.BackboneInfo) -> Path | None:
    stem = _keras_home() / "models" / f"{info.name}_imagenet"
    files = [stem.with_name(stem.name + suffix) for suffix in _SUFFIXES]
    return next(filter(Path.is_file, files), None)


def weights_here(info: registry.BackboneInfo) -> str:
    """Say how a base's own weights are on this machine; empty when they are not.

    Args:
        info: Its entry in the registry.

    Returns:
        "shipped" with the project, "installed" as a package, "placed" in Keras' folder of models,
        "downloaded" there by Keras, or "".
    """
    if info.default_weights != "imagenet":
        return "shipped"
    if registry.is_own(info):
        if _placed_file(info):
            return "placed"
        # A package without its file is not what a list should fail on.
        with contextlib.suppress(ModelError):
            return "installed" if packages.find_package(info.name) else ""
        return ""
    key = re.sub("[^a-z0-9]", "", info.name.partition("@")[0])
    width = f"{info.alpha:.1f}".replace(".", "") if info.alpha else ""
    known = re.compile(f"(weights)?{key}(weights[a-z]*)?(224)?{width}[0-9]*(tf|float)?notop(v2)?h5")
    folder = _keras_home() / "models"
    names = [one.name.lower() for one in folder.iterdir()] if folder.is_dir() else []
    return "downloaded" if any(
        known.fullmatch(re.sub("[^a-z0-9]", "", name)) for name in names) else ""


def _from_tensors(
    info: registry.BackboneInfo, size: int, path: Path, tensors: dict[str, np.ndarray]
) -> keras.Model:
    """A base with the weights of a file that torch wrote."""
    plain, scale = from_torch(registry.construct(info, size), tensors, info, path)
    return finish(plain, info, scale)


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _imagenet(info: registry.BackboneInfo, size: int) -> keras.Model:
    # NASNet's constructor takes its published weights at its own size only.
    own = info.default_size if info.module == "nasnet" else size
    published = _download(lambda: registry.construct(info, own, "imagenet"), info)
    if own == size:
        return published
    plain = registry.construct(info, size)
    plain.set_weights(published.get_weights())
    return plain


def _download(build: Callable[[], Any], info: registry.BackboneInfo) -> Any:
    try:
        return build()
    except ValueError as error:
        raise ModelError(f"{info.name} has no published weights: {error}") from error
    except Exception as error:  # Keras raises bare Exception when a fetch fails.
        url, target = _asked_for(error.__traceback__)
        if not url:
            raise
        raise DownloadError(
            f"the weights of {info.name} cannot be downloaded ({_brief(error)}); "
            f"fetch {url} on a machine with a network and put it at {target}, or give a file "
            "of weights, or weights None for random ones") from error


def _asked_for(traceback: TracebackType | None) -> tuple[str, str]:
    """URL and place of the file that `keras.utils.get_file` was called for, from its frame."""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "get_file" and frame.f_locals.get("origin"):
            known = frame.f_locals
            return known["origin"], str(_keras_home() / known["cache_subdir"] / known["fname"])
        traceback = traceback.tb_next
    return "", ""


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def _file_of(info: registry.BackboneInfo, weights: str | Path) -> Path:
    """The file behind a path or the name of shipped weights."""
    if str(weights) == info.default_weights != "imagenet":
        return SHIPPED / f"{info.name}_{weights}.weights.h5"
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ModelError(
            f"got weights {str(weights)!r} for {info.name}: no such file; expected "
            f"{info.default_weights!r}, a file (.weights.h5, .h5, .keras or .safetensors) or None")
    if path.suffix in _PICKLES:
        raise ModelError(
            f"{path} is a pickle, which may run any program when it is read; where it was made, "
            "save its tensors: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'weights.safetensors')")
    return path


def _mismatch(path: Path, info: registry.BackboneInfo, why: str) -> ModelError:
    return ModelError(
        f"{path} does not hold weights of {info.name} without its top: {why}; give the file "
        "of this base (for a MobileNet, of this width), or choose the base it was made for")


def _inspect(path: Path, info: registry.BackboneInfo) -> tuple[bool, int]:
    """(whether the layout is that of Keras 3, number of arrays it holds for layers)."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            legacy = "layer_names" in file.attrs or "model_weights" in file
            root = file.get("model_weights", file)
            names: list[str] = []
            root.visititems(lambda name, item: names.append(name)
                            if isinstance(item, h5py.Dataset) else None)
    except OSError as error:
        raise _mismatch(path, info, f"it is no HDF5 file ({_brief(error)})") from error
    kept = [name for name in names if not re.search(r"optimizer|seed_generator", name)]
    return not legacy, len(kept)


def _fill(plain: keras.Model, path: Path, info: registry.BackboneInfo) -> None:
    """Load an HDF5 file of either layout into the base as its constructor built it."""
    modern, held = _inspect(path, info)
    wanted = len(plain.weights)
    if held != wanted:
        raise _mismatch(path, info, f"it holds {held} arrays, the base has {wanted}")
    try:
        _load_as(plain, path, ".weights.h5" if modern else ".h5")
    except (ValueError, KeyError, OSError) as error:
        raise _mismatch(path, info, _brief(error)) from error


def _load_as(plain: keras.Model, path: Path, suffix: str) -> None:
    """Keras chooses the layout by the file's name: give it the name that fits."""
    fits = path.name.endswith(".weights.h5") == (suffix == ".weights.h5")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # One for every container that holds no weights; what is missing raises.
        warnings.filterwarnings("ignore", message="Skipping nested container")
        if fits and path.suffix == ".h5":
            plain.load_weights(str(path))
            return
        copy = Path(folder) / f"weights{suffix}"
        shutil.copyfile(path, copy)
        plain.load_weights(str(copy))


def load_user_model(path: Path) -> keras.Model:
    """Load a saved model (.keras, or a whole .h5, of Keras 2 too) in safe mode, not compiled.

    Raises:
        ModelError: When it is missing or cannot be loaded.
    """
    import keras

    if not path.is_file():
        what = irregular(path) or "no such file"
        raise ModelError(f"got {str(path)!r}: {what}; expected a saved model (.keras)")
    # Keras calls a file that is cut short "not found".
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is no saved model, or damaged or cut short; save it again")
    try:
        if keras2_version(path):
            return load_keras2(path)
        prepare_to_load(path)
        return keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # whatever a file that is damaged anywhere makes its reader raise
        raise ModelError(
            f"{path}{_writer(path)} cannot be loaded as a Keras model ({_brief(error)}); save it "
            "with model.save('name.keras'), without Lambda layers") from error


def _writer(path: Path) -> str:
    """Which Keras 2 wrote a file, if one did; its .keras files are not converted."""
    version = keras2_version(path)
    if not version and zipfile.is_zipfile(path):
        # Damaged anywhere, it may say nothing, and then it says nothing of its writer either.
        with contextlib.suppress(Exception):
            metadata = json.loads(zipfile.ZipFile(path).read("metadata.json"))
            version = str(metadata.get("keras_version", ""))
    if not version.startswith("2"):
        return ""
    return f", saved by Keras {version} (which can save it as .h5, for this program to convert),"


def _from_keras_file(info: registry.BackboneInfo, size: int, path: Path) -> keras.Model:
    """A base with the weights of a saved model of it, this project's own or a plain one."""
    flat = flatten(load_user_model(path.expanduser()))
    chain = own_scaling(flat, info)
    ready = any(layer.name == scaling.LAYER for layer in chain.layers)
    scale = chain if ready else scaling.scaling_of(info.scaling).then(chain)
    source = scaling.with_scaling(flat, scale, "source")
    plain = registry.construct(info, size)
    own = scaling.read_chain(plain).layers
    model = scaling.with_scaling(
        plain, scaling.Scaling(scale.scale, scale.offset, layers=own), source.name)
    _copy(source, model, path, info)
    model = rename_model(model, info)
    if scale.swapped:
        scaling.swap_channels(model)
    return model


def rename_model(model: keras.Model, info: registry.BackboneInfo) -> keras.Model:
    """The same graph under the base's name."""
    import keras

    return keras.Model(model.inputs[0], model.outputs[0], name=info.name.replace("@", "_"))


def _copy(source: keras.Model, model: keras.Model, path: Path,
          info: registry.BackboneInfo) -> None:
    """Copy weights by the layers' names, or in order where the same graph has other names."""
    head = set(head_layers(source))
    held = {layer.name: layer for layer in source.layers if layer.weights}
    wanted = [layer for layer in model.layers if layer.weights]
    if not any(layer.name in held for layer in wanted) and _graph(source, head) == _graph(model):
        ordered = [s.operation for s in steps(source) if s.name not in head]
        held = dict(zip([s.name for s in steps(model)], ordered, strict=True))
    spare = {name for name in held if held[name].weights} - {layer.name for layer in wanted} - head
    missing = [layer.name for layer in wanted if layer.name not in held]
    if missing or spare:
        name = missing[0] if missing else sorted(spare)[0]
        raise _mismatch(path, info, f"layer {name!r} is in one of them only")
    for layer in wanted:
        try:
            layer.set_weights(held[layer.name].get_weights())
        except ValueError as error:
            raise _mismatch(path, info, f"layer {layer.name!r}: {_brief(error)}") from error


def _graph(model: keras.Model, head: Collection[str] = ()) -> list[tuple[str, ...]]:
    """What the steps of a base do, in order, whatever they are called."""
    settings = ("activation", "epsilon", "max_value", "padding", "strides")
    found = []
    for step in steps(model):
        if step.name not in head:
            config = step.operation.get_config() if hasattr(step.operation, "get_config") else {}
            kind = type(step.operation).__name__
            found.append((kind, *(str(config.get(key)) for key in settings)))
    return found
