from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from training_models import small_model, splits
from typer.testing import CliRunner

from export.bundle.golden import verify_bundle
from export.cli.app import app
from export.compress.fine_tune import FineTune
from export.compress.graph import fold_trainable
from export.compress.methods import METHODS, compress
from export.compress.prune import choose_spared, fine_tune_kept
from export.runtime.inspect import inspect_model
from tl_keras.data.samples import from_arrays
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()
HOW = FineTune(epochs=2, rate=1e-3, batch_size=16)


@pytest.fixture(scope="module")
def data():
    return splits(48, 18)


@pytest.fixture(scope="module")
def model(data):
    """Trained until it tells the colours apart, with statistics of its own."""
    import keras

    made = small_model()
    made.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    made.fit(data.train.items.astype("float32"), data.train.labels, epochs=25, verbose=0)
    made.compile()
    return made


def interpreter(contents):
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=contents, num_threads=1)
    made.allocate_tensors()
    return made


def answers(contents, pictures):
    made = interpreter(contents)
    source, given = made.get_input_details()[0], made.get_output_details()[0]
    found = []
    for picture in pictures:
        made.set_tensor(source["index"], picture[np.newaxis].astype(source["dtype"]))
        made.invoke()
        found.append(made.get_tensor(given["index"])[0])
    return np.array(found)


def kernels(contents):
    """Constants of the file with as many dimensions as a kernel has, by shape."""
    made = interpreter(contents)
    shapes = {(4, 3, 3, 3), (8, 3, 3, 4), (3, 8)}
    wanted = [one for one in made.get_tensor_details() if tuple(one["shape"]) in shapes]
    return {tuple(one["shape"]): made.get_tensor(one["index"]) for one in wanted}


def accuracy(given, samples):
    return float((given.argmax(axis=1) == samples.labels).mean())


@pytest.fixture(scope="module")
def int8(model, data):
    before = [weight.numpy().copy() for weight in model.weights]
    told = []
    how = dataclasses.replace(HOW, progress=lambda *words: told.append(words))
    contents = compress(model, data, "qat", how).tflite
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert told[-1] == ("quantization-aware training", 6, 6)
    return contents


def test_qat_takes_raw_bytes_and_gives_floats(int8):
    made = interpreter(int8)
    source, given = made.get_input_details()[0], made.get_output_details()[0]
    assert source["dtype"] is np.uint8
    assert source["quantization"] == (1.0, 0)
    assert list(source["shape"]) == [1, 16, 16, 3]
    assert given["dtype"] is np.float32


def test_qat_computes_in_int8_from_end_to_end(int8):
    details = interpreter(int8).get_tensor_details()
    floats = [one["name"] for one in details if one["dtype"] is np.float32]
    assert len(floats) == 1, "only the answer"
    assert {kernel.dtype for kernel in kernels(int8).values()} == {np.dtype(np.int8)}
    per_channel = [len(one["quantization_parameters"]["scales"]) for one in details
                   if tuple(one["shape"]) == (8, 3, 3, 4)]  # fmt: skip
    assert per_channel == [8]


def test_qat_retains_the_accuracy(int8, model, data):
    truth = model.predict(data.val.items.astype("float32"), verbose=0)
    assert accuracy(truth, data.val) >= 0.9, "the model itself must be able to"
    assert accuracy(answers(int8, data.val.items), data.val) >= accuracy(truth, data.val) - 0.06


@pytest.fixture(scope="module")
def pruned(model, data):
    return compress(model, data, "prune", HOW)


def test_pruning_leaves_the_wanted_share_of_zeros_in_a_plain_keras_model(pruned, data):
    import keras

    for layer in pruned.model.layers:
        assert type(layer).__module__.startswith("keras.")
        if layer.name in ("block1_conv", "block2_conv", "head_logits"):
            assert np.mean(layer.get_weights()[0] == 0) == pytest.approx(0.5, abs=0.02)
    assert isinstance(pruned.model, keras.Model)
    facts = pruned.facts["pruning"]
    assert facts["kept"] == min(facts["loss"], key=facts["loss"].get)
    assert (facts["judged_on"], facts["held_out"]) == (9, True)
    given = pruned.model.predict(data.val.items.astype("float32"), verbose=0)
    assert accuracy(given, data.val) >= 0.8
    np.testing.assert_allclose(answers(pruned.tflite, data.val.items), given, atol=1e-4)


