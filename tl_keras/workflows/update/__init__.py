"""Teaches a run new classes or new data."""

from tl_keras.workflows.update.config import UpdateConfig
from tl_keras.workflows.update.run import update

__all__ = ["UpdateConfig", "update"]
