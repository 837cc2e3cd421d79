from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from export_models import pictures, small_model

from export.convert import onnx, tflite
from export.convert.graph import fold_batch_normalization
from export.quantize.recipes import find_recipe
from export.quantize.rounding import _round, list_rounded, round_weights
from export.quantize.search import Limits, QuantizationTask, Quantizer, Settings, try_plainly
from export.runtime.runtimes import load
from export.source import Source
from tl_keras.data.samples import from_arrays
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits
from tl_keras.models.build import build_model
from tl_keras.probing.linear import logistic


def correlated(rows, width, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, 3)) @ generator.normal(size=(3, width)) + (
        0.1 * generator.normal(size=(rows, width))
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_by_what_inputs_have_in_common_errs_far_less_than_to_the_nearest(bits):
    rows, largest = correlated(500, 100), 2 ** (bits - 1) - 1
    weights = np.random.default_rng(1).normal(size=(1, 100, 7))
    made = _round(weights, (rows.T @ rows / 500)[None], bits)
    scale = np.abs(weights).max(axis=1, keepdims=True) / largest
    nearest = np.rint(weights / scale) * scale
    errors = [np.square(rows @ (one - weights)[0]).mean() for one in (made, nearest)]
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_left_lies_on_the_grid_that_quantizers_find_by_the_largest_weight(bits):
    rows, largest = correlated(300, 64), 2 ** (bits - 1) - 1
    weights = np.random.default_rng(2).normal(size=(1, 64, 5)) ** 3
    made = _round(weights, (rows.T @ rows / 300)[None], bits)
    scale = np.abs(made).max(axis=1, keepdims=True) / largest
    np.testing.assert_allclose(np.rint(made / scale) * scale, made, atol=1e-6)


def test_a_models_layers_answer_nearly_as_before_and_in_the_mean_the_same():
    import keras

    model, shown = fold_batch_normalization(small_model()), pictures(24)
    names = list_rounded(model)
    assert [type(model.get_layer(name)).__name__ for name in names] == [
        "Conv2D", "DepthwiseConv2D", "Dense",
    ]  # fmt: skip
    layer = model.get_layer(names[0])
    kernel, bias = layer.get_weights()
    taken = keras.Model(model.input, layer.input).predict(shown.astype("float32"), verbose=0)
    given = keras.Model(model.input, layer.output)
    before = given.predict(shown.astype("float32"), verbose=0)
    round_weights(model, {"image": shown}, {names[0]: 4})
    changed, moved = layer.get_weights()
    after = given.predict(shown.astype("float32"), verbose=0)
    assert taken.shape[1:] == (16, 16, 3)
    assert np.abs(changed - kernel).max() > 0
    assert np.abs(moved - bias).max() > 0
    # The mean is known from a part of the places.
    wrong = after - before
    assert (np.abs(wrong.mean(axis=(0, 1, 2))) < 0.1 * wrong.std(axis=(0, 1, 2))).all()


@pytest.fixture(scope="module")
def ants_and_bees():
    """MobileNetV2 under logistic regression, on hymenoptera."""
    import keras

    weights = Path(os.environ["TL_KERAS_REAL_WEIGHTS"])
    samples = load_samples(str(Path(os.environ["TL_KERAS_REAL_DATA"], "hymenoptera")))
    file = weights / "mobilenet_v2_1.0_224_imagenet_notop.weights.h5"
    model = build_model("mobilenet_v2", 2, weights=file)
    images = samples.reader(model).read(range(len(samples)), 0)["image"]
    train = np.array(samples.splits) == "train"
    head = next(one for one in reversed(model.layers) if isinstance(one, keras.layers.Dense))
    taken = keras.Model(model.input, head.input)
    features = taken.predict(images[train].astype("float32"), batch_size=16, verbose=0)
    solved = logistic(features, samples.labels[train], 2)
    head.set_weights([solved.weights, solved.bias])
    learned = from_arrays(images[train], samples.labels[train])
    others = from_arrays(images[~train], samples.labels[~train])
    return Source(
        model, ("ants", "bees"), {"image": others.items}, others.keys, labels=others.labels,
        data=Splits(learned, others, None),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not {"TL_KERAS_REAL_WEIGHTS", "TL_KERAS_REAL_DATA"} <= set(os.environ),
    reason="TL_KERAS_REAL_WEIGHTS and TL_KERAS_REAL_DATA name no folders",
)
@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_int8_of_a_real_network_keeps_its_labels_at_the_first_try(
    ants_and_bees, format_, tmp_path
):
    source, convert = ants_and_bees, {"tflite": tflite, "onnx": onnx}[format_].convert
    images = source.inputs["image"]
    truth = source.model.predict(images.astype("float32"), batch_size=16, verbose=0)
    contents, recipe = convert(source.model), find_recipe("int8", format_)
    path = tmp_path / recipe.file
    task = QuantizationTask(source, truth, recipe, contents, path, convert)
    quantizer = Quantizer(task, Limits(), lambda *step: None)
    settings, _ = next(try_plainly(quantizer, Settings(contents, 128)))
    path.write_bytes(quantizer.make(settings))
    given = np.concatenate([load(path).predict(one) for one in np.array_split(images, 10)])
    assert (given.argmax(1) == truth.argmax(1)).mean() >= 0.99
    assert path.stat().st_size <= 0.31 * len(contents)
