"""The small file holds all that was trained, and fits one base only."""

from __future__ import annotations

import numpy as np
import pytest
from test_peft_lora import PIXELS, answers
from training_models import small_model

from tl_keras.errors import ModelError, PlanError
from tl_keras.models.build import build_model
from tl_keras.models.graph import split
from tl_keras.peft.adapters import insert_adapters
from tl_keras.peft.branches import count_parameters
from tl_keras.peft.files import backbone_fingerprint, load_adapter, save_adapter
from tl_keras.peft.lora import apply_lora, default_lora_layers, merge_lora


def trained(outputs: int = 3):
    """LoRA of two ranks, adapters of both kinds, all with weights of their own."""
    model = apply_lora(small_model(outputs), ["block1_conv"], rank=2, alpha=3.0)
    model = apply_lora(model, ["block2_conv", "head"], rank=3)
    model = insert_adapters(model, ["block1_relu"], 2)
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if "_lora_" in layer.name or "_adapter_" in layer.name or layer.name == "head_logits":
            layer.set_weights([generator.normal(0, 0.2, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture
def file(tmp_path):
    save_adapter(trained(), tmp_path / "adapter.npz")
    return tmp_path / "adapter.npz"


def bare():
    return split(small_model(), "block2_relu")[0]


@pytest.mark.parametrize("base", [small_model, bare], ids=["with a head", "bare"])
def test_a_fresh_base_gives_the_trained_answers(file, base):
    loaded = load_adapter(base(), file)
    np.testing.assert_allclose(answers(loaded), answers(trained()), rtol=1e-6)
    assert answers(merge_lora(loaded)).shape == (len(PIXELS), 3)
    assert [layer.name for layer in loaded.layers][1:] == [
        layer.name for layer in trained().layers
    ][1:]


def test_the_base_itself_is_not_in_the_file_nor_anything_pickled(file):
    with np.load(file, allow_pickle=False) as saved:
        held = sum(saved[name].size for name in saved.files if name != "meta")
    model = trained()
    base = sum(model.get_layer(f"block{n}_{kind}").count_params()
               for n in (1, 2) for kind in ("conv", "bn"))  # fmt: skip
    assert held == model.count_params() - base


def test_the_same_model_gives_the_same_file(file, tmp_path):
    save_adapter(trained(), tmp_path / "again.npz")
    with np.load(file) as left, np.load(tmp_path / "again.npz") as right:
        assert left.files == right.files
        assert all(np.array_equal(left[name], right[name]) for name in left.files)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_at_rank_4_the_file_is_at_most_3_percent_of_the_base(name, tmp_path):
    base = build_model(name, 10, size=32, weights=None)
    model = apply_lora(base, default_lora_layers(base, 4), 4)
    save_adapter(model, tmp_path / "adapter.npz")
    base.save_weights(tmp_path / "base.weights.h5")
    assert size(tmp_path / "adapter.npz") <= 0.03 * size(tmp_path / "base.weights.h5")
    counts = count_parameters(model)
    assert counts["branches"] + counts["head"] <= 0.03 * base.count_params()


def size(path):
    return path.stat().st_size


def test_the_fingerprint_is_of_the_base_alone():
    assert backbone_fingerprint(trained()) == backbone_fingerprint(small_model())
    assert backbone_fingerprint(small_model(5)) == backbone_fingerprint(bare())
    assert backbone_fingerprint(small_model(size=24)) == backbone_fingerprint(small_model())


def test_another_base_is_refused_and_left_as_it_is(file):
    other = small_model()
    other.get_layer("block1_bn").set_weights([np.full(4, 1.5)] * 4)
    before = answers(other)
    with pytest.raises(ModelError, match="belongs to the base 'small' with fingerprint"):
        load_adapter(other, file)
    assert np.array_equal(answers(other), before)


def test_another_head_is_refused(file):
    with pytest.raises(ModelError, match="for layer head_logits.*bare base"):
        load_adapter(small_model(5), file)


def test_a_base_with_branches_is_refused(file):
    with pytest.raises(ModelError, match="already"):
        load_adapter(apply_lora(small_model(), ["block1_conv"], 1), file)


@pytest.mark.parametrize("content", [None, b"", b"hello", "cut"])
def test_a_file_that_is_none_is_named(file, content):
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:300] if content == "cut" else content)
    with pytest.raises(ModelError, match="adapter.npz.*expected an adapter"):
        load_adapter(small_model(), file)


def test_an_npz_of_another_kind_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", meta=np.frombuffer(b'{"a": 1}', np.uint8))
    with pytest.raises(ModelError, match="format 'none'"):
        load_adapter(small_model(), tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", values=np.zeros(3))
    with pytest.raises(ModelError, match="expected an adapter"):
        load_adapter(small_model(), tmp_path / "x.npz")


def test_a_plain_model_has_nothing_to_save(tmp_path):
    with pytest.raises(PlanError, match="neither LoRA nor adapters"):
        save_adapter(small_model(), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())
