from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from export_models import settle

from export.convert import tflite
from export.convert.graph import fold_batch_normalization
from export.quantize import equalize
from export.quantize.recipes import find_recipe
from export.quantize.search import (
    STRATEGIES,
    TOOLS,
    Limits,
    QuantizationSearch,
    QuantizationTask,
    Quantizer,
    Settings,
    rank_by_error,
)
from export.runtime.runtimes import load
from export.source import Source
from tl_keras import tasks
from tl_keras.data.samples import from_arrays
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError, GateError, TrainingError

CLASSES = tasks.get("classes")


def quiet(word, done, total):
    pass


def search(task, limits, strategies=None):
    return QuantizationSearch(task, limits, quiet, strategies).run()


def pictures(count):
    """Noise around a colour of its own for each, so that answers differ."""
    generator = np.random.default_rng(count)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    return (colours + generator.integers(0, 56, (count, 16, 16, 3))).astype(np.uint8)


def images(count):
    return {"image": pictures(count)}


def plain_relu(bound=None, spread=1.0):
    """Plain, depthwise and 1x1 convolution; two channels are `spread` times too large."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = layers.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="first")(x)
    x = layers.ReLU(bound, name="first_relu")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, name="middle")(x)
    x = layers.ReLU(bound, name="middle_relu")(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 1, activation="relu", name="last")(x)
    x = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Softmax()(x))
    settle(model, pictures(32))
    model.get_layer("logits").set_weights(
        [40 * np.random.default_rng(0).normal(size=(16, 4)), np.zeros(4)]
    )
    return spoiled(model, spread)


def spoiled(model, spread):
    """Multiply the depthwise layer's channels, divide the next layer's: the function stays."""
    if spread == 1.0:
        return model
    factors = np.ones(16, "float32")
    factors[[3, 11]] = spread
    model = fold_batch_normalization(model)
    kernel, bias = model.get_layer("middle").get_weights()
    model.get_layer("middle").set_weights([kernel * factors[:, None], bias * factors])
    kernel, bias = model.get_layer("last").get_weights()
    model.get_layer("last").set_weights([kernel / factors[:, None], bias])
    return model


def answers(model, batch):
    return model.predict(batch.astype("float32"), verbose=0)


def test_equalization_keeps_the_answers_and_evens_out_the_channels():
    model = plain_relu(spread=1000.0)
    made = equalize.equalize(model, images(16), CLASSES)
    assert (made.pairs, made.unbounded) == (3, 0)
    np.testing.assert_allclose(
        answers(made.model, pictures(9)), answers(model, pictures(9)), atol=1e-3
    )
    for first, second in (("first", "middle"), ("middle", "last")):
        given = equalize._ranges(made.model.get_layer(first), "out")
        taken = equalize._ranges(made.model.get_layer(second), "in")
        np.testing.assert_allclose(given, taken, rtol=0.01)


def test_relu6_goes_only_where_the_labels_stay():
    kept = equalize.equalize(plain_relu(0.05), images(32), CLASSES)
    assert (kept.pairs, kept.unbounded) == (1, 0)
    assert kept.model.get_layer("first_relu").max_value == pytest.approx(0.05)
    freed = equalize.equalize(plain_relu(60.0), images(32), CLASSES)
    assert (freed.pairs, freed.unbounded) == (3, 2)
    assert freed.model.get_layer("first_relu").max_value is None


@pytest.mark.parametrize("task", ["values", "tags", "classes"])
def test_relu6_stays_in_a_model_of_one_output_whose_answers_would_change(task):
    """The largest of one output is always the first: that tells nothing."""
    import keras

    model = plain_relu(0.05)
    answer = keras.layers.Dense(1, None if task == "values" else "sigmoid", name="answer")
    single = keras.Model(model.inputs, answer(model.get_layer("logits").output))
    kernel, bias = answer.get_weights()
    middle = single.predict(pictures(32).astype("float32"), verbose=0)
    if task != "values":
        middle = np.log(middle / (1 - middle))
    answer.set_weights([kernel, bias - np.median(middle)])
    assert equalize.equalize(single, images(32), tasks.get(task)).unbounded == 0


@pytest.fixture(scope="module")
def spread_source():
    model = plain_relu(spread=1000.0)
    train = from_arrays(pictures(64), np.arange(64) % 4)
    keys = tuple(str(index) for index in range(150))
    names = ("a", "b", "c", "d")
    return Source(model, names, {"image": pictures(150)}, keys, data=Splits(train, train, None))


def job(source, tmp_path, recipe="int8"):
    truth = answers(source.model, source.inputs["image"])
    contents = tflite.convert(source.model)
    return QuantizationTask(
        source, truth, find_recipe(recipe, "tflite"), contents, tmp_path / "x.tflite",
        tflite.convert,
    )


def test_the_search_repairs_an_ill_scaled_network_without_labels(spread_source, tmp_path):
    made = search(job(spread_source, tmp_path), Limits(0.02, train=False))
    assert made.attempts[0].drop > 0.2
    assert made.attempts[-1].strategy == "equalization"
    assert made.attempts[-1].passed and made.proven
    assert made.verdict.accuracy is None
    assert made.verdict.agreement >= 0.98
    assert all(attempt.seconds > 0 for attempt in made.attempts)


def test_the_most_sensitive_layers_are_found_and_left_in_float(spread_source, tmp_path):
    task = job(spread_source, tmp_path)
    quantizer = Quantizer(task, Limits(), quiet)
    worst = rank_by_error(quantizer, Settings(task.contents, 32))
    assert any(name in worst[0] for name in ("middle", "last"))
    assert len(worst) == 4
    keep = Settings(task.contents, 32, keep=(worst[0],))
    differ = {}
    for settings in (keep, dataclasses.replace(keep, keep=())):
        task.path.write_bytes(quantizer.make(settings))
        wrong = load(task.path).predict(pictures(60)) - answers(spread_source.model, pictures(60))
        differ[len(settings.keep)] = np.abs(wrong).mean()
    assert differ[1] < differ[0]


def test_weights_are_rounded_once_for_all_recipes_and_formats_of_a_source(
    spread_source, tmp_path
):
    source, told, found = dataclasses.replace(spread_source), [], []
    for recipe in ("int8", "int8_uint8_out"):
        quantizer = Quantizer(job(source, tmp_path, recipe), Limits(), lambda *it: told.append(it))
        ((settings, _),) = STRATEGIES[0][1](quantizer, Settings(b"", 64))
        found.append(settings.contents)
    assert found[0] is found[1]
    assert [word for word, _, _ in told].count("rounding weights") == 1
    other = dataclasses.replace(source, model=plain_relu())
    quantizer = Quantizer(job(other, tmp_path), Limits(), quiet)
    ((settings, _),) = STRATEGIES[0][1](quantizer, Settings(b"", 64))
    assert settings.contents != found[0], "another model's weights"


def test_if_no_strategy_passes_each_is_named_with_its_drop(spread_source, tmp_path):
    task = job(spread_source, tmp_path)
    tried = r"first try .*: \d+ of 150 answers.*; range clipping .*--max-drop"
    with pytest.raises(GateError, match=tried):
        search(task, Limits(0.0, 16, 16), [STRATEGIES[0], STRATEGIES[2]])


def test_the_first_try_rounds_weights_by_what_they_do_and_comes_closer_to_the_source(tmp_path):
    model = rough()
    train = from_arrays(pictures(64), np.arange(64) % 4)
    keys = tuple(str(index) for index in range(150))
    data = Splits(train, train, None)
    source = Source(model, ("a", "b", "c", "d"), {"image": pictures(150)}, keys, data=data)
    plain = [("plain", lambda quantizer, best: iter([(best, "")]))]
    found = [
        search(job(source, tmp_path), Limits(1.0), strategies) for strategies in (plain, None)
    ]
    assert found[1].attempts[0].note == "64 calibration samples, 4 layers"
    assert found[1].verdict.mean_difference < 0.7 * found[0].verdict.mean_difference


def rough():
    """A model whose weights round badly: one in each channel is far larger than the others."""
    model = plain_relu()
    for name in ("first", "middle", "last"):
        kernel, *others = model.get_layer(name).get_weights()
        kernel[0, 0, 0] *= 20
        model.get_layer(name).set_weights([kernel, *others])
    settle(model, pictures(32))
    return model


def test_a_recipe_without_calibration_needs_no_training_pictures(spread_source, tmp_path):
    bare = dataclasses.replace(spread_source, data=None)
    made = search(job(bare, tmp_path, "fp16"), Limits(0.05))
    assert made.settings.samples == 0
    with pytest.raises(ExportError, match="needs training samples"):
        search(job(bare, tmp_path), Limits(0.05))


@pytest.mark.parametrize("numbers", [{"max_drop": 1.5}, {"calibration": 0}, {"more": 5}])
def test_limits_that_make_no_sense_are_refused(numbers):
    with pytest.raises(ExportError, match="expected"):
        Limits(**numbers)


@pytest.mark.slow
def test_the_last_strategy_trains_with_the_rounding_and_gives_a_file_for_uint8_pictures(tmp_path):
    model, shown = plain_relu(), pictures(64)
    labels = model.predict(shown.astype("float32"), verbose=0).argmax(1)
    train = from_arrays(shown, labels, ["a", "b", "c", "d"])
    keys = tuple(str(index) for index in range(150))
    names, data = ("a", "b", "c", "d"), Splits(train, train, None)
    source = Source(model, names, {"image": pictures(150)}, keys, data=data)
    strategies = [STRATEGIES[0], STRATEGIES[-1]]
    made = search(job(source, tmp_path), Limits(0.1, 1, 1), strategies[1:])
    assert [attempt.strategy for attempt in made.attempts] == ["quantization-aware training"]
    runtime = load(tmp_path / "x.tflite")
    assert runtime._interpreter.get_input_details()[0]["dtype"] is np.uint8
    assert made.verdict.agreement >= 0.9
    forbidden = Limits(0.0, 1, 1, train=False)
    with pytest.raises(GateError) as refused:
        search(job(source, tmp_path), forbidden, strategies)
    assert "quantization-aware" not in str(refused.value)


def failing(error):
    def strategy(quantizer, best):
        raise error
        yield best, ""

    return strategy


def plain(quantizer, best):
    yield best, ""


NO_COUNTERPART = failing(ExportError("Layer 'odd' has no counterpart in tf_keras."))
NO_NUMBER = failing(TrainingError("The loss became nan while compressing."))


def test_among_files_of_which_none_is_proven_the_nearest_is_taken(spread_source, tmp_path):
    """Enough pictures to prove a file that loses nothing, too few where one answer was lost."""
    task = job(spread_source, tmp_path)
    half = TOOLS["tflite"].quantize(task.contents, find_recipe("fp16", "tflite"))
    truth = answers(spread_source.model, pictures(150))
    order = np.argsort(truth, 1)
    first, second = np.sort(truth, 1)[:, :-3:-1].T
    row = np.abs(first - second - 0.5).argmin()
    truth[row, order[row, -2:]] = truth[row, order[row, :-3:-1]]
    task = dataclasses.replace(task, truth=truth)
    for files in ([half, task.contents], [task.contents, half]):
        strategies = [
            (str(place), lambda quantizer, best, one=one: iter([(Settings(b"", finished=one), "")]))
            for place, one in enumerate(files)
        ]
        made = search(task, Limits(0.0126), strategies)
        assert [one.passed for one in made.attempts] == [True, True] and not made.proven
        found = [one.divergence for one in made.attempts]
        assert found[0] != found[1] and made.verdict.divergence == min(found)
        assert (tmp_path / "x.tflite").read_bytes() == files[int(np.argmin(found))]


def test_strategies_that_fail_are_named_where_none_passes(spread_source, tmp_path):
    strategies = [("plain", plain), ("keras2", NO_COUNTERPART), ("training", NO_NUMBER)]
    with pytest.raises(GateError) as refused:
        search(job(spread_source, tmp_path), Limits(0.0, 16, 16), strategies)
    said = str(refused.value)
    assert "keras2: not possible, Layer 'odd' has no counterpart" in said
    assert "training: not possible, The loss became nan" in said


def test_a_later_strategy_may_pass_after_one_that_failed(spread_source, tmp_path):
    names = ("sensitive layers kept", "equalization")
    able = [pair for pair in STRATEGIES if pair[0] in names]
    strategies = [("plain", plain), ("keras2", NO_COUNTERPART), *able]
    made = search(job(spread_source, tmp_path), Limits(0.05, 32, 32), strategies)
    assert [one.strategy for one in made.attempts][0] == "plain"
    assert made.attempts[-1].passed and made.attempts[-1].strategy in names


def test_a_first_strategy_that_fails_is_the_models_own_error(spread_source, tmp_path):
    with pytest.raises(ExportError, match="no counterpart") as refused:
        search(job(spread_source, tmp_path), Limits(0.0, 16, 16), [("keras2", NO_COUNTERPART)])
    assert not isinstance(refused.value, GateError)