def test_a_fine_tune_moves_what_is_not_zero_and_nothing_else(model, data):
    slim = fold_trainable(model)
    kernel, bias = slim.get_layer("block2_conv").get_weights()
    kernel[:, :, 1] = 0
    slim.get_layer("block2_conv").set_weights([kernel, bias])
    tuned = fine_tune_kept(slim, model, data, HOW).get_layer("block2_conv").get_weights()[0]
    np.testing.assert_array_equal(tuned == 0, kernel == 0)
    assert np.abs(tuned - kernel).max() > 1e-3


def test_the_smallest_kernels_keep_their_weights_and_the_others_make_up_for_it():
    import keras

    image = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(2, 1, name="tiny")(image)
    x = keras.layers.Conv2D(32, 3, name="middle")(x)
    x = keras.layers.Conv2D(64, 3, name="large")(x)
    model = keras.Model(image, keras.layers.Flatten()(x))
    sizes = {"tiny": 8, "middle": 2 * 9 * 32, "large": 32 * 9 * 64}
    total = sum(sizes.values())
    spared, share = choose_spared(model, 0.5)
    assert spared == {"tiny", "middle"}
    assert share * sizes["large"] == pytest.approx(0.5 * total)
    assert choose_spared(model, 0.89)[0] == {"tiny"}, "else the large one is sparser than 0.9"
    assert choose_spared(model, 0.95) == (set(), pytest.approx(0.95))


@pytest.mark.slow
def test_2_4_pruning_leaves_two_of_each_four_input_channels(model, data):
    made = compress(model, data, "prune_2_4", HOW).model
    kernel = made.get_layer("block2_conv").get_weights()[0]
    groups = (kernel != 0).transpose(0, 1, 3, 2).reshape(-1, 4).sum(axis=1)
    assert groups.max() <= 2
    assert groups.mean() > 1.9


@pytest.mark.slow
def test_clustering_leaves_few_different_weights(model, data):
    made = compress(model, data, "cluster", HOW, clusters=8)
    kernel = made.model.get_layer("block2_conv").get_weights()[0]
    assert 2 <= len(np.unique(kernel)) <= 8
    assert len(np.unique(kernels(made.tflite)[(8, 3, 3, 4)])) <= 8


@pytest.mark.slow
def test_zeros_stay_zeros_through_qat(model, data):
    made = compress(model, data, "prune+qat", HOW)
    assert made.model is None
    for kernel in kernels(made.tflite).values():
        assert kernel.dtype == np.int8
        assert np.mean(kernel == 0) >= 0.48


@pytest.mark.slow
def test_equals_stay_equal_through_qat(model, data):
    made = compress(model, data, "cluster+qat", HOW, clusters=8)
    kernel = kernels(made.tflite)[(8, 3, 3, 4)]
    assert kernel.dtype == np.int8
    assert 2 <= len(np.unique(kernel)) <= 8


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(int8, model, data):
    again = compress(model, data, "qat", HOW).tflite
    np.testing.assert_array_equal(answers(again, data.val.items), answers(int8, data.val.items))


@pytest.mark.slow
def test_a_regression_built_on_a_list_of_inputs_is_compressed(model, data):
    """Of the list tf.data would make one tensor with one dimension more."""
    import keras

    logits = model.get_layer("head_logits").output
    values = keras.Model(model.inputs, keras.layers.Rescaling(5e4, 2e5)(logits))
    taught = {}
    for part in ("train", "val"):
        samples = getattr(data, part)
        answers_ = values.predict(samples.items.astype("float32"), verbose=0)
        taught[part] = from_arrays(samples.items, answers_, task="values")
    both = Splits(taught["train"], taught["val"], None)
    made = compress(values, both, "cluster", HOW, clusters=32).model
    given = made.predict(data.val.items.astype("float32"), verbose=0)
    wanted = taught["val"].labels
    assert ((given - wanted) ** 2).mean() < 0.1 * wanted.var(axis=0).mean()


