"""What can be asked of a run, and of data before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import tasks
from tl_keras.data.folders import from_unlabeled, listed
from tl_keras.data.samples import SPLITS, Samples
from tl_keras.data.sources import load_samples
from tl_keras.data.text_tables import TABLES, read_texts
from tl_keras.errors import DataError
from tl_keras.evaluation.thresholds import checked_thresholds
from tl_keras.features.extract import predict
from tl_keras.modalities.base import Modality
from tl_keras.modalities.text.reader import Text
from tl_keras.models.views import average_views
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import guard, score
from tl_keras.runs.prepare import build, load, prepare
from tl_keras.utils.progress import Progress
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    from tl_keras.training.lr_finder import RateSearch

__all__ = ["evaluate_run", "find_rate", "predict_files"]


@guard()
def evaluate_run(
    path: Path,
    data: str | None,
    split: str | None,
    progress: Progress,
    views: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the scores of a run's model on one of its splits, or on other data.

    Args:
        path: A complete run.
        data: Other data; None takes the run's own.
        split: "train", "val" or "test"; None takes the test split if there is one, else the
            validation split of the run's own data (or what was said out of fold, where there is
            none), and all of other data.
        progress: Called with a task's name, what is done and of how much.
        views: What is averaged beside the image itself, see :mod:`tl_keras.models.views`.

    Returns:
        The scores, and `split`: which one was taken, None for all of other data.

    Raises:
        RunError: The run is not complete.
        DataError: There is no such split, or the classes differ.
    """
    run = _complete(path)
    if split not in (None, *SPLITS):
        raise DataError(f"unknown split '{split}', expected one of {', '.join(SPLITS)}")
    if data is None:
        pictures = run.fact("data").get("pictures", {})
        held = pictures.get("test") or pictures.get("val")
        if split is None and not held and "out_of_fold" in run.record["metrics"]:
            # All images were learned from: what was said out of fold is the honest estimate.
            if views:
                raise DataError(
                    "the run learned from all its images, so that views can be judged on others "
                    "only; give --data, or leave out --views for what was estimated out of fold"
                )
            return {"split": "out_of_fold", **run.record["metrics"]["out_of_fold"]}
        split = split or ("test" if pictures.get("test") else "val")
        samples = run.samples(split)
        if not len(samples):
            raise DataError(
                f"{run.path} has no {split} split; leave out --split for what it has, or "
                "give --data"
            )
    else:
        samples, split = _other(run, data, split)
    start_tensorflow()
    model = average_views(run.model(), views)
    word = f"{samples.modality.noun}s"
    outputs = predict(model, samples, progress=lambda d, n: progress(word, d, n))
    found = run.record.get("temperature"), run.record.get("thresholds")
    scores = score(outputs, samples, run.fact("seed"), *found)
    return {"split": split, **({"views": list(views)} if views else {}), **scores}


def _complete(path: Path) -> RunDirectory:
    run = RunDirectory(path)
    run.require_complete()
    return run


def _other(run: RunDirectory, data: str, split: str | None) -> tuple[Samples, str | None]:
    samples = load_samples(data, task=run.fact("data", "task"), modality=run.modality)
    got, expected = samples.class_names, run.fact("classes")
    if list(got) != expected:
        new = [name for name in got if name not in expected]
        lost = [name for name in expected if name not in got]
        what = [f"unknown to the run: {listed(new)}"] if new else []
        what += [f"missing: {listed(lost)}"] if lost else []
        raise DataError(
            f"{data} has other classes than {run.path}; {'; '.join(what)}. "
            "Name the class folders as the run's labels.txt does"
        )
    part = samples.where(split or "test") if samples.splits else samples.take([])
    if len(part):
        return part, split or "test"
    if split:
        raise DataError(f"{data} has no {split} split; leave out --split to take all of it")
    return samples, None


@guard()
def predict_files(
    path: Path,
    pictures: Sequence[Path],
    top: int,
    progress: Progress,
    views: tuple[str, ...] = (),
    texts: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return a row for each sample: its path (or key) and its highest outputs (name, value).

    Of a run with thresholds each output says, too, whether it is given.

    Args:
        path: A complete run.
        pictures: Files, and folders whose images are taken (subfolders too); of texts tables
            too, whose labels are not needed.
        top: How many outputs, highest first; all of them for task "values".
        progress: Called with a task's name, what is done and of how much.
        views: What is averaged beside the image itself, see :mod:`tl_keras.models.views`.
        texts: Texts themselves, for a run on texts.

    Raises:
        DataError: There is no such file, or one is no image; nothing is given; or texts are given
            to a run on something else.
    """
    run = _complete(path)
    modality = run.modality
    items, keys = _items(pictures, texts, modality)
    labels: np.ndarray = np.zeros(len(items), np.int64)
    samples = Samples(items, labels, ("",), tuple(keys), modality)
    names, ranked = run.fact("classes"), tasks.get(run.fact("data", "task")).ranked
    thresholds = run.record.get("thresholds")
    starts = checked_thresholds(thresholds, len(names)).tolist()
    start_tensorflow()
    model = average_views(run.model(), views)
    word = f"{samples.modality.noun}s"
    outputs = predict(model, samples, progress=lambda d, n: progress(word, d, n))
    rows = []
    for key, values in zip(keys, outputs, strict=True):
        order = np.argsort(-values)[:top] if ranked else range(len(values))
        chosen = [{"name": names[i], "value": float(f"{values[i]:.7g}")} for i in order]
        if thresholds is not None:
            for one, i in zip(chosen, order, strict=True):
                one["given"] = bool(values[i] >= starts[i])
        rows.append({"path": key, "outputs": chosen})
    return rows


def _items(
    files: Sequence[Path], texts: Sequence[str], modality: Modality
) -> tuple[list[Any], list[str]]:
    """Return items, and what each is called."""
    if texts and not modality.written:
        raise DataError(f"got a text for a run on {modality.noun}s; name files instead")
    items: list[Any] = [Text(text) for text in texts]
    keys = list(texts)
    for given in files:
        if modality.written and given.name.lower().endswith(TABLES) and given.is_file():
            rows = read_texts(str(given))
            items += [Text(row) for row in rows]
            keys += [f"{given}, row {number}" for number in range(1, len(rows) + 1)]
        else:
            found = _files(given, modality)
            items += found
            keys += found
    if not items:
        more = ", or --text TEXT" if modality.written else ""
        raise DataError(f"nothing to predict; name {modality.noun}s by files or folders{more}")
    for item, key in zip(items, keys, strict=True):
        if isinstance(item, Text):
            try:
                modality.open(item)
            except DataError as error:
                raise DataError(f"{key[:60]!r} {error}") from error
    return items, keys


def _files(given: Path, modality: Modality) -> list[str]:
    if given.is_dir():
        return list(from_unlabeled(str(given), modality).items)
    if not given.exists():
        raise DataError(f"there is no file {given}; expected one or a folder of {modality.noun}s")
    return [str(given)]


def find_rate(
    config: RunConfig, train: tuple[str, ...], steps: int, out: Path, progress: Progress
) -> RateSearch:
    """Run a range test on a run's data and model, and draw it.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    samples = load(config)
    start_tensorflow()
    model = build(config, samples)
    data = prepare(config, progress, samples)
    from tl_keras.reports.figures import plot_learning_rates
    from tl_keras.training.lr_finder import lr_find

    found = lr_find(model, data.splits, train, steps=steps, seed=config.run.seed, progress=progress)
    plot_learning_rates(found.rates, found.losses, out, found.suggestion)
    return found
