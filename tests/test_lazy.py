"""Names that are imported when they are first used: all are there, and for the others nothing is loaded."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pamiq_jax as pj

ROOT = Path(__file__).parents[1]
PACKAGES = [
    "pamiq_jax",
    *(
        f"pamiq_jax.{path.parent.name}"
        for path in sorted((ROOT / "pamiq_jax").glob("*/__init__.py"))
        if "lazy_names(" in path.read_text(encoding="utf-8")
    ),
]
WRITER = ("checkpoint.blocks", "checkpoint.directory", "checkpoint.files", "checkpoint.manifest", "checkpoint.pruning")
README_NAMES = ("System", "Model", "ring_buffer", "Schedule", "gradient_trainer", "min_new", "Interaction", "Agent")
NOT_FOR_A_PLAIN_RUN = {
    "pamiq_jax.checkpoint.store",
    "pamiq_jax.lifecycle.picture",
    "pamiq_jax.recording.log",
    "pamiq_jax.runtime.recorder",
    "pamiq_jax.runtime.saver",
    "pamiq_jax.runtime.scanned",
    "pamiq_jax.trainer.from_step",
}


def loaded_after(program: str) -> set[str]:
    """Return the modules that a process of its own has loaded when it has run a program."""
    code = f"import sys\n{program}\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def seen_by_type_checkers(package: str) -> dict[str, str]:
    """Return the names that stand under `TYPE_CHECKING`, and the module that each is said to come from."""
    tree = ast.parse(Path(str(importlib.import_module(package).__file__)).read_text(encoding="utf-8"))
    (block,) = (part for part in tree.body if isinstance(part, ast.If))
    imports = [part for part in block.body if isinstance(part, ast.ImportFrom)]
    return {alias.name: str(part.module) for part in imports for alias in part.names}


def test_the_rooms_are_lazy() -> None:
    assert {"pamiq_jax", "pamiq_jax.checkpoint", "pamiq_jax.runtime", "pamiq_jax.trainer"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_and_the_interpreter_see_the_same_names(package: str) -> None:
    module, seen = importlib.import_module(package), seen_by_type_checkers(package)
    assert set(seen) == set(module.__all__) <= set(dir(module))
    assert len(module.__all__) == len(set(module.__all__))
    for name, origin in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(origin), name), name


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_hides_a_name(package: str) -> None:
    module = importlib.import_module(package)
    assert {found.name for found in pkgutil.iter_modules(module.__path__)} & set(module.__all__) == set()


def test_a_star_import_brings_every_name() -> None:
    names: dict[str, object] = {}
    exec("from pamiq_jax import *", names)
    assert set(pj.__all__) <= set(names)


@pytest.mark.parametrize("name", ["ring_bufer", "_private"])
def test_a_name_that_is_not_there_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'pamiq_jax' has no attribute '{name}'"):
        getattr(pj, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}'"):
        exec(f"from pamiq_jax import {name}")


def test_rooms_are_attributes_without_an_import_of_their_own() -> None:
    loaded = loaded_after("import pamiq_jax\npamiq_jax.errors.PamiqError, pamiq_jax.checkpoint.StateStore")
    assert "pamiq_jax.checkpoint.store" in loaded


def test_what_is_missing_within_a_module_is_said_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_rooms"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "from pamiq_jax.lazy import lazy_names\n__getattr__, __dir__ = lazy_names(__name__, {})\n"
    )
    package.joinpath("broken.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        importlib.import_module("some_rooms").broken  # noqa: B018 - looked up, and so imported


def test_the_first_use_may_be_in_a_thread() -> None:
    program = (
        "from concurrent.futures import ThreadPoolExecutor\nimport pamiq_jax as pj\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: (pj.launch, pj.System, pj.ema, pj.tune_chunks), range(4)))\n"
        "assert len(set(found)) == 1"
    )
    assert "pamiq_jax.runtime.launching" in loaded_after(program)


def test_what_writes_states_needs_no_jax() -> None:
    loaded = loaded_after("\n".join(f"import pamiq_jax.{module}" for module in (*WRITER, "errors")))
    assert "jax" not in loaded


def test_a_plain_run_loads_nothing_that_it_does_not_use() -> None:
    loaded = loaded_after("import pamiq_jax as pj\n" + "\n".join(f"pj.{name}" for name in (*README_NAMES, "launch")))
    assert "pamiq_jax.runtime.launching" in loaded
    assert "pamiq_jax.runtime.engine" not in loaded, "it is imported when launch is called"
    assert loaded & NOT_FOR_A_PLAIN_RUN == set()
