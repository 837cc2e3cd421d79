"""A new modality and a new task, each in a few lines of one file, go the whole way."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from tl_keras import modalities, tasks
from tl_keras.errors import DataError
from tl_keras.modalities.base import InputSpec, Modality
from tl_keras.runs.config import RunConfig
from tl_keras.tasks.base import read_numbers
from tl_keras.tasks.regression import Regression


class RowReader:
    """Reads rows of numbers as float32, and ids beside them where the model wants two inputs."""

    def __init__(self, samples, specs, augment, seed):
        self.samples, self.specs, self.seed = samples, specs, seed
        self.varied = augment == "noise"

    def __len__(self):
        return len(self.samples.keys)

    def read(self, indices, views=0):
        rows = np.stack([read_row(self.samples.items[index]) for index in indices])
        seen = np.broadcast_to(views, len(rows))
        for row, index, view in zip(rows, indices, seen, strict=True):
            if view:
                row[:8] += np.random.default_rng([self.seed, index, view]).normal(0, 0.1, 8)
        arrays = rows[:, :8].astype(np.float32), rows[:, 8:].astype(np.int32)
        return dict(zip(self.specs, arrays))


def read_row(path):
    try:
        return np.array([float(word) for word in Path(path).read_text().split()])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no row of numbers: {error}") from error


class Rows(Modality):
    """Eight numbers and two small ids, as text."""

    name, noun, suffixes, default_augment = "row", "row", frozenset({"row"}), "noise"
    preparation = "eight numbers and two ids, separated by blanks"

    def specs(self, model):
        kinds = [("numbers", "float32", "measured"), ("ids", "int32", "0..9")]
        return {
            name: InputSpec(tuple(tensor.shape[1:]), dtype, values)
            for (name, dtype, values), tensor in zip(kinds, model.inputs)
        }

    def reader(self, samples, specs, augment="none", seed=0):
        return RowReader(samples, specs, augment, seed)

    def check_augment(self, text):
        if text != "noise":
            super().check_augment(text)

    def digest(self, item):
        return super().digest(read_row(item))


class Counts(Regression):
    """How many: whole numbers from 0, learned as the mean of a Poisson distribution."""

    name, kind, activation = "counts", "count-regression", "softplus"
    output_name, output_values, plural = "rate", "expected counts, above 0", "counts"

    def parse(self, cells, where):
        rows = [read_numbers(cell, where(row)) for row, cell in enumerate(cells)]
        if any(len(row) != 1 or row[0] < 0 or row[0] % 1 for row in rows):
            raise DataError(f"{where(0)}: expected one whole number from 0 in each row")
        return ("count",), np.array(rows, np.float32)

    def scale(self, labels):
        return None

    def loss_and_metrics(self, label_smoothing=0.0):
        import keras

        return keras.losses.Poisson(), [keras.metrics.Poisson(name="plain_loss")]

    def sample_losses(self, outputs, targets):
        return (outputs - targets * np.log(np.maximum(outputs, 1e-7))).mean(1)


@pytest.fixture(scope="module", autouse=True)
def registered():
    modalities.register(Rows())
    tasks.register(Counts())
    yield
    del modalities.MODALITIES.made["row"], tasks.TASKS.made["counts"]


def rows(folder, count=100, seed=0):
    """A row a file: in class folders by its largest half, in a CSV file with a count."""
    generator, lines = np.random.default_rng(seed), ["path,label"]
    for number in range(count):
        label = number % 2
        values = generator.normal(0, 0.3, 8)
        values[4 * label : 4 * label + 4] += 1
        path = folder / "rows" / "ab"[label] / f"{number:03d}.row"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = generator.integers(0, 10, 2)
        path.write_text(" ".join([*(f"{value:.4f}" for value in values), *map(str, ids)]))
        lines.append(f"{path.relative_to(folder)},{generator.poisson(1 + 6 * label)}")
    (folder / "counts.csv").write_text("\n".join(lines))


def base(path, inputs):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    numbers, ids = keras.Input((8,), name="numbers"), keras.Input((2,), dtype="int32", name="ids")
    x = numbers
    if inputs == 2:
        x = layers.Concatenate()([x, layers.Flatten()(layers.Embedding(10, 4)(ids))])
    x = layers.Dense(16, "relu", name="low")(x)
    x = layers.Dense(8, "relu", name="high")(x)
    taken = numbers if inputs == 1 else [numbers, ids]
    keras.Model(taken, layers.Dense(4, name="old")(x), name="rows").save(path)


def config_of(folder, task, inputs):
    rows(folder)
    base(folder / "base.keras", inputs)
    source = folder / ("rows" if task == "classes" else "counts.csv")
    return RunConfig.of(
        str(source), str(folder / "base.keras"), modality="row", task=task, epochs=(15, 15),
        settings={"batch_size": 8}, lr_scale=10.0,
    )  # fmt: skip


def test_the_toys_are_short():
    parts = {"modality": (RowReader, Rows, read_row), "task": (Counts,)}
    lines = {name: sum(len(inspect.getsource(one).splitlines()) for one in part)
             for name, part in parts.items()}  # fmt: skip
    assert all(count < 60 for count in lines.values()), lines


@pytest.mark.parametrize(("task", "inputs"), [("classes", 1), ("counts", 2)])
def test_a_new_modality_and_a_new_task_go_from_data_to_a_bundle(tmp_path, inputs, task):
    from export.pipeline import ExportConfig, export
    from export.source import from_run
    from tl_keras.runs.directory import RunDirectory
    from tl_keras.workflows.evaluate import evaluate_run, predict_files
    from tl_keras.workflows.fit import train

    run = train(config_of(tmp_path, task, inputs), tmp_path / "run")
    assert run.record["plan"]["augment"] == "noise"
    assert [stage["name"] for stage in run.record["stages"]] in (["head", "upper"], ["head", "all"])
    page = re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", (run.path / "report.html").read_text())
    assert not re.findall(r".*(?:image|picture|photo|pixel).*", page, re.I)
    figures = evaluate_run(run.path, None, None, lambda *_: None)
    assert figures["task"] == task
    if task == "classes":
        assert figures["accuracy"]["value"] > 0.7
    else:
        assert figures["per_output"][0]["r2"] > 0
    file = tmp_path / "rows" / "a" / "000.row"
    (answer,) = predict_files(run.path, [file], 2, lambda *_: None)
    assert len(answer["outputs"]) == (2 if task == "classes" else 1)
    made = export(
        from_run(run.path), ExportConfig(("tflite", "onnx"), fresh=False), tmp_path / "bundle"
    )
    assert [variant.verdict.agreement for variant in made] == [1.0, 1.0]
    assert RunDirectory(run.path).modality.name == "row"


@pytest.mark.slow
def test_every_other_job_takes_two_inputs_that_are_no_images(tmp_path):
    import keras

    from export.distill.run import Distillation, distill
    from export.pipeline import ExportConfig, export
    from export.source import from_run
    from tl_keras.probing.probe import ProbeOptions
    from tl_keras.workflows.adapt import AdaptConfig, adapt
    from tl_keras.workflows.drift import report_drift
    from tl_keras.workflows.fit import train
    from tl_keras.workflows.probe import ProbeConfig, probe
    from tl_keras.workflows.update.config import UpdateConfig
    from tl_keras.workflows.update.run import update

    config = config_of(tmp_path, "classes", 2)
    run = train(config, tmp_path / "run").path
    rows(tmp_path / "new", 60, seed=1)
    new = str(tmp_path / "new" / "rows")
    assert report_drift(run, new, out=tmp_path / "drift").page.exists()
    made = probe(ProbeConfig(config, options=ProbeOptions("ridge")), tmp_path / "probe")[0]
    assert made.complete
    assert adapt(AdaptConfig(run=run, data=new, method="lp-ft"), tmp_path / "adapted").complete
    for number, keep in enumerate([("replay", "lwf"), ("ewc", "l2sp"), ("streaming",)]):
        asked = UpdateConfig(str(run), new, keep=keep, epochs=(2, 2))
        assert update(asked, tmp_path / f"updated{number}").complete
    body = keras.saving.load_model(tmp_path / "base.keras")
    answer = keras.layers.Dense(2, "softmax")(body.get_layer("high").output)
    keras.Model(body.inputs, answer).save(tmp_path / "student.keras")
    asked = Distillation(str(run), str(tmp_path / "student.keras"), epochs=(2, 2))
    assert distill(asked, tmp_path / "distilled").complete
    kinds = ExportConfig(("tflite", "onnx"), ("int8",), fresh=False)
    variants = export(from_run(run), kinds, tmp_path / "bundle")
    assert min(variant.verdict.agreement for variant in variants) > 0.9
