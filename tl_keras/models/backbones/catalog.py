"""All bases there are, from every source: what each costs, and whether its weights are here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tl_keras.errors import ModelError
from tl_keras.models.backbones import packages
from tl_keras.models.backbones.costs import COSTS, Costs
from tl_keras.models.backbones.load import backbone_names, describe
from tl_keras.models.backbones.registry import BackboneInfo, is_own
from tl_keras.models.backbones.sources import SOURCES
from tl_keras.models.backbones.weights import weights_here

__all__ = ["CatalogEntry", "catalog", "entry_of"]


@dataclass(frozen=True)
class CatalogEntry:
    """One base, or one way to name bases of another source.

    Attributes:
        name: What `--base` takes; in capitals what stands for a place.
        modality: What it is shown.
        info: Its entry, None where it depends on the place.
        costs: At its own size; None where they are not known before it is built.
        here: How its weights are on this machine, see `weights_here`; empty when they are not.
        way: How its weights come, in words.
    """

    name: str
    modality: str
    info: BackboneInfo | None = None
    costs: Costs | None = None
    here: str = ""
    way: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as JSON-able values."""
        costs = self.costs
        return {
            **(dataclasses.asdict(self.info) if self.info else {}),
            "name": self.name,
            "modality": self.modality,
            "parameters": costs.parameters if costs else None,
            "megabytes": round(costs.megabytes, 1) if costs else None,
            "multiply_adds": costs.multiply_adds if costs else None,
            "weights_here": self.here,
            "weights": self.way,
        }


def catalog() -> list[CatalogEntry]:
    """List all bases of the registry, then the other sources."""
    return [*map(entry_of, backbone_names()), *_sources()]


def entry_of(name: str) -> CatalogEntry:
    """Return what is known of one base of the registry.

    Raises:
        ModelError: There is no such base.
    """
    info = describe(name)
    here = weights_here(info)
    return CatalogEntry(
        info.name, info.modality, info, _costs(info.name), here, here or _way(info))


def _costs(name: str) -> Costs | None:
    return Costs(*COSTS[name]) if name in COSTS else None


def _way(info: BackboneInfo) -> str:
    if info.name in packages.PACKAGES:
        return "tl_keras[imagenet]"
    return "from a file" if is_own(info) else "download"


def _sources() -> list[CatalogEntry]:
    found = []
    for source in SOURCES.values():
        found.append(CatalogEntry(
            f"{source.word}:{source.place}", source.modality, way="its own"))
        if not source.alone:
            continue
        try:
            info = describe(source.word)
            found.append(CatalogEntry(source.word, source.modality, info, _costs(source.word),
                                      "installed", "installed"))
        except ModelError:
            found.append(CatalogEntry(
                source.word, source.modality, way=f"tl_keras[{source.modality}]"))
    return found
