"""Write a causal decoder as a file that goes on with a text token by token, with its cache.

Such a file takes a token and what earlier ones left, and gives scores of the next token and what
this one leaves (:mod:`tl_keras.models.backbones.gpt2_step`). It is compared with the decoder that
reads a whole text at once before it is handed out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.convert.tflite import convert_ends
from tl_keras.errors import ExportError, ParityError
from tl_keras.models.backbones.gpt2 import score_next
from tl_keras.models.backbones.gpt2_step import INPUTS, OUTPUTS, build_step, empty_cache
from tl_keras.models.onnx_graph import to_onnx
from tl_keras.utils.files import atomic_path
from tl_keras.utils.quiet import silenced

if TYPE_CHECKING:
    import keras

__all__ = ["continue_text", "open_step", "write_decoder"]

TOLERANCE = 1e-4
"""Of logits, as a share of the largest."""

Step = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def write_decoder(model: keras.Model, path: str | os.PathLike[str], text: Sequence[int]) -> Path:
    """Write a decoder's step as a .tflite or .onnx file that was proven.

    Args:
        model: A decoder of a fixed length, see `build_step`.
        path: The file; its ending says the format.
        text: Ids of a text to compare on, at least one, each at least 1.

    Returns:
        `path`.

    Raises:
        ParityError: The file's scores differ from the decoder's own.
        ExportError: The ending is another, or the conversion fails.
        ModelError: The model is no such decoder.
    """
    target, step = Path(path), build_step(model)
    if target.suffix not in (".tflite", ".onnx"):
        raise ExportError(f"got {target.name!r}; expected a name that ends in .tflite or .onnx")
    with atomic_path(target) as made:
        if target.suffix == ".tflite":
            contents = convert_ends(step, INPUTS, OUTPUTS)
        else:
            with silenced():
                contents = to_onnx(step, INPUTS, OUTPUTS).SerializeToString()
        made.write_bytes(contents)
        _require_parity(model, step, open_step(made, target.suffix), list(text))
    return target


def _require_parity(model: keras.Model, step: keras.Model, run: Step, text: list[int]) -> None:
    length = model.inputs[0].shape[1]
    text = text[:length]
    batch: np.ndarray = np.zeros((len(text), length), np.int32)
    for place in range(len(text)):
        batch[place, : place + 1] = text[: place + 1]
    truth = score_next(model, batch)[:, 1:]
    given, cache = [], empty_cache(step)
    for place, token in enumerate(text):
        scores, cache = _take(run, token, place, cache)
        given.append(scores[1:])
    off = float(np.abs(truth - np.array(given)).max() / np.abs(truth).max())
    if not off <= TOLERANCE:
        raise ParityError(
            f"scores token by token differ from those of the whole text by {off:.2g} of the "
            f"largest; expected at most {TOLERANCE:.0e}. Nothing was written.")


def open_step(path: str | os.PathLike[str], suffix: str | None = None) -> Step:
    """Open a file of `write_decoder` in its runtime.

    Args:
        path: The file.
        suffix: Its ending, if the name has another.

    Returns:
        A function from the inputs by name to the outputs by name, see `build_step`.
    """
    if (suffix or Path(path).suffix) == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=Path(path).read_bytes())
        runner = interpreter.get_signature_runner()
        return lambda given: runner(**given)
    import onnxruntime

    session = onnxruntime.InferenceSession(
        Path(path).read_bytes(), providers=["CPUExecutionProvider"])
    return lambda given: dict(
        zip(OUTPUTS, session.run(list(OUTPUTS), given), strict=True))  # type: ignore[arg-type]


def _take(
    run: Step, token: int, place: int, cache: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    ids = {"token_ids": np.array([[token]], np.int32), "place": np.array([[place]], np.int32)}
    given = run({**ids, **cache})
    # The runtime may write over what it gave.
    kept = {name: np.array(given[f"new_{name}"]) for name in cache}
    return np.array(given["scores"][0]), kept


def continue_text(
    run: Step, text: Sequence[int], shape: tuple[int, int, int], count: int, end: int = 0
) -> list[int]:
    """Go on with a text by the likeliest token each time.

    Args:
        run: Of `open_step`.
        text: Ids of the beginning, at least one.
        shape: Of the cache of one text: (blocks, length, width).
        count: Most ids.
        end: The id that ends texts; it is not given.

    Returns:
        The ids that come behind the text.
    """
    cache: dict[str, np.ndarray] = {
        name: np.zeros((1, *shape), np.float32) for name in INPUTS[2:]
    }
    ids, found, scores = list(text), [], np.zeros(0)
    for place in range(min(shape[1], len(ids) + count)):
        if place >= len(ids):
            best = int(scores[1:].argmax()) + 1
            if best == end:
                break
            ids.append(best)
            found.append(best)
        scores, cache = _take(run, ids[place], place, cache)
    return found
