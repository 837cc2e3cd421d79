from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from export_models import int8, pictures, small_model

from export.bundle.metadata import METADATA, add_metadata, format_labels
from export.convert import tflite
from export.runtime.runtimes import load
from export.source import Signature
from tl_keras import tasks
from tl_keras.errors import ExportError
from tl_keras.modalities.base import InputSpec

NAMES = ["red flower", "أخضر", "c\nd"]


def described(contents, task="classes"):
    spec = InputSpec((16, 16, 3), "uint8", "RGB, 0..255")
    signature = Signature({"image": spec}, 3, "probabilities")
    return add_metadata(contents, NAMES, signature, tasks.get(task), name="toy")


@pytest.fixture(scope="module")
def plain():
    return {"float": tflite.convert(small_model()), "int8": int8(small_model(), pictures(8))}


@pytest.fixture(scope="module", params=["float", "int8"])
def pair(request, plain):
    contents = plain[request.param]
    return contents, described(contents)


def predict(contents, folder, batch):
    (folder / "model.tflite").write_bytes(contents)
    return load(folder / "model.tflite").predict(batch)


def test_a_file_with_metadata_answers_as_before(pair, tmp_path):
    before, after = (predict(contents, tmp_path, pictures(4)) for contents in pair)
    assert np.array_equal(before, after)


def test_weights_keep_their_alignment(pair):
    before, after = pair
    assert after.index(before) % 16 == 0


def test_the_same_arguments_give_the_same_bytes(pair):
    before, after = pair
    assert described(before) == after


def test_labels_lie_behind_the_model_uncompressed_in_output_order(pair):
    with zipfile.ZipFile(io.BytesIO(pair[1])) as archive:
        (file,) = archive.infolist()
        assert (file.filename, file.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(file).decode() == "red flower\nأخضر\nc d\n"


def test_other_metadata_of_the_converter_stay(pair):
    from ai_edge_litert.schema_py_generated import Model

    def entries(contents):
        model = Model.GetRootAs(contents)
        listed = [model.Metadata(index) for index in range(model.MetadataLength())]
        return {e.Name().decode(): model.Buffers(e.Buffer()).DataAsNumpy() for e in listed}

    before, after = (entries(contents) for contents in pair)
    assert set(before) and set(after) == {*before, METADATA}
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_metadata_start_where_their_reader_may_look_for_floats(pair):
    described = pair[1].index(b"M001") - 4
    assert described % 16 == 0


def test_a_file_of_numbers_says_regression_and_no_scores(plain):
    contents = described(plain["float"], "values")
    assert b"Regression. Made by" in contents and b"numbers in the units" in contents
    assert b"lassif" not in contents.removeprefix(plain["float"])


def test_a_second_helping_is_refused(pair):
    with pytest.raises(ExportError, match="metadata already"):
        described(pair[1])


def test_what_is_no_tflite_file_is_refused():
    with pytest.raises(ExportError, match=r"expected a \.tflite file"):
        described(b"PK\3\4 and so on")


def test_every_name_takes_one_line_even_an_empty_one():
    assert format_labels(["a\nb", " ", "c\u2028d", "e\r\n"]) == "a b\n?\nc d\ne\n"
