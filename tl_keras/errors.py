"""What can go wrong by a user's hand: one root, few children.

Every message says what was got, what was expected and the way out. The command line
prints it without a traceback and exits with code 2.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "DataError",
    "DownloadError",
    "ExportError",
    "GateError",
    "ModelError",
    "ParityError",
    "PlanError",
    "RunError",
    "StorageError",
    "TLKerasError",
    "TrainingError",
]


class TLKerasError(ValueError):
    """Root of all errors that a user can mend.

    Attributes:
        exit_code: What a command leaves with.
    """

    exit_code = 2


class DataError(TLKerasError):
    """Pictures, labels or splits are not what they should be."""


class ModelError(TLKerasError):
    """A base, a head, a size or a weights file does not fit."""


class DownloadError(ModelError):
    """Something must be fetched and cannot be."""


class PlanError(TLKerasError):
    """A plan, a stage or a layer selector makes no sense for this model."""


class RunError(TLKerasError):
    """A run directory exists already, is half-written, or is from a newer version."""


class StorageError(TLKerasError):
    """The disk is full or cannot be written."""


class TrainingError(TLKerasError):
    """Training cannot go on: the loss is not a number."""


class ExportError(TLKerasError):
    """A model, a format or a destination does not allow the export."""


class ParityError(ExportError):
    """An artifact does not give the answers of the model that it was made from."""

    exit_code = 3


class GateError(ExportError):
    """A quantized file loses more than it may, whatever is tried."""

    exit_code = 3


class BundleError(ExportError):
    """A bundle is none, was changed, or comes from a newer version."""
