"""Run model files by LiteRT, ONNX Runtime and Keras: `load(path).predict(batch)`."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.resize import RESIZED
from tl_keras.errors import ExportError, ModelError
from tl_keras.features.backends import prefix_function
from tl_keras.utils.files import irregular
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = [
    "ONNX_TYPES", "KerasRuntime", "LiteRTRuntime", "OnnxRuntime", "Runtime", "adds_in_16_bits",
    "check_threads", "default_threads", "load", "name_tensors",
]  # fmt: skip

_KINDS = (np.float32, np.uint8, np.int8, np.int16, np.int32, np.int64)
ONNX_TYPES = {
    f"tensor({word})": np.dtype(kind)
    for word, kind in {"float": "f4", "float16": "f2", "double": "f8", "uint8": "u1",
                       "int8": "i1", "int32": "i4", "int64": "i8"}.items()
}  # fmt: skip
MOST_THREADS = 256
"""More than any machine has that this is measured on; LiteRT crashes at 100,000."""


def default_threads() -> int:
    """Cores that this process may use, at most 4: what a phone or a small server has."""
    # Not every system can say which cores are allowed.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, cores or 1)


def check_threads(threads: int) -> None:
    """Refuse a number of threads that no runtime survives.

    Raises:
        ExportError: if it is below 1 or above `MOST_THREADS`.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise ExportError(f"Got {threads} threads; expected 1 to {MOST_THREADS}.")


Batch = Mapping[str, np.ndarray] | np.ndarray
"""Samples by the name of the input, (n, ...) each; an array alone is for a model of one input."""


class Runtime(ABC):
    """Something that answers for samples.

    Attributes:
        inputs: by name, the shape of one sample.
    """

    inputs: dict[str, tuple[int, ...]]

    def predict(self, batch: Batch) -> np.ndarray:
        """Answer for a batch.

        Args:
            batch: samples of any number type; there may be none.

        Returns:
            float32 (n, outputs): the model's output, probabilities for a classifier.

        Raises:
            ExportError: if the batch has other inputs or another shape.
        """
        ready = self._fit(self._named(batch))
        try:
            return np.asarray(self._run(ready), np.float32)
        except (ValueError, RuntimeError) as error:  # such as sizes within a damaged file
            raise ExportError(f"The model does not answer ({error}); get it anew.") from error

    def prepare(self, batch: Batch) -> Callable[[], object]:
        """Return a call that answers for a batch whose numbers are in their final form.

        What is left to be timed is the runtime's own work.

        Args:
            batch: one sample.
        """
        ready = self._fit(self._named(batch))
        return lambda: self._run(ready)

    def _named(self, batch: Batch) -> dict[str, np.ndarray]:
        named = {"": batch} if isinstance(batch, np.ndarray) else dict(batch)
        if len(named) == len(self.inputs) == 1:
            named = dict(zip(self.inputs, named.values(), strict=True))
        found = {name: np.shape(array)[1:] for name, array in named.items()}
        if not self._takes(found):
            raise ExportError(
                f"Got a batch of {_words(found)}; expected {_words(self.inputs)}: resize or rename "
                "what goes in."
            )
        return {name: np.asarray(named[name]) for name in self.inputs}

    def _takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        return shapes == self.inputs

    @abstractmethod
    def _fit(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give the numbers of a batch the types that the inputs have."""

    @abstractmethod
    def _run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Answer for a batch of the right types and shapes."""


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} (n, {', '.join(map(str, s))})" for name, s in shapes.items())


