"""Text encoders in int8: products as they come, and word tables by rows."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import BERT, save_bert_folder, save_gpt2_folder

from export.convert import onnx, tflite
from export.convert.embedding import read_rows_by_lookup
from export.quantize.recipes import RECIPES, find_recipe
from export.quantize.search import TOOLS
from export.runtime.runtimes import load
from tl_keras.models.build import build_model

LENGTH = 12


def token_ids(rows=6, most=90):
    draw = np.random.default_rng(3)
    ids = draw.integers(1, most, (rows, LENGTH)).astype(np.int32)
    for row in range(rows):
        ids[row, LENGTH - row :] = 0
    return ids


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save = save_bert_folder if request.param == "bert" else save_gpt2_folder
    save(folder)
    model = build_model(f"{request.param}:{folder}", 3, size=LENGTH)
    files = {"tflite": tflite.convert(model), "onnx": onnx.convert(model, ("a", "b", "c"))}
    return model, files


def answers(contents, path, ids):
    path.write_bytes(contents)
    return load(path, 1).predict({"token_ids": ids})


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_float_files_answer_as_keras_does(encoder, name, tmp_path):
    model, files = encoder
    truth = model.predict(token_ids(), verbose=0)
    given = answers(files[name], tmp_path / f"model.{name}", token_ids())
    np.testing.assert_allclose(given, truth, atol=1e-5)


RECIPES_OF_TEXT = ("dynamic_int8", "weight_int8", "fp16")


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.name in RECIPES_OF_TEXT],
                         ids=lambda one: f"{one.format}-{one.name}")  # fmt: skip
def test_each_recipe_answers_nearly_as_keras_does(encoder, recipe, tmp_path):
    model, files = encoder
    made = TOOLS[recipe.format].quantize(files[recipe.format], recipe, in_bytes=())
    given = answers(made, tmp_path / recipe.file, token_ids())
    assert 0 < np.abs(given - model.predict(token_ids(), verbose=0)).max() < 0.1


def test_rows_by_lookup_are_the_same_to_the_last_bit(encoder, tmp_path):
    _, files = encoder
    made = read_rows_by_lookup(files["tflite"])
    assert made != files["tflite"] and read_rows_by_lookup(made) == made
    one, other = (answers(contents, tmp_path / "x.tflite", token_ids())
                  for contents in (files["tflite"], made))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_large_word_table_is_a_quarter_of_its_size(format_, tmp_path):
    rows = 9000
    save_bert_folder(tmp_path, vocab_size=rows)
    model = build_model(f"bert:{tmp_path}", 3, size=LENGTH)
    make = {"tflite": tflite.convert, "onnx": lambda model: onnx.convert(model, ("a", "b", "c"))}
    contents = make[format_](model)
    made = TOOLS[format_].quantize(contents, find_recipe("dynamic_int8", format_), in_bytes=())
    saved = 4 * rows * BERT["hidden_size"] - rows * (BERT["hidden_size"] + 4)
    assert len(contents) - len(made) > 0.8 * saved
    ids = token_ids(most=rows)
    given = answers(made, tmp_path / f"model.{format_}", ids)
    np.testing.assert_allclose(given, model.predict(ids, verbose=0), atol=0.1)
