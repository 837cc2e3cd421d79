"""The list of all bases: what they cost, and whether their weights are here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tl_keras.analysis.candidates import parse_candidates
from tl_keras.cli.app import app
from tl_keras.errors import ModelError
from tl_keras.models.backbones import packages
from tl_keras.models.backbones.catalog import catalog, entry_of
from tl_keras.models.backbones.costs import COSTS, Costs, count_costs
from tl_keras.models.backbones.load import backbone_names, build_backbone, describe
from tl_keras.models.backbones.sources import SOURCES
from tl_keras.models.backbones.weights import weights_here

# Parameters and multiplications in millions, as the papers and timm give them, the classifier of
# 1,000 classes included.
PUBLISHED = {
    "vgg16": (138.4, 15_470), "resnet50": (25.6, 3_860), "mobilenet_v2": (3.5, 300),
    "mobilenet_v3_large": (5.48, 219), "efficientnet_b0": (5.3, 390),
    "convnext_tiny": (28.6, 4_470), "densenet121": (8.0, 2_830),
    "xception": (22.9, 8_400), "inception_v3": (23.8, 5_710), "vit_tiny16": (5.7, 1_260),
}  # fmt: skip
# What their classifiers take of it.
HEADS = {
    "vgg16": 123.6, "resnet50": 2.05, "mobilenet_v2": 1.28, "mobilenet_v3_large": 2.51,
    "efficientnet_b0": 1.28, "convnext_tiny": 0.77,
    "densenet121": 1.02, "xception": 2.05, "inception_v3": 2.05, "vit_tiny16": 0.19,
}  # fmt: skip
# What hooks on the convolutions of timm's networks count without the classifier, 224 pixels.
COUNTED_BY_TORCH = {
    "efficientnet_lite0": 383_907_552, "mobilenet_v2": 299_494_272,
    "mobilenet_v3_large": 214_080_960, "efficientnet_b0": 384_534_752,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED_BY_TORCH)
def test_multiplications_are_those_that_torch_does(name):
    assert COSTS[name][1] == COUNTED_BY_TORCH[name]


def test_every_base_has_its_costs():
    assert set(backbone_names()) <= set(COSTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones_less_the_classifier(name):
    parameters, products = PUBLISHED[name]
    costs = Costs(*COSTS[name])
    assert costs.parameters / 1e6 == pytest.approx(parameters - HEADS[name], rel=0.02, abs=0.06)
    assert costs.multiply_adds / 1e6 == pytest.approx(products - HEADS[name], rel=0.05)
    assert costs.megabytes == pytest.approx(4 * costs.parameters / 1e6)


@pytest.mark.parametrize("name", ["small_resnet", "efficientnet_lite0", "vit_tiny16"])
def test_costs_are_those_of_the_base_as_it_is_built(name):
    counted = count_costs(build_backbone(name, weights=None))
    assert (counted.parameters, counted.multiply_adds) == COSTS[name]


@pytest.mark.parametrize(("file", "name"), [
    ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "vgg16"),
    ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "resnet50"),
    ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "resnet50_v2"),
    ("mobilenet_1_0_224_tf_no_top.h5", "mobilenet"),
    ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "mobilenet_v2"),
    ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5", "mobilenet_v2@0.35"),
    ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "mobilenet_v3_small"),
    ("efficientnetb0_notop.h5", "efficientnet_b0"),
    ("efficientnetv2-b0_notop.h5", "efficientnet_v2_b0"),
    ("convnext_tiny_notop.h5", "convnext_tiny"),
    ("nasnet_mobile_no_top.h5", "nasnet_mobile"),
])  # fmt: skip
def test_what_keras_downloaded_is_here_and_nothing_else_is(file, name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file).touch()
    (tmp_path / "models" / file.replace("notop.h5", ".h5").replace("no_top", "")).touch()
    here = [one for one in (*backbone_names(), "mobilenet_v2@0.35")
            if weights_here(describe(one)) == "downloaded"]
    assert here == [name]


def test_a_list_tells_what_is_installed_shipped_placed_and_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, package in packages.PACKAGES.items():
        monkeypatch.setitem(packages.PACKAGES, name, replace(package, module=f"no_{name}"))
    assert entry_of("efficientnet_lite0").way == "tl_keras[imagenet]"
    file = tmp_path / "no_efficientnet_lite0" / packages.PACKAGES["efficientnet_lite0"].file
    file.parent.mkdir(parents=True)
    (tmp_path / "no_efficientnet_lite0" / "__init__.py").touch()
    assert entry_of("efficientnet_lite0").here == ""
    file.touch()
    assert entry_of("efficientnet_lite0").here == "installed"
    assert entry_of("small_resnet").here == "shipped"
    assert entry_of("vit_tiny16").way == "from a file"
    assert entry_of("resnet50").way == "download"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vit_tiny16_imagenet.safetensors").touch()
    assert entry_of("vit_tiny16").here == "placed"
    listed = json.loads(CliRunner().invoke(app, ["bases", "--here", "--json"]).stdout)
    images = [one["name"] for one in listed if one["modality"] == "image"]
    assert images == ["efficientnet_lite0", "vit_tiny16", "small_resnet"]
    assert [one.name for one in parse_candidates("resnet50,here")] == ["resnet50", *images]


def test_all_sources_are_listed():
    names = [one.name for one in catalog()]
    assert len(names) == len(set(names))
    assert {f"{one.word}:{one.place}" for one in SOURCES.values()} <= set(names)
    shown = CliRunner().invoke(app, ["bases", "lite0"], env={"COLUMNS": "200"}).stdout
    for said in ("efficientnet_lite0", "3.4", "14", "0.38", "Apache-2.0"):
        assert said in shown


@pytest.mark.parametrize(("word", "base", "size", "at", "weights", "name"), [
    ("hub:/m/net", "hub:/m/net", None, "last", "default", "hub:net"),
    ("hub:/m/net:96:top=none", "hub:/m/net", 96, "top", "none", "hub:net:96:top=none"),
    ("hub:https://tfhub.dev/g/x/1?tf-hub-format=a", "hub:https://tfhub.dev/g/x/1?tf-hub-format=a",
     None, "last", "default", "hub:1?tf-hub-format=a"),
    ("resnet50:64=none", "resnet50", 64, "last", "none", "resnet50:64=none"),
])  # fmt: skip
def test_candidates_may_be_of_any_source(word, base, size, at, weights, name):
    (found,) = parse_candidates(word)
    assert (found.base, found.size, found.at, found.weights, found.name) == (
        base, size, at, weights, name)


def test_a_candidate_of_a_source_without_a_place_is_refused():
    with pytest.raises(ModelError, match="expected hub:"):
        parse_candidates("hub:")
