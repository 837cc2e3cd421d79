"""What a fit is told and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.features.backends import Engine
from tl_keras.utils.progress import Progress, silent

if TYPE_CHECKING:
    from tl_keras.training.objective import Objective

__all__ = ["FitOptions", "FitResult"]


@dataclass(frozen=True)
class FitOptions:
    """How to run a plan.

    Attributes:
        seed: Decides orders and views, 0 or more.
        state_dir: Where to keep features and what resuming needs; None keeps them in a
            temporary folder that goes away. With the same model, data, plan and seed, `fit`
            goes on from what it finds there.
        precision: What computes frozen layers: "auto" measures which is fastest here (see
            :func:`tl_keras.features.backends.choose_engine`), or "float32", "bfloat16",
            "onnxruntime".
        save_every: Least seconds between snapshots within a stage, 0 for every epoch.
        devices: GPUs (or logical devices) to train on, 1 or more; above 1 by
            `tf.distribute.MirroredStrategy`.
        progress: Called with a task's name, what is done and of how much.
        fingerprint: Says which data a state belongs to.
        objective: What the stages learn from; None is the labels. It must be made from the same
            data and plan.
        minutes: That stages whose speed is tried on folds may take; None is no limit.
    """

    seed: int = 0
    state_dir: Path | str | None = None
    precision: str = "auto"
    save_every: float = 5.0
    devices: int = 1
    progress: Progress = silent
    fingerprint: str = ""
    objective: Objective | None = None
    minutes: float | None = None


@dataclass
class FitResult:
    """What came out of a fit.

    Attributes:
        history: A row an epoch: stage, epoch, stage_epoch, learning_rate, loss, accuracy,
            val_loss, val_accuracy, seconds.
        stages: A row a stage: name, trainable_parameters, cut, views, epochs_run, best_epoch,
            best_val_loss, best_val_accuracy, seconds.
        best_stage: The stage whose weights the model holds; "head + all" for the average of two
            stages' weights.
        engine: What computed the frozen layers, and why; None if there were none.
        out_of_fold: Training samples' rows, int64 (m,), and what was said of them by models that
            had not seen them, float32 (m, outputs); None where nothing was judged on folds.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    best_stage: str = ""
    engine: Engine | None = None
    out_of_fold: tuple[np.ndarray, np.ndarray] | None = None
