"""Which part may import which; what ruff cannot say about the shape of the project."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tl_keras", "export")
HEAVY = (
    "tensorflow", "keras", "tf_keras", "sklearn", "matplotlib", "onnx", "onnxruntime", "jinja2",
)  # fmt: skip
# Classes of Keras are derived there, or models trained: they are imported when training begins.
TRAINERS = {
    "tl_keras.features.stage_cache",
    "tl_keras.training.callbacks",
    "tl_keras.training.lr_finder",
    "tl_keras.training.optimizers",
    "tl_keras.training.stage",
    "tl_keras.training.stage_data",
    "tl_keras.training.stage_runner",
    "tl_keras.training.trainer",
    "export.distill.losses",
}
# From the ground up: a package imports what stands before it, and itself. No more is needed.
LAYERS = (
    "errors", "utils", "evaluation", "tasks", "modalities", "data", "models", "features",
    "training", "peft", "probing", "continual", "analysis", "reports", "runs", "workflows", "cli",
)  # fmt: skip


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of this project that an imported name belongs to."""
    if name.split(".")[0] not in PACKAGES:
        return None
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


GRAPH = {
    module: {found for name in imported(path) if (found := own(name))} - {module}
    for module, path in FILES.items()
}


def test_every_package_has_its_place_in_the_layers():
    found = {name.split(".")[1] for name in FILES if name.startswith("tl_keras.")}
    assert found == set(LAYERS)


def test_imports_point_one_way():
    upward = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if module.startswith("tl_keras.") and target.startswith("tl_keras.")
        and LAYERS.index(target.split(".")[1]) > LAYERS.index(module.split(".")[1])
    ]  # fmt: skip
    assert upward == []


def test_tl_keras_never_imports_export():
    assert [
        module for module, targets in GRAPH.items()
        if module.startswith("tl_keras") and any(t.split(".")[0] == "export" for t in targets)
    ] == []  # fmt: skip


def test_no_file_imports_itself_in_a_circle():
    graph = dict(GRAPH)
    while leaves := {name for name, below in graph.items() if not below & graph.keys()}:
        graph = {name: below for name, below in graph.items() if name not in leaves}
    assert not graph, f"in or above a circle: {sorted(graph)}"


def test_nothing_below_imports_the_public_face():
    names = {"tl_keras", "export"}
    assert [
        f"{module}: {name}" for module, path in FILES.items() for name in imported(path)
        if own(name) in names and module not in names and name != "tl_keras.__version__"
        and name != "tl_keras"
    ] == []  # fmt: skip


IMPORT_ALL = """
import importlib, sys
heavy, modules = sys.argv[1].split(","), sys.argv[2].split(",")
for module in modules:
    importlib.import_module(module)
    loaded = [name for name in heavy if name in sys.modules]
    if loaded:
        sys.exit(f"import {module} loads {loaded}")
"""


def test_importing_a_module_that_does_not_train_loads_nothing_heavy():
    modules = [name for name in FILES if name not in TRAINERS and not name.endswith("__main__")]
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), ",".join(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
