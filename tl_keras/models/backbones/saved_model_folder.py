"""Opens SavedModels of one image: what is in the folder, what it computes, and by which function.

Loading a SavedModel lets TensorFlow run what its graph says. Graphs that read or write files, or
call Python, are refused before anything is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras.errors import DownloadError, ModelError
from tl_keras.utils.files import irregular

__all__ = ["Module", "forbidden", "image_side", "open_saved_model", "resolve"]

FILE = "saved_model.pb"
_LARGEST_FILE = 2**31 - 1  # more cannot be a protocol buffer
_LARGEST_FOLDER = 2**33
_FORBIDDEN = ("MatchingFiles", "PyFunc", "ReadFile", "WriteFile", "LookupTableExport",
              "TensorFlowLibrary", "WholeFileReader")  # fmt: skip
_PREFERRED = ("image_feature_vector", "serving_default", "default", "serve")


@dataclass(frozen=True, eq=False)
class Module:
    """What a SavedModel computes of images.

    Attributes:
        infer: From float32 (None, size, size, 3) to features, in inference mode.
        train: The same in training mode; None where it has none.
        side: Side of the images, pixels; None for any.
        variables: Its variables.
        loaded: What TensorFlow loaded, which the functions need as long as they are used.
    """

    infer: Callable[[Any], Any]
    train: Callable[[Any], Any] | None
    side: int | None
    variables: tuple[Any, ...]
    loaded: Any


def resolve(place: str) -> Path:
    """Return the folder of a SavedModel; a handle of TF-Hub is fetched, or found in its cache.

    Raises:
        ModelError: There is no such folder.
        DownloadError: It must be fetched and cannot be.
    """
    if not re.match(r"https?://", place):
        folder = Path(place).expanduser()
        if not folder.is_dir():
            what = "no such folder" if not folder.exists() else "no folder"
            raise ModelError(
                f"got hub:{place}: {what}; expected the folder of a SavedModel, or a handle such "
                "as https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5")
        return folder
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorflow_hub imports what setuptools has given up
        import tensorflow_hub
    try:
        return Path(tensorflow_hub.resolve(place))
    except Exception as error:  # whatever the network, the server or the archive makes it raise
        raise DownloadError(
            f"{place} cannot be fetched ({_brief(error)}); download and unpack it on a machine "
            "with a network and give its folder: hub:FOLDER; or set TFHUB_CACHE_DIR to a cache "
            "that has it") from error


def image_side(folder: Path) -> int | None:
    """Return the side of the images that a SavedModel's signatures take, without TensorFlow.

    None where they take any, or nothing is said.
    """
    path = folder / FILE
    if irregular(path) or not path.is_file() or path.stat().st_size > _LARGEST_FILE:
        return None
    from google.protobuf.message import DecodeError

    try:
        content = path.read_bytes()
        shapes = [
            [_signed(_fields(size, 1)) for size in _fields(shape, 2)]
            for graph in _fields(content, 2) for entry in _fields(graph, 5)
            for signature in _fields(entry, 2) for argument in _fields(signature, 1)
            for tensor in _fields(argument, 2) for shape in _fields(tensor, 3)]
    except (DecodeError, TypeError, ValueError, OSError):  # it is told when the folder is opened
        return None
    sides = {shape[1] for shape in shapes if len(shape) == 4 and shape[3] == 3}
    side = sides.pop() if len(sides) == 1 else -1
    return side if side > 0 else None


def _fields(message: Any, number: int) -> list[Any]:
    """The values of one field of a protocol buffer whose definition needs no TensorFlow."""
    from google.protobuf import empty_pb2, unknown_fields

    known = unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(message))
    return [field.data for field in known if field.field_number == number]


def _signed(values: list[int]) -> int:
    value = values[0] if values else 0
    return value - 2**64 if value >= 2**63 else value


def open_saved_model(folder: Path, signature: str = "") -> Module:
    """Open a SavedModel that takes one image.

    Args:
        folder: Its folder.
        signature: The signature to use; empty chooses: the model itself where it can be called,
            else what is usual for images.

    Raises:
        ModelError: It is none, damaged, dangerous, or takes something else.
    """
    tags = _check_folder(folder)
    import tensorflow as tf

    with _silenced_loader():
        try:
            loaded = tf.saved_model.load(str(folder), tags=tags)
        except Exception as error:  # whatever a damaged folder makes TensorFlow raise
            raise ModelError(
                f"'{folder}' cannot be loaded as a SavedModel ({_brief(error)}); save or download "
                "it again") from error
    if signature or not callable(loaded):
        return _of_signature(folder, loaded, signature)
    return _of_callable(folder, loaded)


@contextlib.contextmanager
def _silenced_loader() -> Iterator[None]:
    """TensorFlow warns of functions that have no concrete one; what is missing is told here."""
    log = logging.getLogger("tensorflow")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _check_folder(folder: Path) -> list[str] | None:
    """Look at the files before TensorFlow does; returns the tags of the graph to load."""
    path = folder / FILE
    if not path.is_file():
        there = irregular(path) or (
            "it holds saved_model.pbtxt, which is for reading only"
            if (folder / "saved_model.pbtxt").exists() else f"it has no {FILE}")
        raise ModelError(f"'{folder}' is no SavedModel: {there}; expected a folder that "
                         "tf.saved_model.save, model.export or TF-Hub made")
    total = 0
    for one in folder.rglob("*"):
        if one.is_dir():
            continue
        if what := irregular(one):
            raise ModelError(f"'{one}' is {what}; expected regular files in a SavedModel")
        total += one.stat().st_size if one.is_file() else 0
    if path.stat().st_size > _LARGEST_FILE or total > _LARGEST_FOLDER:
        raise ModelError(f"'{folder}' holds {total / 2**30:.1f} GB; expected a base of at most "
                         f"{_LARGEST_FOLDER / 2**30:.0f} GB, {FILE} at most 2 GB")
    return _check_graphs(folder, path)


def _check_graphs(folder: Path, path: Path) -> list[str] | None:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"'{path}' is damaged or cut short; save or download it again") from error
    if not saved.meta_graphs:
        raise ModelError(f"'{path}' holds no graph; save or download it again")
    for graph in saved.meta_graphs:
        if bad := forbidden(graph.graph_def):
            raise ModelError(f"'{folder}' is refused: its graph reads or writes files or calls "
                             f"Python ({', '.join(bad)}), which no base needs")
    if len(saved.meta_graphs) == 1:
        return None
    tags = [list(graph.meta_info_def.tags) for graph in saved.meta_graphs]
    serving = [one for one in tags if tf.saved_model.SERVING in one or not one]
    if not serving:
        raise ModelError(f"'{folder}' has graphs for {tags} only; expected one to serve")
    return serving[0]


def forbidden(graph: Any) -> list[str]:
    """Return the operations of a GraphDef that read or write files or call Python."""
    parts = (graph.node, *(function.node_def for function in graph.library.function))
    return sorted({node.op for part in parts for node in part
                   if any(word in node.op for word in _FORBIDDEN)})


def _of_callable(folder: Path, loaded: Any) -> Module:
    import tensorflow as tf

    functions = list(getattr(loaded.__call__, "concrete_functions", []))
    signatures = [function.structured_input_signature for function in functions]
    if not signatures:
        return _of_signature(folder, loaded, "")
    # Numbers, such as TF-Hub's batch_norm_momentum, have defaults.
    specs = [[spec for spec in tf.nest.flatten(one)
              if isinstance(spec, tf.TensorSpec) and spec.shape.rank != 0] for one in signatures]
    found = [_check_input(folder, {spec.name: spec for spec in one}, len(one)) for one in specs]
    sides = {_side(spec) for spec in found}
    modes = {value for one in signatures for value in tf.nest.flatten(one)
             if isinstance(value, bool)}

    def run(training: bool) -> Callable[[Any], Any]:
        def call(images: Any) -> Any:
            result = loaded(images, training=training) if modes else loaded(images)
            return _one_output(folder, result)
        return call

    train = run(True) if modes == {False, True} else None
    side = None if None in sides else max(sides)  # type: ignore[type-var]
    variables = tuple(variable for function in functions for variable in function.variables)
    return Module(run(False), train, side, variables, loaded)


def _of_signature(folder: Path, loaded: Any, name: str) -> Module:
    known = dict(getattr(loaded, "signatures", {}))
    if not known:
        raise ModelError(f"'{folder}' has no signature and cannot be called; save it with one: "
                         "tf.saved_model.save(model, FOLDER, signatures=...)")
    if name and name not in known:
        raise ModelError(f"'{folder}' has no signature {name!r}; it has: {', '.join(known)}")
    chosen = name or next((one for one in _PREFERRED if one in known), "")
    if not chosen and len(known) > 1:
        raise ModelError(f"'{folder}' has the signatures {', '.join(known)}; say which: "
                         f"hub:{folder}?signature={next(iter(known))}")
    function = known[chosen or next(iter(known))]
    arguments = function.structured_input_signature[1]
    spec = _check_input(folder, arguments, len(arguments))
    key = next(iter(arguments))

    def call(images: Any) -> Any:
        return _one_output(folder, function(**{key: images}))

    return Module(call, None, _side(spec), tuple(function.variables), loaded)


def _side(spec: Any) -> int | None:
    return None if spec.shape.rank is None else spec.shape[1]


def _check_input(folder: Path, arguments: dict[Any, Any], count: int) -> Any:
    """The one image that a function takes."""
    import tensorflow as tf

    if count != 1:
        names = ", ".join(f"{name} {tuple(spec.shape) if spec.shape.rank is not None else '?'}"
                          for name, spec in arguments.items())
        raise ModelError(f"'{folder}' has {count} inputs ({names}); expected one: float images "
                         "(n, height, width, 3)")
    spec = next(iter(arguments.values()))
    shape = spec.shape
    if spec.dtype != tf.float32:
        raise ModelError(f"'{folder}' takes {spec.dtype.name}; expected float32 images "
                         "(n, height, width, 3)")
    if shape.rank is not None and (shape.rank != 4 or shape[3] not in (3, None)):
        raise ModelError(f"'{folder}' takes {tuple(shape)}; expected float images "
                         "(n, height, width, 3)")
    if shape.rank is not None and shape[0] is not None:
        raise ModelError(f"'{folder}' takes exactly {shape[0]} images at a time; expected any "
                         "number: save it with a batch axis of None")
    return spec


def _one_output(folder: Path, result: Any) -> Any:
    if isinstance(result, dict) and "default" in result:
        return result["default"]
    values = list(result.values()) if isinstance(result, dict) else (
        list(result) if isinstance(result, (list, tuple)) else [result])
    if len(values) != 1:
        names = ", ".join(result) if isinstance(result, dict) else f"{len(values)} of them"
        raise ModelError(f"'{folder}' has several outputs ({names}); expected one, or one that "
                         "is named default")
    return values[0]


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
