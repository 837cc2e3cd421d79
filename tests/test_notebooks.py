"""The notebooks run, and what is kept in them is what a reader should see."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes
NO_INTERNET = "http://127.0.0.1:9"  # the port for discarding: nobody answers there

every = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def text(output):
    return output.get("text", "") + output.get("data", {}).get("text/plain", "")


def chatter(notebook):
    """Warnings, TensorFlow's messages, tracebacks."""
    return [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


def test_no_two_notebooks_have_one_number():
    numbers = [path.stem[:2] for path in PATHS]
    assert {"01", "02", "03", "04", "05", "06", "07", "08"} <= set(numbers)
    assert all(number.isdigit() for number in numbers)
    assert len(set(numbers)) == len(numbers)


@every
def test_what_is_imported_of_this_project_is_there(path):
    source = re.sub(r"(?m)^[%!].*$", "", "\n".join(cell.source for cell in code(read(path))))
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "module", "") or ""
        for alias in node.names if name.startswith(("tl_keras", "export")) else ():
            if not hasattr(importlib.import_module(name), alias.name):
                importlib.import_module(f"{name}.{alias.name}")


@every
def test_the_outputs_of_one_run_from_top_to_bottom_are_kept(path):
    notebook = read(path)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook) >= 3
    assert chatter(notebook) == []
    assert path.stat().st_size < LARGEST


@every
def test_nothing_kept_tells_where_it_ran(path):
    places = (str(ROOT), str(Path.home()), sys.prefix, tempfile.gettempdir() + "/")
    told = [text(output) for output in outputs(read(path))]
    assert [line for line in told if any(place in line for place in places)] == []


@every
def test_the_top_says_what_the_reader_will_know_and_how_long_it_takes(path):
    top = read(path).cells[0]
    assert top.cell_type == "markdown"
    assert re.search(r"at the end you will know", top.source, re.IGNORECASE)
    assert re.search(r"how long it takes.*minutes? to read.*minutes?", top.source, re.I | re.S)


@every
def test_a_readers_own_folder_is_one_line_at_the_top(path):
    cells = code(read(path))
    assert [line for line in cells[0].source.splitlines()
            if re.match(r'DATA = "(digits|docstrings)"  #', line)]
    assert not [cell for cell in cells[1:] if re.search(r'^DATA = "', cell.source, re.M)]


@every
def test_cells_are_short(path):
    assert max(len(cell.source.splitlines()) for cell in code(read(path))) <= 40


@every
def test_links_lead_somewhere(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\(([^)#:]+)\)", "\n".join(texts))
    assert links
    assert [link for link in links if not (path.parent / link).is_file()] == []


def run(path, folder):
    from nbclient import NotebookClient

    notebook = read(path)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=900, resources=resources).execute()


@pytest.mark.slow
@every
def test_a_notebook_runs_without_internet_and_makes_the_pictures_it_keeps(
    path, tmp_path, monkeypatch
):
    for name in ("TL_KERAS_REAL_DATA", "TL_KERAS_REAL_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_INTERNET)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # weights downloaded earlier do not count
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = run(path, tmp_path)
    assert chatter(notebook) == []
    assert pictures(notebook) == pictures(read(path))
