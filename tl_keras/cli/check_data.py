"""The command check-data: look at every image before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show, show_json, table

if TYPE_CHECKING:
    from tl_keras.runs.prepare import PreparedData

__all__ = ["check_data"]

_MOST = 20


def check_data(
    data: opt.Data, task: opt.Task = "classes", seed: opt.Seed = 0, as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """List images that cannot be used, and copies.

    Every image is decoded, as fit does it before it trains.

    Example:  tl-keras check-data photos/
    """
    with error_boundary(debug):
        from tl_keras.runs.config import RunConfig
        from tl_keras.runs.prepare import prepare

        config = RunConfig.of(data, task=task, seed=seed)
        with bars() as progress:
            checked = prepare(config, progress)
        _show(data, checked, as_json)


def _show(data: str, checked: PreparedData, as_json: bool) -> None:
    splits = checked.splits
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    counts = {name: part.counts() if part else {} for name, part in parts.items()}
    if as_json:
        sizes = {name: len(part) if part else 0 for name, part in parts.items()}
        facts = {"images": sizes, "classes": counts, "fingerprint": checked.fingerprint}
        facts["notes"] = checked.notes
        show_json({"data": data, **facts, "duplicates": checked.duplicates})
        return
    made = table(f"{data}: all images can be used", "class", *parts)
    for name in counts["train"]:
        made.add_row(name, *(str(count.get(name, 0)) for count in counts.values()))
    made.add_row("images", *(str(len(part) if part else 0) for part in parts.values()))
    show(made, *checked.notes, f"fingerprint {checked.fingerprint}")
    for keys in checked.duplicates[:_MOST]:
        show(f"the same image: {', '.join(keys)}")
    if len(checked.duplicates) > _MOST:
        show(f"... and {len(checked.duplicates) - _MOST} more that are there more than once")
