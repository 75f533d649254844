"""The rules of the house that a machine can check."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pamiq_jax"
PURE_CORE = ("conditions", "data", "lifecycle", "publishing", "trainer")
# One file each, read by those who use it: what comes after the first trainer, buffer and conditions.
BEYOND_THE_CORE = {
    "conditions": {"migration.py", "ratio.py", "satisfiable.py", "view.py"},
    "data": {
        "describe.py",
        "mix.py",
        "pending.py",
        "permutation.py",
        "prioritized.py",
        "prioritized_batch.py",
        "reservoir.py",
        "rollout.py",
        "sequence.py",
        "source.py",
        "sum_tree.py",
    },
    "lifecycle": {"picture.py"},
    "trainer": {
        "accumulate.py",
        "addresses.py",
        "alternating.py",
        "arrays.py",
        "asked.py",
        "clip.py",
        "averaging.py",
        "evaluated.py",
        "from_step.py",
        "guarding.py",
        "hyperparameters.py",
        "missing.py",
        "optimizers.py",
        "partition.py",
        "priorities.py",
        "signature.py",
        "skip.py",
        "step_checks.py",
        "step_donation.py",
        "step_modules.py",
        "step_output.py",
        "step_state.py",
        "targets.py",
        "untraced.py",
        "wrapped.py",
    },
}
MAX_LINES_PER_FILE = 400
MAX_LINES_OF_PURE_CORE = 2_400
ROOMS_WITH_TEXT = ("benchmarks", "docs", "examples", "notebooks", "pamiq_jax", "scripts", "tests", ".ci")
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|Users|work|tmp|private)/\w")

IMPORT_QUIETLY = """
import os, sys, threading
import jax, flax.struct, optax, numpy  # what these do is not ours
before = (dict(os.environ), sys.getswitchinterval(), set(threading.enumerate()), set(jax.config.values.items()))
import pamiq_jax
names = [getattr(pamiq_jax, name) for name in pamiq_jax.__all__]  # each imports its module
after = (dict(os.environ), sys.getswitchinterval(), set(threading.enumerate()), set(jax.config.values.items()))
names = ("environment variables", "switch interval", "threads", "jax configuration")
print([name for name, one, other in zip(names, before, after) if one != other])
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def text_line_count(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file())
    for room in ROOMS_WITH_TEXT:
        yield from (path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def machine_paths(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []  # an image
    return [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]


def test_imports_go_only_downwards_and_the_core_is_pure() -> None:
    # In its own process: within pytest's, the linter left the captured streams closed.
    result = run_python("from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])")
    assert result.returncode == 0, result.stdout + result.stderr


def test_files_are_short() -> None:
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert len(sources) > 1
    lines = {str(path.relative_to(ROOT)): line_count(path) for path in sources}
    assert {name: count for name, count in lines.items() if count > MAX_LINES_PER_FILE} == {}


def test_pure_core_reads_in_an_hour() -> None:
    # Lines that are read: code, comments and docstrings; blank ones and lists of names cost nobody time.
    lines = {
        room: sum(
            text_line_count(path)
            for path in (PACKAGE / room).rglob("*.py")
            if path.name not in BEYOND_THE_CORE.get(room, set()) | {"__init__.py"}
        )
        for room in PURE_CORE
    }
    assert all(lines.values()), f"a room of the core is empty: {lines}"
    assert sum(lines.values()) <= MAX_LINES_OF_PURE_CORE, lines


def test_import_changes_nothing_outside_the_package() -> None:
    result = run_python(IMPORT_QUIETLY)
    assert result.stdout.strip() == "[]", f"importing pamiq_jax changed {result.stdout}{result.stderr}"


def test_types_ship_with_the_package() -> None:
    assert importlib.resources.files("pamiq_jax").joinpath("py.typed").is_file()


def test_no_file_names_a_path_of_one_machine() -> None:
    assert [place for path in text_files() for place in machine_paths(path)] == []


@pytest.mark.parametrize("line", ["see /home" + "/ada/runs", "'/root" + "/x'", "(/Users" + "/ada)", "cd /tmp" + "/x"])
def test_a_path_of_one_machine_is_recognized(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["https://jax.dev/home/x", "runs/tmp/x", "~/work/x", "python /path/to/python3.12"])
def test_other_paths_are_allowed(line: str) -> None:
    assert not MACHINE_PATH.search(line)