class KerasRuntime(Runtime):
    """A Keras model, in inference mode.

    Args:
        model: the model itself, or a .keras file.
        threads: how many cores to use; TensorFlow's own number by default. It takes one once in
            a process.
        names: of the inputs, in the model's order; read from the model by default.

    Attributes:
        model: the Keras model.

    Raises:
        ExportError: if the file cannot be loaded, or TensorFlow has begun to work already with
            another number of threads.
    """

    def __init__(
        self,
        model: keras.Model | str | os.PathLike[str],
        threads: int | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        start_tensorflow()
        from export.source import read_signature

        if threads is not None:
            _set_tensorflow_threads(threads)
        self.model = _load_keras(model) if isinstance(model, str | os.PathLike) else model
        tensors = self.model.inputs
        named = names or read_signature(self.model).inputs
        self.inputs = {name: tuple(one.shape[1:]) for name, one in zip(named, tensors, strict=True)}
        self._call = prefix_function(self.model, "float32")

    def _fit(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pairs = zip(batch.items(), self.model.inputs, strict=True)
        return {name: np.ascontiguousarray(array, one.dtype) for (name, array), one in pairs}

    def _run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        arrays = list(batch.values())
        if not len(arrays[0]):
            return np.zeros((0, *self.model.outputs[0].shape[1:]), np.float32)
        return self._call(arrays)[0]


def _set_tensorflow_threads(threads: int) -> None:
    import tensorflow as tf

    threading = tf.config.threading
    try:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        if threading.get_intra_op_parallelism_threads() != threads:
            raise ExportError(
                "TensorFlow works already in this process, and its number of threads cannot be "
                f"set to {threads} any more; do it in a process of its own."
            ) from error


def _load_keras(path: str | os.PathLike[str]) -> keras.Model:
    from tl_keras.models.backbones.weights import load_user_model

    try:
        with silenced():
            return load_user_model(Path(path))
    except ModelError as error:
        raise ExportError(str(error)) from error


class LiteRTRuntime(Runtime):
    """A TensorFlow Lite file run by LiteRT, one sample at a time, as on a device.

    Args:
        path: the .tflite file.
        threads: how many cores to use; `default_threads` by default.

    Raises:
        ExportError: if the file is none, or takes neither floats nor whole numbers.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        litert = _module("ai_edge_litert.interpreter", "ai-edge-litert")
        try:
            with silenced():
                self._interpreter = litert.Interpreter(
                    model_path=os.fspath(path), num_threads=threads or default_threads()
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise ExportError(f"{os.fspath(path)} cannot be loaded by LiteRT: {error}") from error
        self._taken = name_tensors(self._interpreter)
        self._output = self._interpreter.get_output_details()[0]
        for name, details in self._taken.items():
            if details["dtype"] not in _KINDS:
                known = ", ".join(kind.__name__ for kind in _KINDS)
                raise ExportError(
                    f"{path} takes {details['dtype'].__name__} as {name}; expected {known}."
                )
        self.inputs = {
            name: tuple(int(side) for side in details["shape"][1:])
            for name, details in self._taken.items()
        }

    def _fit(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _to_tensor(array, self._taken[name]) for name, array in batch.items()}

    def _run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        count = len(next(iter(batch.values())))
        answers = np.zeros((count, *self._output["shape"][1:]), np.float32)
        for index in range(count):
            for name, array in batch.items():
                self._interpreter.set_tensor(self._taken[name]["index"], array[index : index + 1])
            self._interpreter.invoke()
            given = self._interpreter.get_tensor(self._output["index"])
            answers[index] = _from_tensor(given, self._output)[0]
        return answers


def name_tensors(interpreter: Any) -> dict[str, Any]:
    """Return the details of what goes into a .tflite file, by the names of its signature.

    Args:
        interpreter: of LiteRT; of a file without a signature the tensors' own names are taken.
    """
    signatures = list(interpreter.get_signature_list())
    if not signatures:
        return {details["name"]: details for details in interpreter.get_input_details()}
    return dict(interpreter.get_signature_runner(signatures[0]).get_input_details())


def _to_tensor(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Round real values to what a tensor holds: q = value / scale + zero point."""
    kind = details["dtype"]
    if kind is np.float32:
        return np.ascontiguousarray(values, np.float32)
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    rounded = np.rint(values / (scale or 1.0)) + zero
    return np.clip(rounded, limits.min, limits.max).astype(kind)


def _from_tensor(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Turn what a tensor holds into real values: (q - zero point) * scale."""
    if details["dtype"] is np.float32:
        return values
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * (scale or 1.0)


class OnnxRuntime(Runtime):
    """An ONNX file run by ONNX Runtime on the CPU.

    Args:
        path: the .onnx file.
        threads: how many cores to use; `default_threads` by default.

    Raises:
        ExportError: if the file is none.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        onnxruntime = _module("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.log_severity_level = 3
        # Threads that wait by spinning take the cores from whatever answers next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if adds_in_16_bits():
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except _refusals() as error:
            raise ExportError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        taken = self._session.get_inputs()
        self._open = {one.name: tuple(one.shape[1:]) for one in taken}
        said = self._session.get_modelmeta().custom_metadata_map.get(RESIZED, "")
        sides = [int(side) for side in said.split(",") if side.isdigit()]
        # A file that resizes by itself takes any size; it is timed with its own.
        self.inputs = {
            name: (*sides, *shape[2:]) if len(sides) == 2 and len(shape) == 3 else shape
            for name, shape in self._open.items()
        }
        self._types = {one.name: ONNX_TYPES.get(one.type, np.dtype(np.float32)) for one in taken}

    def _takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        pairs = [(shapes.get(name, ()), wanted) for name, wanted in self._open.items()]
        return len(shapes) == len(pairs) and all(
            len(given) == len(wanted)
            and all(not isinstance(w, int) or g == w for g, w in zip(given, wanted, strict=True))
            for given, wanted in pairs
        )

    def _fit(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _cast(array, self._types[name]) for name, array in batch.items()}

    def _run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return self._session.run(None, batch)[0]


def adds_in_16_bits(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether ONNX Runtime may add products of 8 bits in 16, where they saturate.

    It does on x86 without VNNI (83 % of labels equal to Keras instead of 99 %). The session option
    "session.x64quantprecision" mends it for a quarter more time; with VNNI it would take three
    times as long for the same answers.
    """
    try:
        return "vnni" not in cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True


def _cast(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    if kind.kind not in "iu":
        return np.ascontiguousarray(values, kind)
    limits = np.iinfo(kind)
    whole = values.astype(np.int64) if values.dtype.kind in "iu" else np.rint(values)
    return np.clip(whole, limits.min, limits.max).astype(kind)


def _refusals() -> tuple[type[Exception], ...]:
    """Everything that ONNX Runtime raises about a model: its errors share no parent."""
    state = _module("onnxruntime.capi.onnxruntime_pybind11_state", "onnxruntime")
    found = (value for value in vars(state).values() if isinstance(value, type))
    return tuple(kind for kind in found if issubclass(kind, Exception))


def _module(name: str, package: str) -> Any:
    """Import what may not be installed where only another runtime is needed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{package} cannot be imported ({error}); install it: pip install {package}"
        ) from error


def check_file(path: str | os.PathLike[str]) -> Path:
    """Check that there is a model file which some runtime might open.

    Raises:
        ExportError: if there is no such file, or its ending is unknown.
    """
    file = Path(path)
    if file.suffix not in (".tflite", ".onnx", ".keras"):
        raise ExportError(f"{file} ends in {file.suffix!r}; expected .tflite, .onnx or .keras.")
    if not file.is_file():
        raise ExportError(f"There is no file {file}; it is {irregular(file) or 'missing'}.")
    return file


def load(path: str | os.PathLike[str], threads: int | None = None) -> Runtime:
    """Open a model file by the runtime that its ending asks for.

    Args:
        path: a .tflite, .onnx or .keras file.
        threads: how many cores to use.

    Raises:
        ExportError: if there is no such file, its ending is unknown, or it cannot be loaded.
    """
    if threads is not None:
        check_threads(threads)
    file = check_file(path)
    if file.suffix == ".keras":
        return KerasRuntime(file, threads)
    try:
        return (LiteRTRuntime if file.suffix == ".tflite" else OnnxRuntime)(file, threads)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{file} is damaged ({error}); get it anew.") from error
