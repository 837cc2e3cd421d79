"""What can go wrong on the way out."""

from __future__ import annotations

from tl_keras.errors import TLKerasError

__all__ = ["ExportError", "ParityError"]


class ExportError(TLKerasError):
    """A model, a format or a destination does not allow the export."""


class ParityError(ExportError):
    """An artifact does not give the answers of the model that it was made from."""
