"""A model of two inputs that are no images, with numbers for answers, leaves like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from export.bundle.golden import verify_bundle
from export.bundle.read import read_bundle
from export.pipeline import ExportConfig, export
from export.quantize.search import Limits
from export.runtime.inspect import inspect_model
from export.source import Source, read_signature
from tl_keras import modalities
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.modalities.base import InputSpec, Modality

SHAPES = {"wave": (40, 1), "ids": (4,)}


class Reader:
    """Gives what the items are: a dict of arrays each."""

    varied = False

    def __init__(self, samples, specs):
        self.samples, self.specs = samples, specs

    def __len__(self):
        return len(self.samples.keys)

    def read(self, indices, views=0):
        chosen = [self.samples.items[int(index)] for index in indices]
        return {name: np.stack([one[name] for one in chosen]) for name in self.specs}


class Toy(Modality):
    """A wave and a few token ids."""

    name, noun = "toy", "record"

    def specs(self, model):
        dtypes = {"wave": "float32", "ids": "int32"}
        return {
            name: InputSpec(shape, dtypes[name], f"the {name}") for name, shape in SHAPES.items()
        }

    def reader(self, samples, specs, augment="none", seed=0):
        return Reader(samples, specs)


def items(count):
    random = np.random.default_rng(count)
    return [
        {
            "wave": random.normal(size=(40, 1)).astype(np.float32) * random.uniform(1, 3),
            "ids": random.integers(0, 9, 4).astype(np.int32),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def source():
    import keras

    keras.utils.set_random_seed(0)
    modalities.register(Toy())
    wave, ids = keras.Input((40, 1)), keras.Input((4,), dtype="int32")
    x = keras.layers.Conv1D(8, 5, strides=2, activation="relu")(wave)
    x = keras.layers.GlobalAveragePooling1D()(x)
    y = keras.layers.Flatten()(keras.layers.Embedding(9, 6)(ids))
    joined = keras.layers.Concatenate()([x, y])
    values = keras.layers.Dense(2)(keras.layers.Dense(16, "relu")(joined))
    model = keras.Model([wave, ids], keras.layers.Rescaling(100.0)(values))
    made = items(30)
    labels = np.zeros((30, 2), np.float32)
    keys = tuple(map(str, range(30)))
    samples = Samples(made, labels, ("a", "b"), keys, modalities.get("toy"), task="values")
    inputs = {name: np.stack([one[name] for one in made]) for name in SHAPES}
    return Source(
        model, ("a", "b"), inputs, keys, "values", "toy", labels, Splits(samples, samples, None),
        modalities.get("toy"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "toy.zip"
    limits = Limits(1.0, 16, 16, train=False)
    made = export(source, ExportConfig(("tflite", "onnx"), ("fp16", "int8"), limits, False), out)
    return out, made


def answers(source):
    return source.model.predict(list(source.inputs.values()), verbose=0)


def test_every_file_answers_as_keras_and_proves_it_again(source, bundle):
    out, made = bundle
    assert [one.name for one in made] == [
        "tflite-fp32", "tflite-fp16", "tflite-int8", "onnx-fp32", "onnx-fp16", "onnx-int8",
    ]  # fmt: skip
    assert {one.verdict.agreement for one in made if "int8" not in one.name} == {1.0}
    assert max(one.verdict.mean_difference for one in made) < 0.05 * np.ptp(answers(source))
    assert verify_bundle(out).passed


def test_the_bundle_says_what_goes_in_and_that_it_is_a_regression(bundle):
    with read_bundle(bundle[0]) as found:
        record = found.manifest
        assert (record["modality"], record["task"]) == ("toy", "values")
        assert [(one["name"], one["dtype"]) for one in record["inputs"]] == [
            ("wave", "float32"), ("ids", "int32"),
        ]  # fmt: skip
        assert record["output"]["values"] == "numbers in the units of the labels"
        assert "regression" in (found.folder / "README.md").read_text()
        taken = {one.name: one.dtype for one in inspect_model(found.model("onnx-int8")).inputs}
        assert taken == {"wave": "float32", "ids": "int32"}
        golden = json.loads((found.folder / "golden/golden.json").read_text())
        assert golden["samples"][0]["file"] == "golden/00.npz"
        assert not (found.folder / "run.py").exists(), "that one reads images"


def test_without_a_modality_inputs_have_their_own_names_and_images_that_of_image(source):
    assert list(read_signature(source.model).inputs) == [one.name for one in source.model.inputs]
    with pytest.raises(ExportError, match="square RGB"):
        read_signature(source.model, modalities.get("image"))
