from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_models import pictures, settle, small_model

from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges
from export.quantize.recipes import RECIPES, choose_recipes, find_recipe
from export.quantize.search import TOOLS
from export.runtime.runtimes import load
from tl_keras.errors import ExportError


@pytest.fixture(scope="module")
def model():
    made = small_model()
    settle(made, pictures(32))
    return made


# Without these instructions ONNX Runtime adds products of 8 bits in 16, which may saturate.
CPU = Path("/proc/cpuinfo")
VNNI = not CPU.exists() or "vnni" in CPU.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def floats(model):
    found = {"tflite": tflite.convert(model), "onnx": onnx.convert(model, ("a", "b", "c"))}
    ranges = {
        name: clip_ranges(TOOLS[name].observe(contents, {"image": pictures(40)}))
        for name, contents in found.items()
    }
    return found, ranges


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: f"{one.format}-{one.name}")
def test_each_recipe_answers_nearly_as_keras_does(model, floats, recipe, tmp_path):
    contents, ranges = (one[recipe.format] for one in floats)
    made = TOOLS[recipe.format].quantize(contents, recipe, ranges if recipe.calibrated else None)
    (tmp_path / recipe.file).write_bytes(made)
    truth = model.predict(pictures(7).astype("float32"), verbose=0)
    given = load(tmp_path / recipe.file).predict(pictures(7))
    assert given.shape == truth.shape
    assert 0 < np.abs(given - truth).max() < (0.05 if recipe.format == "tflite" or VNNI else 0.25)


def test_a_recipe_of_one_format_alone_is_noted_and_one_of_none_refused():
    found, notes = choose_recipes(["fp32", "int8", "dynamic_int8"], ["tflite", "onnx"])
    names = [(one.format, one.name) for one in found]
    assert names == [("tflite", "int8"), ("tflite", "dynamic_int8"), ("onnx", "int8")]
    assert notes == ["onnx has no recipe dynamic_int8: skipped."]
    with pytest.raises(ExportError, match="Did you mean dynamic_int8"):
        choose_recipes(["dynamic_int"], ["tflite"])


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_layers_are_named_from_input_to_output_and_one_alone_errs_less(floats, name, tmp_path):
    contents, ranges = (one[name] for one in floats)
    layers = TOOLS[name].list_layers(contents)
    assert len(layers) == 3
    differ = {}
    plain = tmp_path / f"plain.{name}"
    plain.write_bytes(contents)
    truth = load(plain).predict(pictures(30))
    for what, options in {"all": {}, "one": {"only": layers[2]}}.items():
        file = tmp_path / f"{what}.{name}"
        recipe = find_recipe("int8", name)
        file.write_bytes(TOOLS[name].quantize(contents, recipe, ranges, **options))
        differ[what] = np.abs(load(file).predict(pictures(30)) - truth).mean()
    assert 0 < differ["one"] < differ["all"]
