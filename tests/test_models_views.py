"""A model that averages views inside gives the mean over the views made outside."""

from __future__ import annotations

import numpy as np
import pytest
from export_models import int8, pictures, settle, small_model
from PIL import Image

from export.convert import onnx, tflite
from export.runtime.runtimes import load
from tl_keras.errors import ModelError, PlanError
from tl_keras.models.views import average_views, count_views, parse_views

SIDE, PART = 32, 28
CHOICES = [("flip",), ("crops",), ("flip", "crops")]


def explicit(batch, names):
    """The views made by Pillow, channel by channel in float."""
    views = [batch]
    for top, left in [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)] if "crops" in names else ():
        part = batch[:, top : top + PART, left : left + PART]
        planes = [
            [np.asarray(Image.fromarray(one[..., c]).resize((SIDE, SIDE), Image.BILINEAR))
             for c in range(3)]
            for one in part
        ]  # fmt: skip
        views.append(np.moveaxis(np.asarray(planes), 1, -1))
    return [*views, *(view[:, :, ::-1] for view in views if "flip" in names)]


@pytest.fixture(scope="module", params=["softmax", "sigmoid", "linear"])
def model(request):
    made = small_model(request.param, SIDE)
    settle(made, pictures(12, SIDE))
    return made


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_the_graph_gives_the_mean_over_explicit_views_in_every_format(model, names, tmp_path):
    batch = pictures(5, SIDE).astype(np.float32)
    views = explicit(batch, names)
    assert len(views) == count_views(names)
    expected = np.mean([np.asarray(model(view)) for view in views], axis=0)
    plain = np.asarray(model(batch))
    averaged = average_views(model, names)
    assert np.abs(plain - expected).max() > 1e-4
    np.testing.assert_allclose(averaged(batch), expected, atol=2e-5)
    for ending, convert in {"tflite": tflite.convert, "onnx": onnx.convert}.items():
        file = tmp_path / f"model.{ending}"
        file.write_bytes(convert(averaged))
        np.testing.assert_allclose(load(file).predict(batch), expected, atol=2e-5)


def test_an_int8_file_averages_views_too(tmp_path):
    made = small_model(size=SIDE)
    settle(made, pictures(12, SIDE))
    averaged, batch = average_views(made, ("flip",)), pictures(12, SIDE)
    (tmp_path / "model.tflite").write_bytes(int8(averaged, batch))
    given = load(tmp_path / "model.tflite").predict(batch)
    np.testing.assert_allclose(given, averaged(batch.astype("float32")), atol=0.02)


def test_words_for_views_are_read_and_others_refused():
    assert parse_views("Flip, crops,flip") == ("flip", "crops")
    assert parse_views("") == parse_views("none") == ()
    with pytest.raises(PlanError, match="unknown view 'flop'.*flip"):
        parse_views("flop")


def test_a_model_of_no_single_image_is_refused():
    import keras

    entry = keras.Input((8,))
    with pytest.raises(ModelError, match="views are for a model of one image"):
        average_views(keras.Model(entry, keras.layers.Dense(2)(entry)), ("flip",))


def test_no_views_leave_the_model_alone(model):
    assert average_views(model, ()) is model
