from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import small_transformer

from tl_keras.errors import ModelError
from tl_keras.models import graph
from tl_keras.models.build import build_model


def pixels(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype("float32")


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


@pytest.fixture(scope="module")
def vgg():
    return build_model("vgg16", 4, size=32, weights=None)


@pytest.fixture(scope="module")
def mobile():
    return build_model("mobilenet_v2@0.35", 4, size=32, weights=None)


def forked():
    """Two ways between two cuts, and one that runs past a third layer."""
    x = keras.Input((8, 8, 3), name="pictures")
    a = keras.layers.Conv2D(4, 3, padding="same", name="a")(x)
    left = keras.layers.ReLU(name="left")(a)
    right = keras.layers.Conv2D(4, 1, name="right")(a)
    joined = keras.layers.Add(name="joined")([left, right])
    out = keras.layers.GlobalAveragePooling2D(name="out")(joined)
    return keras.Model(x, out)


def test_cut_points_are_the_tensors_that_cross_alone():
    assert [cut.layer for cut in graph.cut_points(forked())] == ["pictures", "a", "joined", "out"]


def test_a_skip_connection_from_the_input_leaves_no_cut_under_it():
    x = keras.Input((8, 8, 3), name="x")
    y = keras.layers.Conv2D(3, 1, name="y")(x)
    model = keras.Model(x, keras.layers.Add(name="sum")([x, y]))
    assert [cut.layer for cut in graph.cut_points(model)] == ["x", "sum"]


def test_a_second_output_is_no_less_alive_than_a_later_layer():
    x = keras.Input((4,), name="x")
    a = keras.layers.Dense(3, name="a")(x)
    b = keras.layers.Dense(2, name="b")(a)
    assert [cut.layer for cut in graph.cut_points(keras.Model(x, [a, b]))] == ["x", "a"]


@pytest.mark.parametrize(("name", "count"), [("VGG16", 19), ("MobileNetV2", 74)])
def test_bare_bases_have_the_cuts_that_were_counted_on_paper(name, count):
    base = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(64, 64, 3))
    assert len(graph.cut_points(base)) == count


@pytest.mark.parametrize("at", ["input_scaling", "block_6_project_BN", "head_avg_pool"])
def test_prefix_then_suffix_equals_the_whole_to_the_last_bit(mobile, at):
    prefix, suffix = graph.split(mobile, at)
    x = pixels(32)
    whole = run(mobile, x)
    assert np.array_equal(run(suffix, run(prefix, x)), whole)


def test_the_halves_share_the_weights_of_the_whole(vgg):
    prefix, suffix = graph.split(vgg, "block3_pool")
    assert prefix.get_layer("block1_conv1") is vgg.get_layer("block1_conv1")
    assert suffix.get_layer("head_logits") is vgg.get_layer("head_logits")
    counts = [len(model.weights) for model in (prefix, suffix, vgg)]
    assert counts[0] + counts[1] == counts[2]


def test_training_the_suffix_trains_the_whole():
    model = forked()
    _, suffix = graph.split(model, "a")
    before = model.get_layer("right").get_weights()[0]
    suffix.compile("sgd", "mse")
    suffix.fit(np.ones((4, 8, 8, 4)), np.ones((4, 4)), verbose=0)
    assert not np.array_equal(before, model.get_layer("right").get_weights()[0])


def test_splitting_again_and_again_changes_nothing(vgg):
    names = [cut.layer for cut in graph.cut_points(vgg)]
    for at in names[1:-1:5]:
        graph.split(vgg, at)
    assert [cut.layer for cut in graph.cut_points(vgg)] == names


def test_a_suffix_can_be_cut_like_a_model(vgg):
    _, suffix = graph.split(vgg, "block3_pool")
    prefix, rest = graph.split(suffix, "block4_pool")
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 256)).astype("float32")
    assert np.array_equal(run(rest, run(prefix, x)), run(suffix, x))
    assert graph.head_layers(suffix) == ["head_avg_pool", "head_logits", "head_predictions"]


def test_a_cut_at_the_input_has_no_prefix(vgg):
    assert graph.split(vgg, "pixels") == (None, vgg)


@pytest.mark.parametrize(("at", "said"), [
    ("block_2_expand", "run past it"), ("nothing", "no such layer"),
    ("head_predictions", "output")])
def test_a_place_that_cannot_be_cut_is_refused_with_its_reason(mobile, at, said):
    with pytest.raises(ModelError, match=said):
        graph.split(mobile, at)


def test_a_model_without_a_graph_is_refused():
    class Opaque(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="Opaque"):
        graph.cut_points(Opaque())


def test_the_blocks_of_vgg16_are_its_own_blocks(vgg):
    found = graph.blocks(vgg)
    assert [{name.split("_")[0] for name in block} for block in found] == [
        {f"block{i}"} for i in range(1, 6)]
    assert [len(block) for block in found] == [3, 3, 4, 4, 4]


@pytest.mark.parametrize("base", ["resnet50", "mobilenet_v2@0.35"])
def test_blocks_hold_every_weight_of_the_base_once_in_order(base):
    model = build_model(base, 3, size=64, weights=None)
    names = [name for block in graph.blocks(model) for name in block]
    order = [step.name for step in graph.steps(model) if step.name in set(names)]
    weighted = {x.name for x in model.layers if x.weights} - set(graph.head_layers(model))
    assert names == order
    assert weighted <= set(names)
    assert len(graph.blocks(model)) == 5


@pytest.mark.parametrize(("name", "count"), [
    ("VGG16", 4), ("MobileNet", 5), ("MobileNetV2", 2), ("MobileNetV3Small", 7)])
def test_the_head_of_a_classifier_is_what_its_bare_base_lacks(name, count):
    make = getattr(keras.applications, name)
    whole = make(weights=None, input_shape=(32, 32, 3), classes=5)
    bare = make(weights=None, input_shape=(32, 32, 3), include_top=False)
    head = graph.head_layers(whole)
    assert len(head) == count
    assert len(whole.layers) - len(head) == len(bare.layers)
    assert graph.feature_point(whole).shape == bare.output_shape
    assert graph.head_layers(bare) == []


def test_the_blocks_of_a_transformer_begin_with_its_attention():
    found = graph.blocks(small_transformer())
    assert [block[0] for block in found] == ["patches", "block1_norm", "block2_norm"]
    assert found[-1][-1] == "last_norm"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_head_of_two_inputs_is_the_same_in_either_order(swapped):
    image, facts = keras.Input((8, 8, 3)), keras.Input((5,))
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv1")(image)
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv2")(x)
    ways = [keras.layers.GlobalAveragePooling2D(name="pool")(x),
            keras.layers.Dense(3, name="facts")(facts)]
    joined = keras.layers.Concatenate(name="joined")(ways[::-1] if swapped else ways)
    model = keras.Model([image, facts], keras.layers.Dense(2, name="out")(joined))
    assert set(graph.head_layers(model)) == {"pool", "facts", "joined", "out"}
    assert graph.blocks(model) == [["conv1"], ["conv2"]]
