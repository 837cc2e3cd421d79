from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import small_transformer

from tl_keras.errors import ModelError
from tl_keras.models import graph
from tl_keras.models.build import build_model, vgg16_average, vgg16_flatten
from tl_keras.models.heads import Head
from tl_keras.models.rewrite import flatten


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


def pictures(size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def convolutions() -> keras.Model:
    """A sequential base whose layers Keras names itself."""
    return keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255),
                             keras.layers.Conv2D(4, 3, name="first"),
                             keras.layers.BatchNormalization(name="norm")], name="body")


def nested(classes: int = 5) -> keras.Model:
    """What users build: a model in a model, with a head of its own."""
    x = keras.Input((16, 16, 3))
    y = convolutions()(x, training=False)
    y = keras.Sequential([keras.layers.Conv2D(6, 1, name="first")], name="neck")(y)
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, keras.layers.Dense(classes, activation="softmax", name="mine")(y))


def test_the_flatten_recipe_is_one_call():
    model = vgg16_flatten(4, size=32, weights=None)
    names = [layer.name for layer in model.layers[-4:]]
    assert names == ["head_flatten", "head_dense_1", "head_logits", "head_predictions"]
    assert model.get_layer("head_dense_1").units == 256
    assert model.output_shape == (None, 4)


def test_the_average_recipe_is_one_call():
    model = vgg16_average(4, size=32, weights=None)
    names = [layer.name for layer in model.layers[-4:]]
    assert names == ["head_avg_pool", "head_dense_1", "head_logits", "head_predictions"]
    assert model.get_layer("head_dense_1").units == 512
    np.testing.assert_allclose(run(model, pictures(32)).sum(axis=1), 1, atol=1e-6)


def test_flattening_changes_no_value_and_keeps_names():
    source = nested()
    flat = flatten(source)
    np.testing.assert_array_equal(run(flat, pictures()), run(source, pictures()))
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    assert {"first", "neck_first", "norm", "mine"} <= {layer.name for layer in flat.layers}


def test_a_layer_that_is_shared_stays_shared():
    x = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 1, name="shared")
    source = keras.Model(x, shared(keras.layers.ReLU()(shared(x))))
    flat = flatten(source)
    assert len(flat.weights) == 2
    np.testing.assert_array_equal(run(flat, pictures(8)), run(source, pictures(8)))


@pytest.mark.parametrize("way", ["object", "file", "function"])
def test_a_users_model_is_a_base_without_its_head(tmp_path, way):
    source = nested()
    source.save(tmp_path / "mine.keras")
    base = {"object": source, "file": tmp_path / "mine.keras", "function": lambda size: source}
    model = build_model(base[way], 3, size=16)
    assert graph.head_layers(model) == ["head_avg_pool", "head_logits", "head_predictions"]
    assert "mine" not in {layer.name for layer in model.layers}
    map_of = keras.Model(model.inputs[0], model.get_layer("head_avg_pool").input)
    up_to = keras.Model(source.inputs[0], source.layers[-2].input)
    np.testing.assert_array_equal(run(map_of, pictures()), run(up_to, pictures()))


@pytest.mark.parametrize(("pooling", "replaced"), [
    ("avg", ["pool", "drop", "mine"]), ("first", ["get_item", "drop", "mine"])])
def test_a_vision_transformer_works_whole(tmp_path, caplog, pooling, replaced):
    source = small_transformer(pooling)
    head = Head(pooling=pooling)
    model = build_model(source, 4, head=head)
    assert model.count_params() == source.count_params() - 13 * 3 + 13 * 4
    said = caplog.messages[0]
    assert all(name in said for name in ("last_norm", "(None, 16, 12)", *replaced))
    ends = [graph.feature_point(one) for one in (source, model)]
    assert ends[0].layer == ends[1].layer == "last_norm"
    tokens = [run(keras.Model(one.input, end.tensor), pictures())
              for one, end in zip((source, model), ends, strict=True)]
    np.testing.assert_array_equal(*tokens)
    model.save(tmp_path / "vit.keras")
    again = keras.saving.load_model(tmp_path / "vit.keras")
    assert graph.feature_point(again).layer == "last_norm"
    np.testing.assert_array_equal(run(again, pictures()), run(model, pictures()))
    assert build_model(again, 2, head=head).count_params() == model.count_params() - 26