@pytest.mark.slow
def test_a_layer_that_cannot_be_rounded_stays_in_float_and_is_named(data):
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("gelu", name="curve")(x))
    made = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    given = compress(made, data, "qat", FineTune(1, 1e-4, 24))
    assert given.left_in_float == ("norm", "curve")
    assert np.isfinite(answers(given.tflite, data.val.items)).all()


MISTAKES = {
    "unknown method": ({"method": "prun"}, "Unknown method 'prun'. Did you mean prune"),
    "no sparsity": ({"method": "prune", "sparsity": 1.0}, "sparsity 1.0"),
    "one cluster": ({"method": "cluster", "clusters": 1}, "1 clusters"),
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.values(), ids=MISTAKES)
def test_what_makes_no_sense_is_refused(model, data, given, message):
    with pytest.raises(ExportError, match=message):
        compress(model, data, **given)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"rate": 0.0}, {"batch_size": 0}, {"seed": -1}])
def test_a_fine_tune_checks_its_numbers(wrong):
    with pytest.raises(ExportError, match="expected at least 1 epoch"):
        FineTune(**wrong)


def test_a_layer_without_a_counterpart_is_named(data):
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.RMSNormalization(name="rms")(inputs))
    made = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    with pytest.raises(ExportError, match="'rms'"):
        compress(made, data, "qat", HOW)


def invoke(*words):
    return CliRunner().invoke(app, ["compress", *[str(word) for word in words]])


@pytest.mark.slow
def test_a_run_is_compressed_into_a_bundle_like_any_other(trained, tmp_path):
    out = tmp_path / "small"
    words = ["--epochs", 1, "--batch-size", 8, "--max-drop", 1]
    result = invoke(trained, "--method", "prune", "--out", out, *words)
    assert result.exit_code == 0, result.output
    assert "of fp32" in result.stdout
    assert verify_bundle(out).passed
    record = json.loads((out / "manifest.json").read_text())
    assert record["facts"]["compression"]["method"] == "prune"
    (variant,) = record["variants"]
    assert variant["name"] == "tflite-prune" and variant["verdict"]["count"] > 0
    assert inspect_model(out / variant["file"]).labels == tuple(record["classes"])
    import keras

    assert keras.saving.load_model(out / "models/model.keras").output_shape == (None, 3)


@pytest.mark.slow
def test_a_model_that_compression_ruins_is_not_written(tmp_path_factory, tmp_path):
    """Digits read by 79 % were read by 10 % afterwards, with exit code 0."""
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    job = RunConfig.of("digits", "small_resnet", 32, plan="probe", epochs=(1,))
    run = train(job, tmp_path_factory.mktemp("digits") / "run").path
    words = ["--method", "prune", "--sparsity", 0.97, "--epochs", 1]
    result = invoke(run, *words, "--out", tmp_path / "small")
    assert result.exit_code == 3, result.output
    assert "The compressed model loses" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "an unknown method": (["--method", "quat"], "Did you mean qat"),
    "no rate": (["--method", "qat", "--rate", "0"], "not in its range, above 0"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_gives_one_message_and_writes_nothing(trained, tmp_path, words, message):
    result = invoke(trained, *words, "--out", tmp_path / "small")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "small").exists()


def test_a_folder_that_is_there_is_left_alone(trained, tmp_path):
    result = invoke(trained, "--method", "qat", "--out", tmp_path)
    assert result.exit_code == 2
    assert "exists already" in " ".join(result.stderr.split())


def test_an_incomplete_run_is_refused(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "state": "incomplete"}))
    result = invoke(run, "--method", "qat", "--out", tmp_path / "small")
    assert result.exit_code == 2
    assert "not complete" in " ".join(result.stderr.split())


def test_the_help_names_every_method():
    text = invoke("--help").stdout
    assert all(method in text for method in METHODS)
    assert "Example:" in text
