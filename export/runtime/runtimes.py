"""One small interface over LiteRT, ONNX Runtime and Keras: `load(path).predict(batch)`."""

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

__all__ = ["KerasRuntime", "LiteRTRuntime", "OnnxRuntime", "Runtime", "default_threads", "load"]


def default_threads() -> int:
    """Cores that this process may use, at most 4: what a phone or a small server has."""
    # Not every system can say which cores are allowed.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, cores or 1)


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

    def prepared(self, batch: np.ndarray) -> Callable[[], object]:
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
        batch_size: pictures at once.

    Attributes:
        model: the Keras model.

    Raises:
        ExportError: if the file cannot be loaded.
    """

    def __init__(self, model: keras.Model | str | os.PathLike[str], batch_size: int = 32) -> None:
        start_tensorflow()
        self.model = _keras_model(model) if isinstance(model, str | os.PathLike) else model
        self._batch_size = batch_size
        self.shape = tuple(self.model.inputs[0].shape[1:])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        if not len(batch):
            return np.zeros((0, *self.model.outputs[0].shape[1:]))
        return self.model.predict(batch, batch_size=self._batch_size, verbose=0)


def _keras_model(path: str | os.PathLike[str]) -> keras.Model:
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

    def prepared(self, batch: np.ndarray) -> Callable[[], object]:
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

    def prepared(self, batch: np.ndarray) -> Callable[[], object]:
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
        threads: how many cores to use (LiteRT and ONNX Runtime).

    Raises:
        ExportError: if there is no such file, its ending is unknown, or it cannot be loaded.
    """
    file = Path(path)
    if file.suffix not in (".tflite", ".onnx", ".keras"):
        raise ExportError(f"{file} ends in {file.suffix!r}; expected .tflite, .onnx or .keras.")
    if not file.is_file():
        raise ExportError(f"There is no file {file}.")
    if file.suffix == ".keras":
        return KerasRuntime(file)
    return (LiteRTRuntime if file.suffix == ".tflite" else OnnxRuntime)(file, threads)
