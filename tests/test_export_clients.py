"""Programs that nobody here wrote use what is exported.

MediaPipe and the runtimes live in an environment of their own, without TensorFlow (MediaPipe
asks for another absl than tensorflow-model-optimization), and onnxruntime-web beside it: `make
clients` installs both. Nothing is downloaded by the tests.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from bundle_models import NAMES
from PIL import Image

from export.runtime.runtimes import load

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = Path(os.environ.get("TL_KERAS_CLIENTS", ROOT / ".venv" / "clients"))
WEB = CLIENTS / "node_modules" / "onnxruntime-web" / "dist"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HEADLESS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
)  # fmt: skip

pytestmark = pytest.mark.slow


def environment(module):
    """The clients' Python, if it has a module."""
    python = CLIENTS / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no {python}; `make clients` installs it")
    found = subprocess.run([python, "-c", f"import {module}"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{CLIENTS} has no {module}; `make clients` installs it")
    return python


@pytest.fixture(scope="module")
def pictures(toys, tmp_path_factory):
    """Pictures in files: of any size to resize, RGB."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(toys[0].inputs["image"][:6]):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def truth(variant, pictures):
    batch = np.stack([np.asarray(Image.open(picture)) for picture in pictures])
    return load(variant.path).predict(batch)


MEDIAPIPE = """
import json, sys
import mediapipe
from mediapipe.tasks.python import vision
with vision.ImageClassifier.create_from_model_path(sys.argv[1]) as classifier:
    for path in sys.argv[2:]:
        found = classifier.classify(mediapipe.Image.create_from_file(path))
        scores = {c.category_name: c.score for c in found.classifications[0].categories}
        print(json.dumps(scores))
"""


@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-int8"])
def test_mediapipe_classifies_with_the_labels_and_scores_that_python_gives(toys, pictures, name):
    python = environment("mediapipe")
    variant = next(one for one in toys[1] if one.name == name)
    command = [python, "-c", MEDIAPIPE, variant.path, *pictures]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = truth(variant, pictures)
    assert len({max(scores, key=scores.get) for scores in found}) > 1, "one label proves little"
    for scores, row in zip(found, expected, strict=True):
        assert max(scores, key=scores.get) == NAMES[row.argmax()]
        np.testing.assert_allclose([scores[label] for label in NAMES], row, atol=1e-4)


def test_mediapipe_refuses_the_same_file_without_metadata(toys, pictures, tmp_path):
    from export.convert import tflite

    python = environment("mediapipe")
    (tmp_path / "plain.tflite").write_bytes(tflite.convert(toys[0].model))
    command = [python, "-c", MEDIAPIPE, tmp_path / "plain.tflite", pictures[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "NormalizationOptions" in done.stderr


PAGE = """<!doctype html><meta charset="utf-8"><pre id="answer">waiting</pre>
<script type="module">
import * as ort from "./ort.wasm.bundle.min.mjs";
const say = (value) => { document.getElementById("answer").textContent = JSON.stringify(value); };
try {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  const session = await ort.InferenceSession.create("model.onnx");
  const image = new Image(); image.src = "picture.png"; await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width; canvas.height = image.height;
  const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, image.width, image.height).data;
  const rgb = Float32Array.from({length: rgba.length / 4 * 3},
                                (_, i) => rgba[Math.floor(i / 3) * 4 + i % 3]);
  const shape = [1, image.height, image.width, 3];
  const tensor = new ort.Tensor("float32", rgb, shape);
  const answers = await session.run({[session.inputNames[0]]: tensor});
  say(Array.from(answers[session.outputNames[0]].data));
} catch (error) { say(String(error)); }
fetch("/done", {method: "POST", body: document.getElementById("answer").textContent});
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and takes one answer."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map,
                      ".mjs": "text/javascript", ".wasm": "application/wasm"}  # fmt: skip

    def do_POST(self):
        self.server.answer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *arguments):
        pass


def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or pytest.skip("there is no Chromium to run onnxruntime-web in")


def ask_browser(folder, patience=120):
    """Open the page of a folder in headless Chromium, on the loopback alone."""
    program = browser()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.answered = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        command = [program, *HEADLESS, f"--user-data-dir={folder / 'profile'}",
                   "--remote-debugging-port=0", url]  # fmt: skip
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert server.answered.wait(patience), "the page never answered"
        finally:
            running.terminate()
            running.wait(20)
            server.shutdown()
        return json.loads(server.answer)


