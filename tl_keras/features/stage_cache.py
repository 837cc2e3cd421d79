"""Compute what each stage's frozen prefix gives, once per augmented view, and keep it on disk.

For each stage the last frozen cut is known beforehand. While one stage's features are
computed, the cuts that later stages need and that lie inside the same prefix are kept from
the same pass, so that no frozen layer is computed twice for a view.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from tl_keras.features import backends as engines
from tl_keras.features.extract import fill, open_backend
from tl_keras.features.store import FeatureFile, require_room
from tl_keras.modalities.base import Reader
from tl_keras.models import graph
from tl_keras.utils.files import write_atomically
from tl_keras.utils.progress import Progress

__all__ = ["Cut", "FeatureStore", "plan_cuts"]


@dataclass(frozen=True)
class Cut:
    """Where a stage's model is cut.

    Attributes:
        layer: The cut point's layer; None when the stage trains from the samples.
        position: Its place in the graph's order, -1 for None.
        generation: The last earlier stage that changed what lies before it, -1 for none.
        shape: Of one sample's features; empty for None.
    """

    layer: str | None
    position: int
    generation: int
    shape: tuple[int, ...] = ()

    @property
    def folder(self) -> str:
        """A folder's name that no other features share."""
        return f"{self.position:04d}-{self.generation + 1}"


def plan_cuts(model: keras.Model, layers: list[str | None]) -> list[Cut]:
    """Return each stage's cut from the name of its layer."""
    known = {cut.layer: cut for cut in graph.cut_points(model)}
    positions = [known[layer].position if layer else -1 for layer in layers]
    cuts = []
    for stage, layer in enumerate(layers):
        earlier = [s for s in range(stage) if positions[s] < positions[stage]]
        shape = tuple(int(side or 0) for side in known[layer].shape[1:]) if layer else ()
        cuts.append(Cut(layer, positions[stage], max(earlier, default=-1), shape))
    return cuts


@dataclass
class FeatureStore:
    """Computes and keeps the features that a plan's stages start from.

    Attributes:
        model: The whole model.
        kept_views: Views to keep of each training sample, where augmented views differ.
        cache_dtype: See :class:`tl_keras.features.store.FeatureFile`.
        cuts: One for each stage.
        folder: Where to keep files.
        train: Reads training samples.
        val: Reads validation samples.
        precision: "auto" or one of `engines.ENGINES`.
        progress: Called with what is done, how much, and of how much.
    """

    model: keras.Model
    kept_views: int
    cache_dtype: str
    cuts: list[Cut]
    folder: Path
    train: Reader
    val: Reader
    precision: str
    progress: Progress
    engine: engines.Engine | None = None

    @property
    def views(self) -> int:
        """Views kept of each training sample."""
        return self.kept_views if self.train.varied else 1

    def arrays(self, stage: int, views: int | None = None) -> tuple[list[Any], Any]:
        """Return a stage's features: one array for each training view, and validation's.

        Args:
            stage: Which.
            views: At most so many; None is all that are kept.

        Raises:
            StorageError: The disk has no room, or is full.
        """
        cut = self.cuts[stage]
        require_room(
            self.folder, self._missing(cut), f"the features at '{cut.layer}' take",
            "fewer views, a smaller size or cache_dtype=float16",
        )  # fmt: skip
        taps = [cut, *self._later_taps(stage)]
        count = self.views if views is None else min(views, self.views)
        for view in range(count):
            self._fill(taps, self.train, "train", view)
        self._fill(taps, self.val, "val", 0)
        train = [self._file(cut, "train", view).open() for view in range(count)]
        return train, self._file(cut, "val", 0).open()

    def forget(self, stage: int) -> None:
        """Remove the files that no stage after this one reads."""
        needed = {cut.folder for cut in self.cuts[stage + 1 :] if cut.layer}
        for folder in self.folder.iterdir() if self.folder.exists() else ():
            if folder.is_dir() and folder.name not in needed:
                shutil.rmtree(folder)

    def _file(self, cut: Cut, split: str, view: int) -> FeatureFile:
        rows = len(self.train if split == "train" else self.val)
        path = self.folder / cut.folder / f"{split}-{view:03d}.bin"
        return FeatureFile(path, rows, cut.shape, self.cache_dtype)

    def _bytes(self, cut: Cut) -> int:
        rows = len(self.train) * self.views + len(self.val)
        return rows * self._file(cut, "val", 0).row_bytes

    def _missing(self, cut: Cut) -> int:
        folder = self.folder / cut.folder
        kept = sum(path.stat().st_size for path in folder.glob("*")) if folder.exists() else 0
        return max(0, self._bytes(cut) - kept)

    def _later_taps(self, stage: int) -> list[Cut]:
        free = shutil.disk_usage(self.folder).free
        budget = (free - self._missing(self.cuts[stage])) // 2
        taps: list[Cut] = []
        for later in self.cuts[stage + 1 :]:
            inside = 0 <= later.position < self.cuts[stage].position
            new = later.folder not in {tap.folder for tap in taps}
            if inside and new and later.generation < stage and self._bytes(later) <= budget:
                taps.append(later)
                budget -= self._bytes(later)
        return taps

    def _fill(self, taps: list[Cut], reader: Reader, split: str, view: int) -> None:
        files = {cut: self._file(cut, split, view) for cut in taps}
        missing = {cut: file for cut, file in files.items() if file.done() < file.rows}
        if missing:
            label = f"features, {split}, view {view + 1}"
            fill(
                list(missing.values()),
                self._predict(list(missing)),
                reader,
                view=view,
                progress=functools.partial(self.progress, label),
            )

    def _predict(self, taps: list[Cut]) -> engines.Predict:
        key = tuple(cut.folder for cut in taps)
        if getattr(self, "_kept", (None, None))[0] != key:
            known = {cut.layer: cut.tensor for cut in graph.cut_points(self.model)}
            outputs = [known[str(cut.layer)] for cut in taps]
            self._kept = (key, self._compiled(keras.Model(graph.alone(self.model.inputs), outputs)))
        return self._kept[1]

    def _compiled(self, prefix: keras.Model) -> engines.Predict:
        if chosen := self._recall_engine():
            return engines.prefix_function(prefix, chosen.name)
        rows = len(self.train) * self.views + len(self.val)
        engine, predict = open_backend(prefix, self.train, self.precision, rows)
        self._note(engine)
        return predict

    def _recall_engine(self) -> engines.Engine | None:
        path = self.folder / "engine.json"
        if self.engine is None and path.exists():
            self.engine = engines.Engine(**json.loads(path.read_text()))
        return self.engine

    def _note(self, engine: engines.Engine) -> None:
        self.engine = engine
        write_atomically(self.folder / "engine.json", json.dumps(asdict(engine)).encode())
