"""What resuming needs, on disk: small numbered snapshots, written whole or not at all.

`start.npz` holds every variable at a stage's start, `epoch.npz` what changed since, and
`best.npz` the best stage's weights. Each is one file with its own JSON, so none can be
half-new. Arrays only: nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import RunError
from tl_keras.utils.files import atomic_path

if TYPE_CHECKING:
    import keras

__all__ = ["assign", "model_variables", "read_snapshot", "values", "write_snapshot"]


def model_variables(model: keras.Model) -> list[Any]:
    """Return every variable of the model's layers once: weights and seed states, in order."""
    seen: dict[int, Any] = {}
    for layer in model.layers:
        for variable in layer.variables:
            seen.setdefault(id(variable), variable)
    return list(seen.values())


def values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return copies of the variables' values."""
    import keras

    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    """Give each variable its value.

    Raises:
        RunError: Their number or shapes differ.
    """
    got, expected = [a.shape for a in arrays], [tuple(v.shape) for v in variables]
    if got != expected:
        raise RunError(
            f"the saved state has {len(got)} arrays that do not fit the model's {len(expected)} "
            "variables: it belongs to another model or plan; start a new run"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def write_snapshot(path: Path, meta: dict[str, Any], **groups: Sequence[np.ndarray]) -> None:
    """Write groups of arrays and JSON-able facts into one file, atomically.

    Raises:
        StorageError: The disk is full.
    """
    arrays = {f"{name}/{i:05d}": a for name, group in groups.items() for i, a in enumerate(group)}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with atomic_path(path) as made, open(made, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
        handle.flush()
        os.fsync(handle.fileno())


def read_snapshot(path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
    """Return a snapshot's facts and groups of arrays, or None when there is none.

    Raises:
        RunError: The file does not read.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            meta = json.loads(saved["meta"].tobytes())
            groups: dict[str, list[np.ndarray]] = {}
            for name in sorted(key for key in saved.files if "/" in key):
                groups.setdefault(name.split("/")[0], []).append(saved[name])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} does not read ({error}); start a new run") from error
    return meta, groups
