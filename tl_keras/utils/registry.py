"""Objects by name: those of the package, imported when they are asked for, and added ones."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from tl_keras.errors import DataError
from tl_keras.utils.suggest import did_you_mean

__all__ = ["Registry"]


class _Named(Protocol):
    name: str


Entry = TypeVar("Entry", bound=_Named)


class Registry(Generic[Entry]):
    """Keeps one object for each name.

    Args:
        what: What one is called, for messages ("task").
        places: By name, the class of an object of the package, as "module:class".
    """

    def __init__(self, what: str, places: Mapping[str, str]) -> None:
        self.what, self.places = what, dict(places)
        self.made: dict[str, Entry] = {}

    def names(self) -> list[str]:
        """Return all names, those of the package first."""
        return [*self.places, *(name for name in self.made if name not in self.places)]

    def get(self, name: str) -> Entry:
        """Return the object of a name.

        Raises:
            DataError: There is none of that name; the nearest are offered.
        """
        if name not in self.made:
            if name not in self.places:
                raise DataError(
                    f"unknown {self.what} {name!r}; expected one of {', '.join(self.names())}."
                    f"{did_you_mean(name, self.names())}"
                )
            module, _, kind = self.places[name].partition(":")
            self.made[name] = getattr(importlib.import_module(module), kind)()
        return self.made[name]

    def register(self, entry: Entry) -> Entry:
        """Add an object under its own name, and return it."""
        self.made[entry.name] = entry
        return entry
