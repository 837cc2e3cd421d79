"""What can go wrong on the way out."""

from __future__ import annotations

from tl_keras.errors import TLKerasError

__all__ = ["BundleError", "ExportError", "GateError", "ParityError"]


class ExportError(TLKerasError):
    """A model, a format or a destination does not allow the export."""


class ParityError(ExportError):
    """An artifact does not give the answers of the model that it was made from."""


class GateError(ExportError):
    """A quantized file loses more than it may, whatever is tried."""


class BundleError(ExportError):
    """A bundle is none, was changed, or comes from a newer version."""