def test_what_follows_the_pooling_and_is_no_stock_head_is_kept():
    class Own(keras.layers.Layer):
        def call(self, x):
            return x * 2.0

    x = keras.Input((8, 8, 3))
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    y = Own(name="own")(y)
    model = build_model(keras.Model(x, keras.layers.Dense(9)(y)), 2)
    assert [layer.name for layer in model.layers][-3:] == ["own", "head_logits", "head_predictions"]


def test_the_place_of_the_features_can_be_named(caplog):
    model = build_model("small_resnet", 2, weights=None, features="stage2_block1_relu")
    assert graph.feature_point(model).layer == "stage2_block1_relu"
    assert build_model(small_transformer(), 2, features="block1_norm").count_params() == (
        4 * 4 * 3 * 12 + 12 + 24 + 26)
    with pytest.raises(ModelError, match="nearest are: block1_norm"):
        build_model(small_transformer(), 2, features="block1_nrm")


def test_a_model_of_several_inputs_is_a_base_too():
    image, facts = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="facts")
    left = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1)(image))
    joined = keras.layers.Concatenate(name="joined")([left, keras.layers.Dense(3)(facts)])
    source = keras.Model({"image": image, "facts": facts}, keras.layers.Dense(2)(joined))
    model = build_model(source, 3, features="joined")
    x = {"image": pictures(8), "facts": np.ones((2, 5), "float32")}
    assert run(model, x).shape == (2, 3)


def test_a_users_model_is_copied_not_changed():
    source = nested()
    before = [weight.copy() for weight in source.get_weights()]
    model = build_model(source, 3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(pictures(), np.array([0, 2]), verbose=0)
    for old, new in zip(before, source.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_users_model_takes_another_size():
    model = build_model(nested(), 3, size=24)
    assert model.input_shape == (None, 24, 24, 3)
    assert model.output_shape == (None, 3)


def test_a_model_of_this_project_is_a_base_too():
    first = build_model("small_resnet", 3, weights=None)
    second = build_model(first, 7)
    assert [layer.name for layer in second.layers] == [layer.name for layer in first.layers]
    assert second.output_shape == (None, 7)


@pytest.mark.parametrize(("make", "options", "said"), [
    (lambda: keras.Sequential([keras.layers.Dense(2)]), {}, "graph"),
    (lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 1)]), {}, "8, 1"),
    (lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
                               keras.layers.Dense(2)]), {}, r"replace \(dense.*features=NAME"),
    (lambda: keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)]), {},
     "size=224"),
    (nested, {"weights": "imagenet"}, "of your own"),
    (lambda: 7, {}, "type int"),
    (lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)]),
     {}, "Lambda"),
])
def test_a_base_that_cannot_be_one_is_refused(make, options, said):
    with pytest.raises(ModelError, match=said):
        build_model(make(), 2, **options)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK nothing")
    for name in ("broken.keras", "absent.keras"):
        with pytest.raises(ModelError, match=name):
            build_model(tmp_path / name, 2)


def test_dense_layers_behind_flatten_do_not_take_another_size():
    source = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1),
                               keras.layers.Flatten(), keras.layers.Dense(4, name="fixed")])
    with pytest.raises(ModelError, match="fixed"):
        build_model(source, 2, size=10, head=Head(pooling="none"))


def test_dropping_a_whole_branch_is_kept_in_stock_layers():
    model = build_model("convnext_tiny", 2, size=32, weights=None)
    scale = model.get_layer("convnext_tiny_stage_0_block_0_layer_scale")
    assert isinstance(scale, keras.layers.DepthwiseConv2D)
    np.testing.assert_allclose(scale.get_weights()[0], 1e-6)


def test_a_base_that_only_scales_pixels_is_taken_whole():
    pixels = keras.Input((8, 8, 3))
    scaled = keras.Model(pixels, keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    model = build_model(scaled, 3, head=Head("flatten"))
    assert model.count_params() == 3 * (8 * 8 * 3 + 1)


def test_a_base_with_features_and_answers_as_outputs_gets_a_new_head():
    source = build_model("small_resnet", 3, size=16, weights=None)
    pooled = source.get_layer("head_avg_pool").output
    two = keras.Model(source.inputs, [pooled, source.outputs[0]])
    assert build_model(two, 7).output_shape == (None, 7)
    with pytest.raises(ModelError, match="2 outputs; expected .* and one output"):
        build_model(two, 7, head=Head("none"))
