"""Backbones of KerasHub become stock Keras layers; random ones are made here and saved as presets.

Skipped where keras-hub is not installed (the extra [hub]).
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models import graph
from tl_keras.models.backbones.load import build_backbone, describe, reading_of
from tl_keras.models.backbones.requirements import required_packages
from tl_keras.models.backbones.saved_model_checks import difference, photos
from tl_keras.models.backbones.sources import modality_of
from tl_keras.models.build import build_model

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed: extra [hub]")

VIT = {"image_shape": (64, 64, 3), "patch_size": 16, "num_layers": 2, "num_heads": 2,
       "hidden_dim": 32}  # fmt: skip
NETS = {
    "ViT": {**VIT, "mlp_dim": 48},
    "DeiT": {**VIT, "intermediate_dim": 48},
    "ResNet": {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_blocks": [1, 1],
        "stackwise_num_filters": [64, 64], "stackwise_num_strides": [1, 2],
        "block_type": "basic_block"},
    "EfficientNet": {
        "stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [1, 2],
        "stackwise_input_filters": [16, 16], "stackwise_output_filters": [16, 24],
        "stackwise_expansion_ratios": [1, 4], "stackwise_strides": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_block_types": ["v1", "v1"], "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0]},
    "MobileNet": {
        "stackwise_expansion": [[40, 56], [64, 144]], "stackwise_num_blocks": [2, 2],
        "stackwise_num_filters": [[16, 16], [24, 24]], "stackwise_kernel_size": [[3, 3], [5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1]], "stackwise_padding": [[1, 1], [2, 2]],
        "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
        "output_num_filters": 64, "input_num_filters": 16, "depthwise_filters": 8,
        "depthwise_stride": 2, "depthwise_residual": False, "last_layer_filter": 32,
        "squeeze_and_excite": 0.5},
}  # fmt: skip


def save(name: str, folder):
    """A backbone with random weights, saved as a preset."""
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**NETS[name])
    rng = np.random.default_rng(5)
    for variable in backbone.variables:
        positive = variable.path.endswith(("gamma", "variance"))
        variable.assign(rng.uniform(0.7, 1.3, variable.shape) if positive
                        else rng.normal(0, 0.1, variable.shape))  # fmt: skip
    backbone.save_to_preset(str(folder))
    return backbone


@pytest.mark.parametrize("name", NETS)
def test_a_backbone_becomes_stock_layers_of_equal_features(name, tmp_path):
    source = save(name, tmp_path / "net")
    place = f"keras_hub:{tmp_path / 'net'}?range=-1..1"
    model = build_model(place, 3, size=64)
    assert required_packages(model) == []
    base = build_backbone(place, size=64)
    pixels = photos(64)
    wanted = np.asarray(source(pixels / 127.5 - 1, training=False))
    assert difference(wanted, np.asarray(base(pixels))) < 1e-5
    assert base.count_params() == pytest.approx(source.count_params(), rel=0.02)
    assert len(graph.cut_points(base)) > 10 and len(graph.blocks(base)) > 1
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


def test_what_a_backbone_takes_is_read_from_its_image_converter(tmp_path):
    save("ResNet", tmp_path / "net")
    converter = {"config": {"scale": [0.01, 0.02, 0.03], "offset": [-1.0, -2.0, -3.0]}}
    (tmp_path / "net" / "image_converter.json").write_text(json.dumps(converter))
    scaling = build_backbone(f"keras_hub:{tmp_path / 'net'}", size=32).get_layer("input_scaling")
    assert scaling.scale == [0.01, 0.02, 0.03] and scaling.offset == [-1.0, -2.0, -3.0]


def test_without_weights_a_backbone_is_random_and_with_a_size_of_its_own_keeps_it(tmp_path):
    save("ViT", tmp_path / "net")
    name = f"keras_hub:{tmp_path / 'net'}"
    assert describe(name).default_size == 64
    own, fresh = build_backbone(name), build_backbone(name, weights=None)
    assert not np.array_equal(
        own.get_layer("block0_up").get_weights()[0], fresh.get_layer("block0_up").get_weights()[0])
    with pytest.raises(ModelError, match="expected 64 px to 64"):
        build_backbone(name, size=96)


def harm(folder, kind: str) -> None:
    if kind == "json":
        (folder / "config.json").write_text("{")
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "weights":
        path = folder / "model.weights.h5"
        path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(("kind", "message"), [
    ("json", "cannot be read"), ("no config", "has no config.json"),
    ("weights", "cannot be opened by KerasHub")])  # fmt: skip
def test_a_damaged_preset_is_refused_in_one_line(kind, message, tmp_path):
    save("ResNet", tmp_path / "net")
    harm(tmp_path / "net", kind)
    with pytest.raises(ModelError, match=message) as caught:
        build_backbone(f"keras_hub:{tmp_path / 'net'}", size=32)
    assert "\n" not in str(caught.value)


def test_a_preset_that_must_be_fetched_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://localhost:1")
    with pytest.raises(DownloadError, match="cannot be fetched .*keras_hub:FOLDER") as caught:
        build_backbone("keras_hub:no_such_preset_anywhere")
    assert "\n" not in str(caught.value)


def test_layers_of_keras_hub_are_named_where_it_is_missing(tmp_path, monkeypatch):
    import importlib.util

    from tl_keras.models.backbones.weights import load_user_model

    source = save("ViT", tmp_path / "net")
    assert required_packages(source) == ["keras-hub"]
    source.save(tmp_path / "m.keras")
    assert load_user_model(tmp_path / "m.keras").count_params() == source.count_params()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "keras_hub" else found(name))
    with pytest.raises(ModelError, match="layers of keras-hub, which is not installed"):
        load_user_model(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="keras-hub is not installed: pip install"):
        build_backbone(f"keras_hub:{tmp_path / 'net'}")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "bad", "film", "##s", "."]


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_an_encoder_becomes_stock_layers_from_token_ids_to_a_vector(kind, tmp_path):
    shape = {"vocabulary_size": 20, "num_layers": 2, "num_heads": 2, "hidden_dim": 32,
             "intermediate_dim": 48, "max_sequence_length": 24}  # fmt: skip
    source = getattr(keras_hub.models, f"{kind}Backbone")(**shape)
    rng = np.random.default_rng(5)
    for variable in source.variables:
        if variable.dtype == "float32":
            variable.assign(variable + rng.normal(0, 0.1, variable.shape))
    source.save_to_preset(str(tmp_path / "net"))
    tokenizer = getattr(keras_hub.models, f"{kind}Tokenizer")(vocabulary=WORDS, lowercase=True)
    tokenizer.save_to_preset(str(tmp_path / "net"))
    name = f"keras_hub:{tmp_path / 'net'}"
    assert modality_of(name) == describe(name).modality == "text"
    ids = reading_of(name)[0].encode("A fine films.", 8)
    assert ids == [2, 5, 6, 8, 9, 10, 3] or ids == [2, 5, 6, 8, 9, 10, 3, 0]
    model = build_backbone(name, size=8)
    assert required_packages(model) == [] and model.output.shape[1] % 32 == 0
    padded = np.array([[*ids, 0][:8]], np.int32)
    inputs = {"token_ids": padded, "padding_mask": (padded != 0).astype(np.int32)}
    if kind == "Bert":
        inputs["segment_ids"] = np.zeros_like(padded)
    wanted = source(inputs)
    wanted = np.asarray(wanted["sequence_output"] if kind == "Bert" else wanted)
    last = keras.Model(model.input, model.get_layer("block1_norm").output)
    np.testing.assert_allclose(last(padded)[0, :7], wanted[0, :7], atol=1e-5)
