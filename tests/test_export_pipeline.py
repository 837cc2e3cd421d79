from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile

import numpy as np
import pytest
from export_models import pictures, settle, small_model

from export import pipeline as stage
from export.bundle.golden import verify_bundle
from export.pipeline import ExportConfig
from export.quantize import search as searching
from export.quantize.search import Limits
from export.runtime.inspect import inspect_model
from export.runtime.runtimes import load
from export.source import Part
from tl_keras.data.samples import from_arrays
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError, GateError, ParityError
from tl_keras.tasks.classification import Multiclass

BOTH = ExportConfig(("tflite", "onnx"), fresh=False)
LITE = ExportConfig(("tflite",), fresh=False)


@pytest.fixture(scope="module")
def source():
    model = small_model()
    settle(model, pictures(32))
    truth = model.predict(pictures(20).astype("float32"), verbose=0).argmax(1)
    train = from_arrays(pictures(24), np.arange(24) % 3)
    keys = tuple(f"cats/{index}.jpg" for index in range(20))
    return stage.Source(
        model, ("a", "b", "c d"), {"image": pictures(20)}, keys, name="toy", labels=truth,
        data=Splits(train, train, None),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shipped(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy" / "export"
    orders = ExportConfig(("tflite", "onnx"), ("int8", "dynamic_int4"), Limits(max_drop=0.2), False,
                    "apache-2.0")  # fmt: skip
    return out, stage.export(source, orders, out)


def break_format(monkeypatch, name, convert):
    broken = dataclasses.replace(stage.FORMATS[name], convert=convert)
    monkeypatch.setitem(stage.FORMATS, name, broken)


def convert_another_model(source, model):
    """A faithful conversion, of a model with other weights."""
    import keras

    other = keras.models.clone_model(model)
    other.set_weights([-weight for weight in model.get_weights()])
    return stage.tflite.convert(other)


def test_every_format_and_recipe_leaves_in_one_bundle_and_nothing_else(shipped):
    out, made = shipped
    names = ["tflite-fp32", "tflite-int8", "tflite-dynamic_int4", "onnx-fp32", "onnx-int8"]
    assert [one.name for one in made] == names
    assert [path.name for path in out.parent.iterdir()] == ["export"]
    assert (out / "labels.txt").read_text() == "a\nb\nc d\n"
    assert len(list((out / "models").iterdir())) == len(names)


def test_a_recipe_that_one_format_lacks_is_noted_not_refused(shipped):
    manifest = json.loads((shipped[0] / "manifest.json").read_text())
    assert manifest["facts"]["notes"] == ["onnx has no recipe dynamic_int4: skipped."]


def test_the_license_is_in_the_card_where_a_hub_looks_for_it(shipped):
    yaml = pytest.importorskip("yaml")
    head = (shipped[0] / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1]
    assert yaml.safe_load(head)["license"] == "apache-2.0"


def test_a_license_that_no_hub_knows_how_to_read_is_refused_before_any_work(source, tmp_path):
    with pytest.raises(ExportError, match="'Apache License 2.0'; expected .* such as apache-2.0"):
        config = ExportConfig(("onnx",), license="Apache License 2.0")
        stage.export(source, config, tmp_path / "out")


def test_the_manifest_describes_the_very_files_that_were_compared(shipped, source):
    out, made = shipped
    truth = source.model.predict(source.inputs["image"].astype("float32"), verbose=0)
    for one in made:
        file = out / "models" / f"{one.name}.{one.format}"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == one.sha256
        given = load(file).predict(source.inputs["image"])
        assert one.verdict.max_difference == pytest.approx(np.abs(given - truth).max(), abs=1e-6)
        assert one.verdict.agreement == (given.argmax(1) == truth.argmax(1)).mean()
        assert one.latencies[-1].median_ms > 0


def test_files_of_every_kind_of_ends_and_weights_are_shipped_and_answer_as_expected(
    source, tmp_path
):
    names = ("int8_in_out", "int4_gptq", "int8_uint8_in", "int8_symmetric", "weight_int4_block32")
    orders = ExportConfig(("tflite", "onnx"), names, Limits(max_drop=1.0), False)
    made = {one.name: one for one in stage.export(source, orders, tmp_path / "out")}
    assert (made["tflite-int8_in_out"].input_dtype, made["tflite-int8_in_out"].output_dtype) == (
        "int8", "int8",
    )  # fmt: skip
    assert made["onnx-int8_uint8_in"].input_dtype == "uint8"
    assert "3 layers" in made["tflite-int4_gptq"].attempts[0].note
    assert verify_bundle(tmp_path / "out").passed
    listed = json.loads((tmp_path / "out" / "manifest.json").read_text())["variants"]
    assert {one["name"]: one["input_dtype"] for one in listed} == {
        name: one.input_dtype for name, one in made.items()
    }


def test_an_int8_file_takes_bytes_as_they_are(shipped):
    from ai_edge_litert.interpreter import Interpreter

    reader = Interpreter(model_path=str(shipped[0] / "models" / "tflite-int8.tflite"))
    details = reader.get_input_details()[0]
    assert (details["dtype"], details["quantization"]) == (np.uint8, (1.0, 0))
    assert reader.get_output_details()[0]["dtype"] == np.float32


def test_the_default_is_no_file_that_is_slower_than_float(shipped):
    out, made = shipped
    default = json.loads((out / "manifest.json").read_text())["default"]
    chosen = next(one for one in made if one.name == default)
    assert not any("slower" in note for note in chosen.notes)


def test_an_artifact_with_other_answers_fails_loudly_and_nothing_is_left(
    source, monkeypatch, tmp_path
):
    break_format(monkeypatch, "tflite", convert_another_model)
    with pytest.raises(ParityError, match=r"model\.tflite does not give .* cats/\d+\.jpg"):
        stage.export(source, BOTH, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_reported_comes_from_other_pictures_than_what_is_chosen_by(source, tmp_path):
    deciding = from_arrays(pictures(60)[20:], np.arange(40) % 3)
    part = Part("training images", deciding, False)
    parted = dataclasses.replace(source, parts=(part,), origin="test images")
    config = ExportConfig(("tflite",), ("int8",), Limits(0.2, train=False), fresh=False)
    plain, small = stage.export(parted, config, tmp_path / "out")
    assert small.verdict.images == plain.verdict.images == {"test images": 20}
    assert small.facts["chosen_on"]["images"] == {"training images": 40}
    truth, given = (
        load_answers(one, deciding.items) for one in (source.model, tmp_path / "out/models")
    )
    difference = small.facts["chosen_on"]["max_difference"]
    assert difference == pytest.approx(np.abs(truth - given).max(), abs=1e-6)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"] == {
        "figures": {"test images": 20}, "choice": {"training images": 40},
        "calibration": {"training images": 24},
    }  # fmt: skip
    card = " ".join((tmp_path / "out/README.md").read_text().split())
    said = "on 20 test images. Quantized files were chosen by 40 training images and calibrated"
    assert said in card


def load_answers(model, shown):
    if hasattr(model, "predict"):
        return model.predict(shown.astype("float32"), verbose=0)
    return load(model / "tflite-int8.tflite").predict(shown)


def test_a_file_that_too_few_pictures_speak_for_is_warned_of_and_never_the_default(
    source, tmp_path
):
    config = ExportConfig(("tflite",), ("fp16",), Limits(0.01), fresh=False)
    plain, half = stage.export(source, config, tmp_path / "out")
    assert plain.proven and not half.proven
    assert "20 images are too few to tell a loss of 1 points from one of 2" in half.notes[0]
    assert json.loads((tmp_path / "out/manifest.json").read_text())["default"] == "tflite-fp32"
    many = ExportConfig(("tflite",), ("fp16",), Limits(0.2), fresh=False)
    assert stage.export(source, many, tmp_path / "other")[1].proven


def test_a_file_that_other_pictures_refute_is_not_shipped(source, monkeypatch, tmp_path):
    """What the search found good is another file on the disk."""
    deciding = Part("training images", from_arrays(pictures(60)[20:], np.arange(40) % 3), False)
    parted = dataclasses.replace(source, parts=(deciding,), labels=None, origin="test images")
    search = searching.QuantizationSearch
    monkeypatch.setattr(search, "run", spoil(search.run))
    config = ExportConfig(("tflite",), ("fp16",), Limits(0.01, train=False), fresh=False)
    with pytest.raises(GateError, match="passed on the samples that decide.*20 test images"):
        stage.export(parted, config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def spoil(run):
    def spoiled(search):
        import keras

        found = run(search)
        other = keras.models.clone_model(search.task.source.model)
        other.set_weights([-weight for weight in search.task.source.model.get_weights()])
        search.task.path.write_bytes(stage.tflite.convert(other))
        return found

    return spoiled


def test_a_quantized_file_that_loses_too_much_leaves_no_bundle(source, monkeypatch, tmp_path):
    wrong = dataclasses.replace(source, labels=(source.labels + 1) % 3)
    limits = Limits(max_drop=0.0, train=False)
    first = searching.STRATEGIES[:1]
    monkeypatch.setattr(searching, "STRATEGIES", first)
    monkeypatch.setattr(Multiclass, "agree", lambda task, truth, given: given[:, 0] > 2)
    unlabelled = dataclasses.replace(wrong, labels=None)
    with pytest.raises(GateError, match=r"model-int8\.tflite loses more than 0\.00 points"):
        stage.export(unlabelled, ExportConfig(("tflite",), ("int8",), limits), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_survives_a_failure(source, shipped, monkeypatch, tmp_path):
    import shutil

    out = shutil.copytree(shipped[0], tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    break_format(monkeypatch, "tflite", convert_another_model)
    with pytest.raises(ParityError):
        stage.export(source, LITE, out, force=True)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_file_that_no_runtime_reads_is_not_shipped(source, monkeypatch, tmp_path):
    break_format(monkeypatch, "onnx", lambda source, model: b"cut short")
    with pytest.raises(ExportError, match="cannot be loaded by ONNX Runtime"):
        stage.export(source, ExportConfig(("onnx",)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_only_by_force(source, tmp_path):
    stage.export(source, LITE, tmp_path / "out")
    with pytest.raises(ExportError, match="exists already.*--force"):
        stage.export(source, LITE, tmp_path / "out")
    stage.export(dataclasses.replace(source, name="newer"), LITE, tmp_path / "out", force=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["name"] == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_no_bundle_is_never_replaced(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="no bundle"):
        stage.export(source, LITE, tmp_path, force=True)
    assert (tmp_path / "thesis.tex").exists()
    # Another program's manifest, a file, and a zip of something else.
    (tmp_path / "manifest.json").write_text('{"name": "my page"}')
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach.jpg", "x")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out in (tmp_path, *before):
        with pytest.raises(ExportError, match="no bundle"):
            stage.export(source, LITE, out, force=True)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (ExportConfig(("onxx",)), "onxx.*tflite, onnx"),
        (ExportConfig(()), "No format"),
        (ExportConfig(("onnx",), ("int9",)), "Unknown recipe 'int9' for onnx.*Did you mean int8"),
        (ExportConfig(("onnx",), ("dynamic_int4",)), "There is one for tflite"),
    ],
)
def test_what_is_unknown_or_missing_is_refused_with_the_nearest_names(
    source, tmp_path, orders, message
):
    with pytest.raises(ExportError, match=message):
        stage.export(source, orders, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_utf8_leave_as_escapes(source, tmp_path):
    names = ("caf\udce9", "b", "c\nd")
    odd = dataclasses.replace(source, class_names=names, name="run\udce9")
    stage.export(odd, BOTH, tmp_path / "out")
    assert verify_bundle(tmp_path / "out").passed
    assert (tmp_path / "out/labels.txt").read_bytes() == b"caf\\udce9\nb\nc d\n"
    for format_ in ("tflite", "onnx"):
        model = tmp_path / f"out/models/{format_}-fp32.{format_}"
        kept = {"tflite": ("caf\\udce9", "b", "c d"), "onnx": names}
        assert tuple(inspect_model(model).labels) == kept[format_]


def test_a_destination_that_cannot_be_made_is_refused_before_any_work(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is no folder.*--out"):
        stage.export(source, LITE, tmp_path / "file" / "out")


def test_progress_names_each_step(source, tmp_path):
    seen = []
    stage.export(source, LITE, tmp_path / "x.zip", progress=lambda *step: seen.append(step))
    words = list(dict.fromkeys(word for word, _, _ in seen))
    assert any(word.startswith("answers with") for word in words[3:])
    assert words[:3] == ["asking Keras", "converting to tflite", "asking model.tflite"]
    assert (tmp_path / "x.zip").read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("a", "b")}, "3 outputs and 2 class names"),
        (
            {"inputs": {"image": np.zeros((20, 8, 8, 3), np.uint8)}},
            r"\(20, 8, 8, 3\).*\(20, 16, 16, 3\)",
        ),
        ({"keys": ("one",)}, "1 keys"),
        ({"labels": np.zeros(3)}, "3 labels for 20 samples"),
        ({"inputs": {"image": np.zeros((0, 16, 16, 3), np.uint8)}, "keys": ()}, "no sample"),
    ],
)
def test_a_source_whose_parts_do_not_belong_together_is_refused(source, change, message):
    with pytest.raises(ExportError, match=message):
        dataclasses.replace(source, **change)


def test_a_model_with_a_constant_inside_and_automatic_names_leaves_in_every_format(tmp_path):
    import keras
    import onnx

    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3))
    x = keras.applications.resnet.preprocess_input(image)
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[900.0, 1000.0, 1100.0])(x)
    x = keras.layers.Conv2D(8, 3, name="conv2d_mean", activation="relu")(x)
    # What Keras calls a squeeze and excitation that nobody has named.
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="global_average_pooling2d_1")(x)
    x = keras.layers.Multiply()([x, keras.layers.Dense(8, "sigmoid", name="conv2d")(gate)])
    x = keras.layers.GlobalAveragePooling2D(name="conv2d_mean_mean")(x)
    model = keras.Model(image, keras.layers.Dense(3, "softmax")(x))
    train = from_arrays(pictures(24), np.arange(24) % 3)
    keys = tuple(map(str, range(20)))
    data = Splits(train, train, None)
    source = stage.Source(model, ("a", "b", "c"), {"image": pictures(20)}, keys, data=data)
    config = ExportConfig(("tflite", "onnx"), ("int8",), Limits(0.2, train=False), fresh=False)
    made = stage.export(source, config, tmp_path / "out")
    assert len(made) == 4
    for name in ("onnx-fp32", "onnx-int8"):
        graph = onnx.load(tmp_path / f"out/models/{name}.onnx").graph
        assert [tensor.name for tensor in graph.input] == ["image"]


def test_an_onnx_file_names_no_operators_that_it_has_none_of(shipped):
    import onnx

    for name in ("onnx-fp32", "onnx-int8"):
        file = onnx.load(shipped[0] / f"models/{name}.onnx")
        assert {one.domain for one in file.opset_import} == {one.domain for one in file.graph.node}
        assert {entry.key for entry in file.metadata_props} == {"input", "class_names"}
        assert file.producer_name == "tl_keras"
