"""Run model files by LiteRT, ONNX Runtime and Keras: `load(path).predict(batch)`."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = [
    "KerasRuntime", "LiteRTRuntime", "OnnxRuntime", "Runtime", "check_threads", "default_threads",
    "load",
]  # fmt: skip


_BATCH = 32
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


class Runtime(ABC):
    """Something that answers for pictures.

    Attributes:
        shape: of one picture, (height, width, 3).
    """

    shape: tuple[int, ...]

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Answer for a batch.

        Args:
            batch: (n, height, width, 3) of any number type, RGB, values 0..255; n may be 0.

        Returns:
            float32 (n, outputs): the model's output, probabilities for a classifier.

        Raises:
            ExportError: if the batch has another shape.
        """
        if batch.shape[1:] != self.shape:
            expected = ("n", *self.shape)
            raise ExportError(
                f"Got a batch of shape {batch.shape}; expected ({', '.join(map(str, expected))}): "
                "resize the pictures."
            )
        answer = self._run(np.ascontiguousarray(batch, np.float32))
        return np.asarray(answer, np.float32)

    def prepare(self, batch: np.ndarray) -> Callable[[], object]:
        """Return a call that answers for a batch whose numbers are in their final form.

        What is left to be timed is the runtime's own work.

        Args:
            batch: (1, height, width, 3), RGB, values 0..255.
        """
        ready = np.ascontiguousarray(batch, np.float32)
        return lambda: self._run(ready)

    @abstractmethod
    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Answer for a float32 batch of the right shape."""


class KerasRuntime(Runtime):
    """A Keras model, in inference mode.

    Args:
        model: the model itself, or a .keras file.
        threads: how many cores to use; TensorFlow's own number by default. It takes one once in
            a process.

    Attributes:
        model: the Keras model.

    Raises:
        ExportError: if the file cannot be loaded, or TensorFlow has begun to work already with
            another number of threads.
    """

    def __init__(
        self, model: keras.Model | str | os.PathLike[str], threads: int | None = None
    ) -> None:
        import tensorflow as tf

        start_tensorflow()
        if threads is not None:
            _set_tensorflow_threads(threads)
        self.model = _load_keras(model) if isinstance(model, str | os.PathLike) else model
        self.shape = tuple(self.model.inputs[0].shape[1:])
        spec = [tf.TensorSpec((None, *self.shape), tf.float32)]
        self._call = tf.function(lambda x: self.model(x, training=False), input_signature=spec)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        starts = range(0, len(batch), _BATCH)
        answers = [self._call(batch[start : start + _BATCH]).numpy() for start in starts]
        return np.concatenate(answers or [np.zeros((0, *self.model.outputs[0].shape[1:]))])


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
    import keras

    try:
        with silenced():
            return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ExportError(
            f"{os.fspath(path)} cannot be loaded as a Keras model: {error}"
        ) from error


class LiteRTRuntime(Runtime):
    """A TensorFlow Lite file run by LiteRT, one picture at a time, as on a device.

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
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        if self._input["dtype"] not in (np.float32, np.uint8, np.int8, np.int16):
            kind = self._input["dtype"].__name__
            raise ExportError(f"{path} takes {kind}; expected float32, uint8, int8 or int16.")
        self.shape = tuple(int(side) for side in self._input["shape"][1:])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        answers = np.zeros((len(batch), *self._output["shape"][1:]), np.float32)
        for index in range(len(batch)):
            taken = _to_tensor(batch[index : index + 1], self._input)
            self._interpreter.set_tensor(self._input["index"], taken)
            self._interpreter.invoke()
            given = self._interpreter.get_tensor(self._output["index"])
            answers[index] = _from_tensor(given, self._output)[0]
        return answers

    def prepare(self, batch: np.ndarray) -> Callable[[], object]:
        """Return a call that answers for a batch whose numbers are in their final form."""
        taken = _to_tensor(np.ascontiguousarray(batch, np.float32), self._input)

        def answer() -> np.ndarray:
            self._interpreter.set_tensor(self._input["index"], taken)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output["index"])

        return answer


def _to_tensor(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Round real values to what a tensor holds: q = value / scale + zero point."""
    kind = details["dtype"]
    if kind is np.float32:
        return values
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
        # Without VNNI, sums of products of 8 bits would saturate in 16 bits.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except _refusals() as error:
            raise ExportError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        self._input = self._session.get_inputs()[0]
        self.shape = tuple(self._input.shape[1:])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input.name: self._taken(batch)})[0]

    def _taken(self, batch: np.ndarray) -> np.ndarray:
        if "uint8" not in self._input.type:
            return batch
        return np.clip(np.rint(batch), 0, 255).astype(np.uint8)

    def prepare(self, batch: np.ndarray) -> Callable[[], object]:
        """Return a call that answers for a batch whose numbers are in their final form."""
        taken = {self._input.name: self._taken(np.ascontiguousarray(batch, np.float32))}
        return lambda: self._session.run(None, taken)


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
    file = Path(path)
    if file.suffix not in (".tflite", ".onnx", ".keras"):
        raise ExportError(f"{file} ends in {file.suffix!r}; expected .tflite, .onnx or .keras.")
    if not file.is_file():
        raise ExportError(f"There is no file {file}.")
    if file.suffix == ".keras":
        return KerasRuntime(file, threads)
    return (LiteRTRuntime if file.suffix == ".tflite" else OnnxRuntime)(file, threads)
