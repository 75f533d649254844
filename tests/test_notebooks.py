"""The notebooks run from start to end, end in a picture, and leave no thread behind."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
THREADS = "import threading; print([t.name for t in threading.enumerate() if t.name.startswith('pamiq-')])"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_picture(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def errors(notebook: NotebookNode) -> list[str]:
    return [output.ename for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@every_notebook
def test_is_committed_executed_and_ends_in_a_picture(path: Path) -> None:
    notebook = read(path)
    cells = code_cells(notebook)
    assert len(notebook.cells) <= 20
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert errors(notebook) == []
    assert has_picture(cells[-1])


@every_notebook
def test_runs_and_leaves_no_thread_behind(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel is a process of its own: it finds the package without an install, and has one device as a user's has.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(THREADS))
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *cells, threads = code_cells(notebook)
    assert errors(notebook) == []
    assert has_picture(cells[-1])
    assert printed(threads) == "[]\n"
