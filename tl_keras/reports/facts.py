"""What a report of a run may show: its record, history, figures and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras import modalities
from tl_keras.modalities.base import Modality

if TYPE_CHECKING:
    from tl_keras.evaluation.mistakes import Mistake

__all__ = ["Facts", "find_at"]


@dataclass(frozen=True)
class Facts:
    """All that a section may show; plain values throughout.

    Attributes:
        run: the content of run.json.
        history: the rows of history.csv.
        evaluations: a split's metrics, by split.
        plots: PNG files by what they show.
        mistakes: see :func:`write_report`.
        previews: see :func:`write_report`.
    """

    run: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    plots: Mapping[str, Path]
    mistakes: Sequence[Mistake]
    previews: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def split(self) -> str:
        """The split that speaks for the model: test, else validation, else what there is."""
        known = ("test", "val", "out_of_fold", *self.evaluations)
        return next((split for split in known if self.evaluations.get(split)), "")

    @property
    def figures(self) -> Mapping[str, Any]:
        """That split's metrics."""
        return self.evaluations.get(self.split) or {}

    @property
    def modality(self) -> Modality:
        """What the run is shown."""
        name = self.find("data.modality", "image")
        return modalities.get(name) if name in modalities.names() else Modality()

    @property
    def noun(self) -> str:
        """What one sample is called."""
        return self.modality.noun

    def find(self, keys: str, default: Any = None) -> Any:
        """Return what lies in the record at "key.key"; the default where a step is missing."""
        return find_at(self.run, keys, default)


def find_at(record: Any, keys: str, default: Any = None) -> Any:
    """Return what lies in nested records at "key.key"; the default where a step is missing."""
    for key in keys.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return default if record is None else record
