"""Bases from other places than the registry are named by a word, a colon and a place."""

from __future__ import annotations

import pytest

from tl_keras.errors import ModelError
from tl_keras.models.backbones.sources import SOURCES, find_source, modality_of


def test_a_place_may_hold_colons_and_the_word_any_case():
    source, place = find_source("BERT:/a/b:c")
    assert (source.word, source.modality, place) == ("bert", "text", "/a/b:c")


@pytest.mark.parametrize("name", ["vgg16", "/data/x:y", "C:/nets/a.keras", "mobilenet_v2@0.5"])
def test_a_name_of_the_registry_or_a_path_is_no_source(name):
    assert find_source(name) is None and modality_of(name) == "image"


@pytest.mark.parametrize(("name", "part"), [("bert", "bert:FOLDER"), ("bert:", "bert:FOLDER"),
                                            ("nowhere:x", "known are: ")])  # fmt: skip
def test_a_source_that_is_unknown_or_names_no_place_is_refused(name, part):
    with pytest.raises(ModelError, match=part):
        find_source(name)


def test_only_a_source_of_installed_weights_stands_alone():
    alone = [word for word, source in SOURCES.items() if source.alone]
    assert alone == ["minilm"] and find_source("minilm")[1] == ""


def test_what_a_base_that_is_gone_was_shown_is_not_guessed():
    from tl_keras.runs.config import RunConfig

    source, _ = find_source("keras_hub:/nowhere/at/all")
    assert source.modality == "" and modality_of("keras_hub:/nowhere/at/all") == "image"
    for task in ("text", "classes"):  # a run of either opens
        RunConfig.of("data", "keras_hub:/nowhere/at/all", task=task, size=32)