def test_a_browser_gives_the_label_that_python_gives(toys, pictures, tmp_path):
    if not WEB.is_dir():
        pytest.skip(f"there is no {WEB}; `make clients` installs it")
    variant = next(one for one in toys[1] if one.name == "onnx-fp32")
    for file in (WEB / "ort.wasm.bundle.min.mjs", *WEB.glob("ort-wasm-simd-threaded.[mw]*")):
        shutil.copy(file, tmp_path / file.name)
    shutil.copy(variant.path, tmp_path / "model.onnx")
    shutil.copy(pictures[1], tmp_path / "picture.png")
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    scores = ask_browser(tmp_path)
    (expected,) = truth(variant, pictures[1:2])
    assert isinstance(scores, list), scores
    assert np.argmax(scores) == expected.argmax()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


TEXT_MEDIAPIPE = """
import json, sys
from mediapipe.tasks.python import text
with text.TextClassifier.create_from_model_path(sys.argv[1]) as classifier:
    for line in json.load(sys.stdin):
        found = classifier.classify(line)
        print(json.dumps({c.category_name: c.score for c in found.classifications[0].categories}))
"""
TEXT_PAGE = """<!doctype html><meta charset="utf-8">
<script type="module">
import * as ort from "./ort.wasm.bundle.min.mjs";
import { check, open } from "./bundle/run.mjs";
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./", location.href).href;
const base = new URL("./bundle/", location.href);
let said;
try {
  const model = await open(ort, base, "onnx-dynamic_int8");
  said = {wrong: await check(ort, base, "onnx-dynamic_int8"), scores: await model.score("Ça va?")};
} catch (error) { said = String(error); }
fetch("/done", {method: "POST", body: JSON.stringify(said)});
</script>"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A bundle of a text model."""
    from text_models import save_bert_folder, text_source

    from export.pipeline import ExportConfig, export
    from export.quantize.search import Limits

    folder = tmp_path_factory.mktemp("texts")
    save_bert_folder(folder / "net")
    config = ExportConfig(("tflite", "onnx"), ("dynamic_int8",), Limits(max_drop=1.0), fresh=False)
    source = text_source("bert", folder / "net")
    return source, export(source, config, folder / "bundle"), folder / "bundle"


@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-dynamic_int8"])
def test_mediapipe_classifies_texts_as_python_does(texts, name):
    from text_models import NAMES as LABELS
    from text_models import TEXTS

    python = environment("mediapipe")
    plain = [text for text in TEXTS if text.isascii()]
    model = texts[2] / "models" / f"{name}.tflite"
    done = subprocess.run([python, "-c", TEXT_MEDIAPIPE, model], input=json.dumps(plain),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    ids = texts[0].modality.tokenizer.encode_batch(plain, texts[0].modality.length)
    expected = load(model).predict({"token_ids": ids})
    assert np.ptp(expected, axis=0).max() > 0.1, "equal answers prove little"
    given = [[scores[label] for label in LABELS] for scores in found]
    np.testing.assert_allclose(given, expected, atol=1e-4)


def test_a_browser_proves_the_texts_of_a_bundle(texts, tmp_path):
    if not WEB.is_dir():
        pytest.skip(f"there is no {WEB}; `make clients` installs it")
    for file in (WEB / "ort.wasm.bundle.min.mjs", *WEB.glob("ort-wasm-simd-threaded.[mw]*")):
        shutil.copy(file, tmp_path / file.name)
    out = shutil.copytree(texts[2], tmp_path / "bundle")
    (tmp_path / "index.html").write_text(TEXT_PAGE, encoding="utf-8")
    said = ask_browser(tmp_path)
    assert isinstance(said, dict), said
    assert said["wrong"] == []
    ids = texts[0].modality.tokenizer.encode_batch(["Ça va?"], texts[0].modality.length)
    expected = load(out / "models/onnx-dynamic_int8.onnx").predict({"token_ids": ids})
    np.testing.assert_allclose(said["scores"], expected[0], atol=1e-3)
