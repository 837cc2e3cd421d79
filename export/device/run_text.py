"""Let a model of this bundle answer for texts.

Needs numpy, and onnxruntime for .onnx or ai-edge-litert for .tflite files; nothing else.

    python run.py review.txt another.txt
    python run.py --text "What a film!"
    python run.py --model models/tflite-dynamic_int8.tflite --top 3 review.txt
    python run.py --json review.txt
    python run.py --check
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["OnnxModel", "TfliteModel", "check", "load_tokenizer", "main", "read_text"]

HERE = Path(__file__).resolve().parent


class OnnxModel:
    """An .onnx file that answers for one text at a time.

    Args:
        path: the file.
        threads: cores to use; all by default.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        cpu = Path("/proc/cpuinfo")
        if not cpu.exists() or "vnni" not in cpu.read_text(encoding="ascii", errors="replace"):
            # Sums of products of 8 bits would saturate in 16 bits.
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def predict(self, ids: np.ndarray) -> np.ndarray:
        """Answer for the ids of a text, int32 (length,): float32 (outputs,)."""
        return self._session.run(None, {self._input: ids[np.newaxis]})[0][0]


class TfliteModel:
    """A .tflite file that answers for one text at a time.

    Args:
        path: the file.
        threads: cores to use.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        # By its signature: a file may have inputs for other programs besides.
        self._run = interpreter.get_signature_runner()
        (self._input,) = self._run.get_input_details()

    def predict(self, ids: np.ndarray) -> np.ndarray:
        """Answer for the ids of a text, int32 (length,): float32 (outputs,)."""
        (given,) = self._run(**{self._input: ids[np.newaxis]}).values()
        return given[0]


def load_tokenizer(manifest: Mapping[str, Any]) -> Any:
    """Make the tokenizer that the manifest describes, by the bundle's tokenizer.py."""
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True  # a bundle stays as its manifest says
    from tokenizer import Tokenizer

    step = next(one for one in manifest["steps"] if one["step"] == "tokenize")
    files = [name for name in ("vocab.txt", "vocab.json", "merges.txt") if name in step["files"]]
    return Tokenizer(step, *[(HERE / name).read_bytes() for name in files])


def read_text(path: Path | str) -> str:
    """Read a file of UTF-8, with or without a byte order mark."""
    return Path(path).read_text(encoding="utf-8-sig")


def pad(ids: Sequence[int], length: int) -> np.ndarray:
    """Fill ids up with 0: int32 (length,)."""
    made: np.ndarray = np.zeros(length, np.int32)
    made[: len(ids)] = ids
    return made


def check(manifest: Mapping[str, Any], path: Path, variant: str, threads: int | None) -> int:
    """Decode, tokenize and answer for the bundle's whole files; print which step differs.

    Args:
        manifest: of the bundle.
        path: of the model's file.
        variant: its name in the manifest.
        threads: cores to use.

    Returns:
        How many files come out otherwise than where the bundle was made.
    """
    golden = json.loads((HERE / "golden/golden.json").read_text(encoding="utf-8"))
    model = (OnnxModel if path.suffix == ".onnx" else TfliteModel)(path, threads)
    tokenizer, length = load_tokenizer(manifest), manifest["input"]["shape"][0]
    tolerance, wrong, count = golden["tolerances"][variant], 0, 0
    for entry, expected in zip(golden["samples"], golden["outputs"][variant], strict=True):
        if "original" not in entry:
            continue
        count += 1
        text = read_text(HERE / entry["original"])
        same = hashlib.sha256(text.encode()).hexdigest() == entry["trace"]["sha256"]
        seen = pad(tokenizer.encode(text, length), length)
        stated = json.loads((HERE / entry["file"]).read_text(encoding="utf-8"))
        others = int((seen != np.asarray(next(iter(stated.values())))).sum())
        off = float(np.abs(model.predict(seen) - np.asarray(expected)).max())
        if not others and off <= tolerance:
            continue
        wrong += 1
        step = "model" if not others else "tokenize" if same else "decode"
        print(
            f"{entry['original']} ({entry['proves'] or entry['key']}): the step {step} DIFFERS: "
            f"{others} of {length} ids, answers by {off:.2g}"
        )
    print(f"{count - wrong} of {count} whole files give what they should by {variant}")
    return wrong


def main() -> int:
    """Read the command line and print the answers.

    Returns:
        The exit code: 3 if --check finds a difference, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files of UTF-8, one text each")
    parser.add_argument("--text", action="append", default=[], help="a text itself")
    purpose = "prove decoding, tokenizer and model on the bundle's files"
    parser.add_argument("--check", action="store_true", help=purpose)
    parser.add_argument("--model", type=Path, help="a model file; by default the bundle's default")
    parser.add_argument("--top", type=int, default=3, help="labels to print for each text")
    parser.add_argument("--threads", type=int, help="cores to use")
    parser.add_argument("--json", action="store_true", help="print all scores as JSON")
    asked = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    files = {variant["name"]: HERE / variant["file"] for variant in manifest["variants"]}
    path = asked.model or files[manifest["default"]]
    if asked.check:
        resolved = {file.resolve(): name for name, file in files.items()}
        if path.resolve() not in resolved:
            parser.error(f"{path} is no model of this bundle; leave out --model")
        return 3 * bool(check(manifest, path, resolved[path.resolve()], asked.threads))
    texts = [(name, read_text(name)) for name in asked.files]
    texts += [(text, text) for text in asked.text]
    if not texts:
        parser.error("name a file, give a --text, or --check")
    model = (OnnxModel if path.suffix == ".onnx" else TfliteModel)(path, asked.threads)
    tokenizer, length = load_tokenizer(manifest), manifest["input"]["shape"][0]
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for name, text in texts:
        scores = model.predict(pad(tokenizer.encode(text, length), length))
        if asked.json:
            print(json.dumps({"text": name, "scores": [float(score) for score in scores]}))
            continue
        order = np.argsort(-scores, kind="stable")[: asked.top]
        if not manifest["output"].get("ranked", True):
            order = np.arange(len(scores))
        words = (f"{labels[index]} {scores[index]:.4f}" for index in order)
        print(f"{name}: {', '.join(words)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
