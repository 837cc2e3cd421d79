from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundle_models import FACTS
from PIL import Image
from typer.testing import CliRunner

from export.bundle.write import write_bundle
from export.cli.app import app
from export.runtime import runtimes
from export.runtime.bench import as_record, bench, take_turns, try_out
from export.runtime.runtimes import default_threads, load
from export.variant import Latency, Variant, Verdict, choose_default
from tl_keras.errors import ExportError


@pytest.fixture(scope="module")
def models(toys):
    return {variant.name: variant.path for variant in toys[1]}


def test_models_take_turns_and_each_is_timed_by_itself():
    diary = []

    def answering(name, milliseconds):
        return lambda: diary.append(name) or milliseconds

    times = take_turns({"a": answering("a", 2.0), "b": answering("b", 6.0)}, 4)
    assert diary[-8:] == ["a", "b"] * 4
    assert len(diary) == 18, "five answers of each warm up"
    assert {name: row.tolist() for name, row in times.items()} == {"a": [2.0] * 4, "b": [6.0] * 4}


def test_a_keras_file_is_timed_without_its_imports_and_with_its_own_threads(toys, tmp_path):
    toys[0].model.save(tmp_path / "toy.keras")
    found = bench({"toy": tmp_path / "toy.keras"}, threads=(1, 2), rounds=20)["toy"]
    assert [(one.runtime, one.threads) for one in found] == [("Keras", 1), ("Keras", 2)]
    for one in found:
        assert one.median_ms < 5, "model.predict alone takes tens of milliseconds"
        assert one.first_ms < 2500, "importing Keras alone takes as long"


def test_threads_of_tensorflow_are_not_dropped_in_silence(toys, tmp_path):
    toys[0].model.save(tmp_path / "toy.keras")
    with pytest.raises(ExportError, match="cannot be set to 3 any more"):
        load(tmp_path / "toy.keras", 3)


def test_a_model_that_ends_its_process_is_named(models, tmp_path):
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(models["tflite-fp32"].read_bytes()[:2000])
    with pytest.raises(ExportError, match=r"cut\.tflite (does not answer|cannot be loaded)"):
        bench({"cut": cut}, threads=[1])


def test_a_runtime_that_crashes_does_so_in_a_process_of_its_own_and_is_named(
    models, tmp_path, monkeypatch
):
    (tmp_path / "onnxruntime.py").write_text("import os; os.abort()")
    try_out(list(models.values()))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"onnx-fp32\.onnx crashes its runtime \(Aborted"):
        try_out(list(models.values()))


@pytest.mark.parametrize("flags", ["flags: avx2 fma", "flags: avx2 avx512_vnni", "avx_vnni"])
def test_whole_numbers_are_not_added_in_16_bits_where_those_overflow(
    models, tmp_path, monkeypatch, flags
):
    (tmp_path / "cpuinfo").write_text(flags)
    found = runtimes.adds_in_16_bits(tmp_path / "cpuinfo")
    assert found == ("vnni" not in flags)
    monkeypatch.setattr(runtimes, "adds_in_16_bits", lambda: found)
    options = load(models["onnx-fp32"])._session.get_session_options()
    if found:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="session.x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")


def test_every_model_is_measured_with_each_number_of_threads_in_a_fresh_process(models):
    found = bench(models, threads=(1, 2), rounds=5)
    assert list(found) == list(models)
    for name, latencies in found.items():
        assert [latency.threads for latency in latencies] == [1, 2]
        word = "LiteRT" if name.startswith("tflite") else "ONNX Runtime"
        assert {latency.runtime for latency in latencies} == {word}
        for latency in latencies:
            assert 0 < latency.median_ms <= latency.p90_ms
            assert latency.first_ms > latency.median_ms
            # This very process holds TensorFlow, of which the fresh one has nothing.
            assert 10 < latency.peak_mb < 200


def test_one_and_all_threads_are_measured_by_default(models):
    found = bench({"a": models["onnx-fp32"]}, rounds=2, fresh=False)
    expected = list(dict.fromkeys([1, default_threads()]))
    assert [latency.threads for latency in found["a"]] == expected
    assert {latency.first_ms for latency in found["a"]} == {None}


def test_rounding_to_uint8_is_not_timed_as_the_models_work(models):
    runtime = load(models["tflite-int8"])
    picture = np.random.default_rng(3).integers(0, 256, (1, 16, 16, 3), np.uint8)
    answer = runtime.prepare(picture)
    assert np.array_equal(np.asarray(answer()), runtime.predict(picture))
    assert runtime._interpreter.get_tensor(runtime._taken["image"]["index"]).dtype == np.uint8


def test_a_row_tells_the_files_size(models):
    (row,) = as_record(models, bench({"onnx-fp32": models["onnx-fp32"]}, threads=[1], rounds=2))
    assert row["bytes"] == models["onnx-fp32"].stat().st_size
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": [0]}, {"threads": [1, 100_000]}])
def test_numbers_that_no_machine_has_are_refused(models, wrong):
    with pytest.raises(ExportError, match="expected (at least one|1 to 256)"):
        bench(models, **wrong)


def test_no_model_is_refused():
    with pytest.raises(ExportError, match="0 models"):
        bench({})


def test_the_command_makes_a_table_json_and_a_plot_of_a_bundle(toys, tmp_path):
    bundle = write_bundle(*toys, tmp_path / "b.zip", default="tflite-fp32", facts=FACTS)
    words = ["bench", str(bundle), "--rounds", "3", "--plot", str(tmp_path / "p.png")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert all(variant.name in result.stdout for variant in toys[1])
    rows = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert {row["model"] for row in rows} == {variant.name for variant in toys[1]}
    assert min(Image.open(tmp_path / "p.png").size) > 200


def test_a_bundle_and_a_model_at_once_are_one_message_and_exit_code_2(models, tmp_path):
    result = CliRunner().invoke(app, ["bench", str(tmp_path), str(models["onnx-fp32"])])
    assert result.exit_code == 2
    assert "one bundle, or model files alone" in " ".join(result.stderr.split())


def timed(recipe, milliseconds, size, spread=0.1, proven=True):
    latency = Latency("LiteRT", 2, milliseconds, milliseconds * (1 + spread), rounds=30)
    return Variant(
        "tflite", recipe, Path("x"), "float32", "float32", size, "", VERDICT, (), (), (latency,),
        proven=proven,
    )  # fmt: skip


VERDICT = Verdict(9, None, None, None, None, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([("int8", 5.0, 20)], "int8"),
        ([("fp16", 9.9, 50), ("int8", 9.8, 20)], "int8"),
        ([("fp16", 9.8, 50), ("int8", 10.1, 20)], "int8"),  # as fast: the smaller
        ([("fp16", 8.0, 50), ("int8", 10.1, 20)], "fp16"),
        ([("int8", 11.0, 20)], "fp32"),  # slower than float
        ([("int8", 11.0, 20, 2.0)], "int8"),  # by no more than noise
        ([("int8", 5.0, 20, 0.1, False)], "fp32"),  # too few images speak for it
    ],
)
def test_the_default_is_the_fastest_by_more_than_noise_else_the_smaller_file(others, chosen):
    made = [timed("fp32", 10.0, 100), *(timed(*one) for one in others)]
    assert choose_default(made) == f"tflite-{chosen}"


def test_a_single_variant_is_the_default_proven_or_not():
    assert choose_default([timed("prune", 10.0, 100, proven=False)]) == "tflite-prune"
