"""A decoder's file goes on with a text as the decoder itself does."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import save_bert_folder, save_gpt2_folder

from export.convert import decoder
from export.convert.decoder import continue_text, open_step, write_decoder
from tl_keras.errors import ExportError, ModelError, ParityError
from tl_keras.models.backbones import gpt2
from tl_keras.models.backbones.gpt2_step import build_step
from tl_keras.models.backbones.load import build_backbone

LENGTH, TEXT = 24, "in the movi"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    save_gpt2_folder(folder, deviation=0.5)
    return build_backbone(f"gpt2:{folder}", size=LENGTH), gpt2.read_tokenizer(folder)


def test_a_step_gives_the_scores_of_the_whole_text(made):
    model, tokenizer = made
    step, ids = build_step(model), tokenizer.encode(TEXT, LENGTH)
    cache = {name: np.zeros((1, 2, LENGTH, 16), np.float32) for name in ("keys", "values")}
    for place, token in enumerate(ids):
        given = {"token_ids": np.array([[token]]), "place": np.array([[place]]), **cache}
        scores, *kept = (np.asarray(one) for one in step(given))
        cache = dict(zip(("keys", "values"), kept, strict=True))
        whole = np.zeros((1, LENGTH), np.int32)
        whole[0, : place + 1] = ids[: place + 1]
        np.testing.assert_allclose(
            scores[0, 1:], gpt2.score_next(model, whole)[0, 1:], atol=1e-4)


@pytest.mark.parametrize("name", ["step.tflite", "step.onnx"])
def test_a_file_goes_on_with_a_text_as_the_decoder_does(made, name, tmp_path):
    model, tokenizer = made
    ids = tokenizer.encode(TEXT, LENGTH)
    run = open_step(write_decoder(model, tmp_path / name, ids))
    found = continue_text(run, ids, (2, LENGTH, 16), 6)
    assert tokenizer.decode(found) == gpt2.generate(model, tokenizer, TEXT, 6)
    assert len(continue_text(run, ids, (2, LENGTH, 16), 100)) == LENGTH - len(ids)


def test_a_file_whose_scores_differ_is_not_written(made, monkeypatch, tmp_path):
    model, tokenizer = made
    monkeypatch.setattr(decoder, "TOLERANCE", 0.0)
    with pytest.raises(ParityError, match="Nothing was written"):
        write_decoder(model, tmp_path / "step.onnx", tokenizer.encode(TEXT, LENGTH))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_decoder_is_refused(made, tmp_path):
    with pytest.raises(ExportError, match="ends in"):
        write_decoder(made[0], tmp_path / "step.bin", [1])
    save_bert_folder(tmp_path / "bert")
    with pytest.raises(ModelError, match="no decoder"):
        build_step(build_backbone(f"bert:{tmp_path / 'bert'}", size=LENGTH))
