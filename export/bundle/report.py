"""Write the bundle's page: accuracy, size and latency of all variants side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.bundle.card import TEMPLATES, context
from export.variant import Variant
from tl_keras.reports.html import render

__all__ = ["report"]


def report(manifest: Mapping[str, Any], variants: Sequence[Variant], plot: Path) -> str:
    """Render one self-contained page.

    Args:
        manifest: of the bundle.
        variants: the same that the manifest describes.
        plot: PNG of :func:`export.bundle.figures.plot_variants`.

    Returns:
        HTML that needs neither script nor network.
    """
    # By class, the variant in which it lost most recall first.
    changed = [v for v in variants if v.verdict.recall_drops]
    names = dict.fromkeys(name for v in changed for name in v.verdict.recall_drops)
    drops = [(name, [v.verdict.recall_drops.get(name) for v in changed]) for name in names]
    shown = {key: v for key, v in manifest["facts"].items() if isinstance(v, str | int | float)}
    return render(
        "bundle.html.j2", TEMPLATES, title=f"{manifest['name']}: files for a device", plot=plot,
        **context(manifest, variants), changed=changed, facts=shown,
        drops=sorted(drops, key=lambda row: -max(one[0] for one in row[1] if one)),
    )  # fmt: skip
