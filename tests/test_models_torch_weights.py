"""Weights that torch saved give the features that torch's network gives."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tl_keras.errors import ModelError
from tl_keras.models.backbones import torch_names
from tl_keras.models.backbones.load import build_backbone
from tl_keras.models.backbones.registry import BACKBONES

DATA = Path(__file__).parent / "data" / "torch_features.json.gz"  # scripts/record_torch_features.py
RECORDED = json.loads(gzip.decompress(DATA.read_bytes()))
QUICK = ("timm vit_tiny", "timm mobilenetv2_050", "transformers ResNet")


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As scripts/record_torch_features.py draws the numbers that torch's network had."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        values = rng.uniform(0.75, 1.25, shape)
    elif len(shape) in (2, 4):
        values = rng.normal(0, (1.5 / np.prod(shape[1:])) ** 0.5, shape)
    else:
        values = rng.normal(0, 0.1, shape)
    return values.astype(np.float32)


def _file(folder: Path, case: str, **changes: np.ndarray | None) -> Path:
    """The file that torch would have saved, and its config.json; None leaves a tensor out."""
    recorded = RECORDED[case]
    tensors = {name: _draw(name, tuple(shape)) for name, shape in recorded["shapes"].items()}
    tensors |= changes
    path = folder / "model.safetensors"
    save_file({name: one for name, one in tensors.items() if one is not None}, path)
    if recorded["config"]:
        (folder / "config.json").write_text(json.dumps(recorded["config"]))
    return path


@pytest.mark.parametrize("case", [
    one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in RECORDED])
def test_features_are_those_that_torch_gave(case, tmp_path):
    recorded = RECORDED[case]
    size = recorded["size"]
    if case.startswith("transformers") and recorded["base"] in ("vit_tiny16", "mobilenet_v2"):
        (tmp_path / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    base = build_backbone(recorded["base"], size=size, weights=_file(tmp_path, case))
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3)).astype(np.float32)
    found = np.asarray(base(image[None])).reshape(-1, base.output.shape[-1])
    found = np.concatenate([found[0, :24], found[-1, -24:], found.mean(0)[:24]])
    expected = np.array(recorded["features"])
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-3)


def test_every_family_is_recorded():
    bases = {one["base"].partition("@")[0] for one in RECORDED.values()}
    for names in torch_names.ORIGINS:
        if names.origin == "EfficientNet-PyTorch" or "[5-7]" in names.bases:
            continue
        same = [other.rules for other in torch_names.ORIGINS
                if any(base in bases for base in BACKBONES
                       if other in torch_names.origins_of(base))]
        assert names.rules in same, names


def _refused(folder: Path, base: str, case: str, said: str, **changes: np.ndarray | None) -> None:
    path = _file(folder, case, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        build_backbone(base, size=32, weights=path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


RESNET = "transformers ResNet"


def test_a_file_of_another_network_is_refused_with_the_tensor_that_says_so(tmp_path):
    _refused(tmp_path, "vgg16", RESNET, r"no 'features\.0\.weight' \(timm or torchvision\)")
    _refused(tmp_path, "resnet101", RESNET, r"has no 'encoder\.stages\.2\.layers\.6")
    _refused(tmp_path, "densenet121", RESNET, "for densenet121, for which")
    _refused(tmp_path, "mobilenet_v2@0.75", "timm mobilenetv2_050", "is expected")


def test_a_tensor_too_many_too_few_misshapen_or_not_finite_is_refused(tmp_path):
    def refused(said: str, **changes: np.ndarray | None) -> None:
        _refused(tmp_path, "mobilenet_v2@0.5", "timm mobilenetv2_050", said, **changes)

    refused("1 of its tensors have no place, such as 'se.weight'",
            **{"se.weight": np.ones(3, np.float32)})
    refused(r"has no 'blocks\.3\.1\.bn2\.bias'", **{"blocks.3.1.bn2.bias": None})
    refused(r"\(3,\).*where.*\(1280,\)", **{"bn2.weight": np.ones(3, np.float32)})
    refused("not finite", **{"bn2.weight": np.full(1280, np.nan, np.float32)})


def test_a_network_whose_padding_only_config_json_tells_needs_it(tmp_path):
    path = _file(tmp_path, "timm mobilenetv2_050")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json, which must lie beside it"):
        build_backbone("mobilenet_v2@0.5", size=32, weights=path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "mobilenetv2_050",
                                                      "pretrained_cfg": {"mean": "half"}}))
    with pytest.raises(ModelError, match="got mean 'half'"):
        build_backbone("mobilenet_v2@0.5", size=32, weights=path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        build_backbone("mobilenet_v2@0.5", size=32, weights=path)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "pytorch_model.bin", "w.ckpt"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\2}.")
    with pytest.raises(ModelError, match=r"is a pickle.*safetensors\.torch\.save_file"):
        build_backbone("resnet50", size=32, weights=tmp_path / name)
