"""One word from the user becomes `Samples`: a folder, a CSV file or a built-in name."""

from __future__ import annotations

import os

from tl_keras import modalities, tasks
from tl_keras.data.builtin import builtin, builtin_names, is_builtin
from tl_keras.data.csv_files import from_csv
from tl_keras.data.folders import from_folder
from tl_keras.data.samples import Samples, from_arrays
from tl_keras.data.text_tables import TABLES, find_tables, from_text_tables
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality
from tl_keras.utils.files import irregular
from tl_keras.utils.suggest import nearest

__all__ = ["Samples", "from_arrays", "load_again", "load_samples"]

_BUILTIN = "builtin:"


def load_samples(
    source: str | os.PathLike[str],
    *,
    task: str = "classes",
    modality: str | Modality = "image",
    fewest: int = 2,
) -> Samples:
    """Read labelled samples.

    Args:
        source: a folder of class folders; a folder of train / val (valid, validation, dev) /
            test folders of class folders; a CSV file with the columns path, label and maybe
            split; or, if no such path exists, the name of a built-in data set ("digits"). Of
            texts a CSV, TSV or JSONL file with the columns text, label and maybe split; or a
            folder with such a file for each split.
        task: name of a task; all but "classes" need a CSV file.
        modality: a modality, or its name.
        fewest: classes that there must be, 1 or 2.

    Returns:
        The samples; nothing is decoded yet.

    Raises:
        DataError: if there is nothing there, or it is not laid out as above; the message
            says what was found and what to do.
    """
    tasks.get(task)
    kind = modalities.get(modality)
    text = os.fspath(source)
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isfile(path):
        return _from_file(path, kind, task, fewest)
    if odd := irregular(path).removeprefix("a folder"):
        raise DataError(f"{text} is {odd}; expected a folder or a .csv file.")
    if not os.path.isdir(path) and not is_builtin(text):
        raise DataError(_missing(text, path))
    if kind.written and os.path.isdir(path) and (tables := find_tables(path)):
        return from_text_tables(tables, path, kind, task, fewest)
    if not tasks.get(task).single_label:
        raise DataError(f"Task {task!r} needs a CSV file with path,label; got {text}.")
    return from_folder(path, kind, fewest) if os.path.isdir(path) else builtin(text)


def load_again(
    root: str,
    moved: str | os.PathLike[str] | None = None,
    task: str = "classes",
    modality: str | Modality = "image",
) -> Samples:
    """Read the labelled samples that `Samples.root` names, as they are now.

    Args:
        root: where they came from, as `Samples` tells; a built-in name stays one, whatever
            folder of that name there is now.
        moved: where they are now, as for `load_samples`; by default where they were.
        task: as for `load_samples`.
        modality: as for `load_samples`.

    Raises:
        DataError: if nothing is there, or as `load_samples`.
    """
    if moved is not None:
        return load_samples(os.fspath(moved).removeprefix(_BUILTIN), task=task, modality=modality)
    if root.startswith(_BUILTIN):
        return builtin(root.removeprefix(_BUILTIN))
    if not os.path.exists(root):
        raise DataError(
            f"The run's samples were at {root}, where nothing is now; put them back, or where "
            "they moved give --data to resume or tl-export"
        )
    return load_samples(root, task=task, modality=modality)


def _from_file(path: str, modality: Modality, task: str, fewest: int) -> Samples:
    if modality.written and path.lower().endswith(TABLES):
        return from_text_tables({"": path}, path, modality, task, fewest)
    if modality.written or not path.lower().endswith(".csv"):
        raise DataError(
            f"{path} is a file; expected a folder of class folders, or a "
            f"{' or '.join(TABLES) if modality.written else '.csv'} file with the columns "
            f"{'text' if modality.written else 'path'},label[,split]."
        )
    return from_csv(path, modality, task, fewest)


def _missing(text: str, path: str) -> str:
    parent, name = os.path.split(path)
    near = []
    if os.path.isdir(parent):
        with os.scandir(parent) as entries:
            siblings = {e.name.lower(): e.path for e in entries if e.name[0] != "."}
        near = [siblings[n] for n in nearest(name.lower(), siblings, 2, 0.6)]
    near += nearest(text.lower(), builtin_names(), 1, 0.6)
    lost = path if os.path.isdir(parent) else f"{path} (nor {parent})"
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"No data at {text!r}: {lost} does not exist.{hint} Expected a folder, a .csv file "
        f"or a built-in name ({', '.join(builtin_names())})."
    )
