"""Fits a simple classifier on a backbone's features, into a complete run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.features.files import check_target, write_features
from tl_keras.features.places import parse_places, written
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.probing.probe import Probe, ProbeOptions, fit_probe
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import create, finish, guard
from tl_keras.runs.prepare import PreparedData, load, prepare
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.utils.stats import log_loss, right

if TYPE_CHECKING:
    import keras

__all__ = ["ProbeConfig", "open_backbone", "probe"]


@dataclass(frozen=True)
class ProbeConfig:
    """What to probe.

    Attributes:
        config: Data, backbone, size, weights, shares and seed.
        at: See `tl_keras.features.places.parse_places`.
        options: Classifier, pooling and the rest.
        features_out: Where to write the features too; None nowhere.
        command: What the user wrote, for the record.
    """

    config: RunConfig
    at: str = "auto"
    options: ProbeOptions = ProbeOptions()
    features_out: Path | None = None
    command: str = ""


def open_backbone(config: RunConfig, size: int | None = None) -> keras.Model:
    """Return a backbone without a head: a flat model, RGB 0..255 in.

    A base by name ends with its last feature map; a `.keras` file keeps all its layers.

    Args:
        config: Base, size and weights.
        size: Of the input, where the configuration names none.

    Raises:
        ModelError: Base, size and weights do not fit together.
        DownloadError: The weights must be downloaded and cannot be.
    """
    from tl_keras.models.backbones.load import build_backbone
    from tl_keras.models.backbones.weights import load_user_model
    from tl_keras.models.rewrite import flatten

    size = config.model.size or size
    if is_model_file(config.model.backbone):
        if config.model.weights not in ("default", "none"):
            raise ModelError(
                f"{config.model.backbone} has its weights; leave out "
                f"--weights {config.model.weights}"
            )
        return flatten(load_user_model(Path(config.model.backbone).expanduser()), size)
    weights = None if config.model.weights == "none" else config.model.weights
    # Keras tells of downloads on standard output, across the bars.
    with repeatable(config.run.seed), contextlib.redirect_stdout(io.StringIO()):
        return build_backbone(config.model.backbone, size=size, weights=weights)


@guard()
def probe(
    wanted: ProbeConfig, out: str | Path, progress: Progress = silent
) -> tuple[RunDirectory, Probe]:
    """Fit a classifier on a base's features, into a new run directory.

    The run is like one that `fit` made: its `model.keras` takes images and gives
    probabilities. Whatever stops the work leaves nothing behind.

    Args:
        wanted: What to probe.
        out: The directory to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    config, out = wanted.config.replace(plan="probe"), Path(out)
    refuse_existing(out, config.data.source)
    if wanted.features_out:
        check_target(wanted.features_out, config.data.source)
    samples = load(config)
    start_tensorflow()
    model = open_backbone(config, samples.modality.input_size)
    places = parse_places(wanted.at, model)
    data = prepare(config, progress, samples)
    with atomic_path(out) as folder:
        # Features may be large: they lie on the disk of the run meanwhile.
        features = folder.with_name("features")
        made = fit_probe(model, data.splits, places, features, wanted.options, progress)
        _write(wanted, config, made, data, folder, progress)
        if wanted.features_out:
            write_features(wanted.features_out, made.features, made.place)
    return RunDirectory(out), made


def _write(
    wanted: ProbeConfig,
    config: RunConfig,
    made: Probe,
    data: PreparedData,
    out: Path,
    progress: Progress,
) -> None:
    from tl_keras.reports.figures import plot_probe

    run = create(out, config, data, made.model, command=wanted.command)
    run.write_history([])
    timings = {"check": data.seconds, **made.seconds}
    run.update(
        head={"pooling": wanted.options.pooling, "dense": [], "dropout": 0.0},
        probe=_facts(wanted, made),
        plan={"name": "probe", "stages": []},
        stages=[_stage(made)],
        best_stage=wanted.options.classifier,
        precision={"chosen": made.features.engine.name, "reason": made.features.engine.reason},
        timings={name: round(seconds, 2) for name, seconds in timings.items()},
    )
    drawn = plot_probe(run.fact("probe"), run.path / "plots" / "probe.png")
    finish(run, made.model, data.splits, [], progress, {"probe": drawn})


def _facts(wanted: ProbeConfig, made: Probe) -> dict[str, Any]:
    return {
        "at": written(made.place),
        "asked": wanted.at,
        "classifier": wanted.options.classifier,
        "found": made.classifier.facts,
        "compared": [dataclasses.asdict(score) for score in made.compared],
    }


def _stage(made: Probe) -> dict[str, Any]:
    """The probe as a run's one stage, so that every reader of runs can show it."""
    logs = _held_out(made)
    return {
        "name": "probe",
        "train": ["head"],
        "trainable_parameters": sum(
            int(layer.count_params()) for layer in made.model.layers if "head_" in layer.name
        ),
        "cut": written(made.place),
        "views": 1,
        "epochs_run": 1,
        "best_epoch": 0,
        "best_val_loss": None if logs is None else log_loss(logs[0], logs[1]),
        "best_val_accuracy": None if logs is None else right(logs[0], logs[1]),
        "seconds": sum(made.seconds.values()),
    }


def _held_out(made: Probe) -> tuple[np.ndarray, np.ndarray] | None:
    """Log probabilities and labels of the validation images; None where there are none."""
    labels = made.features.samples["val"].labels
    if not len(labels):
        return None
    chances = made.classifier.predict_proba(made.features.at("val", made.place))
    return np.log(np.maximum(chances, 1e-12)), labels
