from __future__ import annotations

import json
import time

import numpy as np
import pytest
from bundle_models import FACTS
from PIL import Image
from typer.testing import CliRunner

from export.bundle.write import write_bundle
from export.cli.app import app
from export.runtime.bench import as_record, bench, interleaved
from export.runtime.runtimes import Runtime, default_threads, load
from tl_keras.errors import ExportError


@pytest.fixture(scope="module")
def models(toys):
    return {variant.name: variant.path for variant in toys[1]}


class Sleepy(Runtime):
    """Sleeps before it answers, and writes down when it was called."""

    shape = (4, 4, 3)

    def __init__(self, name, seconds, diary):
        self.name, self.seconds, self.diary = name, seconds, diary

    def _run(self, batch):
        self.diary.append(self.name)
        time.sleep(self.seconds)
        return np.zeros((len(batch), 2))


def test_models_take_turns_and_each_is_timed_by_itself():
    diary = []
    runtimes = {"a": Sleepy("a", 0.002, diary), "b": Sleepy("b", 0.006, diary)}
    times = interleaved(runtimes, 4)
    assert diary[-8:] == ["a", "b"] * 4
    assert len(diary) == 18, "five answers of each warm up"
    assert times["a"].shape == (4,)
    assert 2 <= np.median(times["a"]) < 6 <= np.median(times["b"])


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
    answer = runtime.prepared(picture)
    assert np.array_equal(np.asarray(answer()), runtime.predict(picture))
    assert runtime._interpreter.get_tensor(runtime._input["index"]).dtype == np.uint8


def test_a_row_tells_the_files_size(models):
    (row,) = as_record(models, bench({"onnx-fp32": models["onnx-fp32"]}, threads=[1], rounds=2))
    assert row["bytes"] == models["onnx-fp32"].stat().st_size
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": [0]}])
def test_numbers_below_one_are_refused(models, wrong):
    with pytest.raises(ExportError, match="at least one"):
        bench(models, **wrong)


def test_no_model_is_refused():
    with pytest.raises(ExportError, match="0 models"):
        bench({})


def test_the_command_makes_a_table_json_and_a_plot_of_a_bundle(toys, tmp_path):
    bundle = write_bundle(*toys, tmp_path / "b.zip", default="tflite-fp32", facts=FACTS)
    words = [bundle, "--rounds", 3, "--json", tmp_path / "rows.json", "--plot", tmp_path / "p.png"]
    result = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert result.exit_code == 0, result.output
    assert all(variant.name in result.stdout for variant in toys[1])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["model"] for row in rows} == {variant.name for variant in toys[1]}
    assert min(Image.open(tmp_path / "p.png").size) > 200


def test_a_bundle_and_a_model_at_once_are_one_message_and_exit_code_2(models, tmp_path):
    result = CliRunner().invoke(app, ["bench", str(tmp_path), str(models["onnx-fp32"])])
    assert result.exit_code == 2
    assert "one bundle, or model files alone" in " ".join(result.stderr.split())
