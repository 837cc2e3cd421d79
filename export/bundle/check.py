"""Whether a bundle is whole, and answers on this machine as it did where it was made.

Neither TensorFlow nor Keras is needed: numpy, pillow and the runtimes of the bundle's files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from export.bundle.golden import Outcome, compare_golden, read_golden
from export.bundle.read import opened
from export.runtime.runtimes import load

__all__ = ["Checked", "check"]


@dataclass(frozen=True)
class Checked:
    """What the check of a bundle found.

    Attributes:
        name: of the model.
        files: how many are as the manifest says, itself included.
        outcomes: of every variant on the golden pictures.
    """

    name: str
    files: int
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every variant answers as expected."""
        return all(outcome.passed for outcome in self.outcomes)


def check(bundle: str | os.PathLike[str]) -> Checked:
    """Check schema, names, sizes and hashes, then run every model on the golden pictures.

    Args:
        bundle: a folder or a zip.

    Raises:
        BundleError: if it is no bundle, was changed, or has a newer schema.
        ExportError: if a runtime is not installed (the message names the pip command), or a
            model does not load.
    """
    with opened(bundle) as found:
        pictures, golden = read_golden(found.folder, found.manifest)
        outcomes = []
        for variant in found.manifest["variants"]:
            name = variant["name"]
            answers = load(found.model(name), 1).predict(pictures)
            expected, tolerance = golden["outputs"][name], golden["tolerances"][name]
            task = found.manifest["task"]
            outcomes.append(compare_golden(name, expected, answers, tolerance, task))
        files = len(found.manifest["files"]) + 1
        return Checked(found.manifest["name"], files, tuple(outcomes))
