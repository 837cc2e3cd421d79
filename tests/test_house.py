from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tl_keras", "export")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = (*PACKAGES, "benchmarks", "scripts")
NO_TESTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
HEAVY = ("tensorflow", "keras", "tf_keras", "sklearn", "matplotlib", "onnx", "onnxruntime")
# Classes of Keras are derived there, or models trained: they are imported when training begins.
TRAINERS = {
    f"tl_keras.training.{name}"
    for name in ("callbacks", "features", "feed", "fit", "lr_finder", "optimizers", "stage")
} | {"export.distill_losses"}
# A module may import what stands in an earlier row, and its own package.
LAYERS = (
    {"errors", "quiet"},
    {"data"},
    {"models"},
    {"training"},
    {"adaptation", "diagnosis"},
    {"evaluation"},
    {"runs"},
    {"closing"},
    {"preparing"},
    {"autoplan"},
    {"jobs"},
    {"inspection", "probing", "shifting", "planning", "updating"},
    {"advising"},
    {"remedies"},
    {"console"},
    {"commands"},
    {"cli"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in MODULES}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of this project that an imported name belongs to."""
    if name.split(".")[0] not in PACKAGES:
        return None
    while name not in NAMES:
        name = name.rpartition(".")[0]
    return name


def edges(path: Path) -> set[str]:
    return {module for name in imports(parse(path)) if (module := own(name))}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[str(p.relative_to(ROOT)) for p in paths])


@every([path for path in MODULES if path.parent != ROOT / "tl_keras" or path.stem != "__init__"])
def test_imports_point_down(path):
    here = dotted(path).split(".")
    for target in edges(path):
        there = target.split(".")
        if here[0] == "export" or there == ["tl_keras"]:
            continue
        assert there[0] != "export", f"tl_keras must not import {target}"
        assert {here[1], there[1]} <= RANK.keys(), "give the new module its row in LAYERS"
        assert here[1] == there[1] or RANK[there[1]] < RANK[here[1]], f"{target} is not below"


@every(MODULES)
def test_the_roof_is_not_imported_from_below(path):
    taken = {name for name in imports(parse(path)) if own(name) == "tl_keras"}
    assert taken <= {"tl_keras", "tl_keras.__version__"}, "import from the module that defines it"


def test_no_module_imports_itself_in_a_circle():
    graph = {name: edges(path) - {name} for name, path in NAMES.items()}
    while leaves := {name for name, below in graph.items() if not below & graph.keys()}:
        graph = {name: below for name, below in graph.items() if name not in leaves}
    assert not graph, f"in or above a circle: {sorted(graph)}"


@every(MODULES)
def test_imports_are_absolute(path):
    assert not [name for name in imports(parse(path)) if name.startswith(".")]


@every(sorted({*NO_TESTS, *(ROOT / "tests").rglob("*.py")}))
def test_a_file_is_one_idea_of_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@every(NO_TESTS)
def test_assert_is_for_tests_only(path):
    assert [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)] == []


@every(NO_TESTS)
def test_nothing_is_unpickled(path):
    tree = parse(path)
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    allowed = [k for k in keywords if k.arg == "allow_pickle" and not is_false(k.value)]
    unpicklers = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert allowed == []
    assert not {name.split(".")[0] for name in imports(tree)} & unpicklers


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@every(MODULES)
def test_everything_public_has_a_docstring(path):
    tree = parse(path)
    assert ast.get_docstring(tree), "the module has none"
    assert [name for name, node in public(tree.body) if not ast.get_docstring(node)] == []


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_") or is_overload(node):
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{prefix}{node.name}.")


def is_overload(node: ast.AST) -> bool:
    return "overload" in {getattr(d, "id", "") for d in getattr(node, "decorator_list", ())}


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
    modules = [name for name in NAMES if name not in TRAINERS and not name.endswith("__main__")]
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), ",".join(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
