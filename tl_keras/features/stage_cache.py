"""Feeds a stage: from pictures, or from what its frozen prefix gave, kept on disk.

For each stage the last frozen cut is known beforehand. While one stage's features are
computed, the cuts that later stages need and that lie inside the same prefix are kept from
the same pass, so that no frozen layer is computed twice for a view.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.errors import StorageError
from tl_keras.features import backends as engines
from tl_keras.features.store import FeatureFile, fill
from tl_keras.modalities.image.reader import ImageReader
from tl_keras.models import graph
from tl_keras.utils.files import write_atomically
from tl_keras.utils.progress import Progress

__all__ = ["FILL_BATCH", "Cut", "FeatureStore", "ReadAhead", "plan_cuts"]

FILL_BATCH = 32


@dataclass(frozen=True)
class Cut:
    """Where a stage's model is cut.

    Attributes:
        layer: The cut point's layer; None when the stage trains from the pictures.
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
        kept_views: Views to keep of each training image, where augmented views differ.
        cache_dtype: See :class:`tl_keras.features.store.FeatureFile`.
        cuts: One for each stage.
        folder: Where to keep files.
        train: Reads training pictures.
        val: Reads validation pictures.
        precision: "auto" or one of `engines.ENGINES`.
        progress: Called with what is done, how much, and of how much.
    """

    model: keras.Model
    kept_views: int
    cache_dtype: str
    cuts: list[Cut]
    folder: Path
    train: ImageReader
    val: ImageReader
    precision: str
    progress: Progress
    engine: engines.Engine | None = None

    @property
    def views(self) -> int:
        """Views kept of each training picture."""
        return self.kept_views if self.train.varied else 1

    def arrays(self, stage: int) -> tuple[list[Any], Any]:
        """Return a stage's features: one array for each training view, and validation's.

        Raises:
            StorageError: The disk has no room, or is full.
        """
        cut = self.cuts[stage]
        self._check_room(cut)
        taps = [cut, *self._later_taps(stage)]
        for view in range(self.views):
            self._fill(taps, self.train, "train", view)
        self._fill(taps, self.val, "val", 0)
        train = [self._file(cut, "train", view).open() for view in range(self.views)]
        if not len(self.val):
            return train, np.zeros((0, *cut.shape), np.float32)
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

    def _free(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def _check_room(self, cut: Cut) -> None:
        missing, free = self._missing(cut), self._free()
        if missing > free:
            raise StorageError(
                f"the features at '{cut.layer}' take {missing / 1e9:.2f} GB more and "
                f"{free / 1e9:.2f} GB are free at {self.folder}; free some space, or use fewer "
                "views, a smaller size or cache_dtype=float16"
            )

    def _later_taps(self, stage: int) -> list[Cut]:
        budget = (self._free() - self._missing(self.cuts[stage])) // 2
        taps: list[Cut] = []
        for later in self.cuts[stage + 1 :]:
            inside = 0 <= later.position < self.cuts[stage].position
            new = later.folder not in {tap.folder for tap in taps}
            if inside and new and later.generation < stage and self._bytes(later) <= budget:
                taps.append(later)
                budget -= self._bytes(later)
        return taps

    def _fill(self, taps: list[Cut], reader: ImageReader, split: str, view: int) -> None:
        files = [self._file(cut, split, view) for cut in taps if len(reader)]
        missing = [f for f in files if f.done() < f.rows]
        if not missing:
            return
        wanted = [cut for cut, file in zip(taps, files, strict=True) if file in missing]
        predict = self._predict(wanted)
        pictures = ReadAhead(reader, view)
        label = f"features, {split}, view {view + 1}"
        fill(
            missing,
            lambda indices: predict(pictures(indices)),
            FILL_BATCH,
            lambda done, total: self.progress(label, done, total),
        )

    def _predict(self, taps: list[Cut]) -> engines.Predict:
        key = tuple(cut.folder for cut in taps)
        if getattr(self, "_kept", (None, None))[0] != key:
            known = {cut.layer: cut.tensor for cut in graph.cut_points(self.model)}
            outputs = [known[str(cut.layer)] for cut in taps]
            self._kept = (key, self._compiled(keras.Model(self.model.inputs, outputs)))
        return self._kept[1]

    def _compiled(self, prefix: keras.Model) -> engines.Predict:
        chosen = self._recall_engine()
        if chosen is not None:
            return engines.prefix_function(prefix, chosen.name)
        if self.precision != "auto":
            self._note(engines.Engine(self.precision, f"{self.precision}: as asked for"))
            return engines.prefix_function(prefix, self.precision)
        sample = self.train.images(range(min(FILL_BATCH, len(self.train))), 0)
        rows = len(self.train) * self.views + len(self.val)
        engine, predict = engines.choose_engine(prefix, sample, rows)
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


class ReadAhead:
    """Reads the next batch of pictures while the last one is computed.

    Args:
        reader: Reads pictures.
        view: In which view.
    """

    def __init__(self, reader: ImageReader, view: int) -> None:
        self.reader, self.view = reader, view
        self.pool = ThreadPoolExecutor(1)
        self.next: tuple[int, Future[np.ndarray]] | None = None

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return the pictures, uint8 (n, size, size, 3)."""
        ahead = self.next
        first = int(indices[0])
        pictures = ahead[1].result() if ahead and ahead[0] == first else self._read(indices)
        following: np.ndarray = indices + len(indices)
        following = following[following < len(self.reader)]
        if len(following):
            self.next = int(following[0]), self.pool.submit(self._read, following)
        return pictures

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self.reader.images(indices, self.view)
