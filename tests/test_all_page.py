"""The page with every public name is what the docstrings say, and its own examples run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import pamiq_jax as pj
from pamiq_jax import errors

ROOT = Path(__file__).parents[1]


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("all_page", ROOT / "scripts" / "all_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
ROOMS = sorted(
    path.parent.name if path.name == "__init__.py" else path.stem
    for path in [*(ROOT / "pamiq_jax").glob("*/__init__.py"), *(ROOT / "pamiq_jax").glob("*.py")]
    if path.parent.name != "pamiq_jax" or path.name != "__init__.py"
    if "__all__ = [" in path.read_text(encoding="utf-8")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "all.md").read_text(encoding="utf-8")
    assert written == SCRIPT.page(), "run: python scripts/all_page.py"


def test_every_public_name_has_one_line_and_one_example() -> None:
    sections = re.split(r"^### ", SCRIPT.page(), flags=re.MULTILINE)[1:]
    without = [section.split("\n")[0] for section in sections if "```pycon\n>>> " not in section]
    assert without == []
    assert {section.split("\n")[0] for section in sections} >= {f"pj.{name}" for name in pj.__all__}


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_that_a_room_exports_is_there(room: str) -> None:
    chapters = re.split(r"^## ", SCRIPT.page(), flags=re.MULTILINE)[1:]
    (chapter,) = [each for each in chapters if f"(`pamiq_jax.{room}`)" in each.split("\n")[0]] or [""]
    listed = set(re.findall(r"^### (\w+)$|^\| `(\w+)` \|", chapter, flags=re.MULTILINE))
    names = {one or other for one, other in listed}
    exported = set(importlib.import_module(f"pamiq_jax.{room}").__all__)
    assert names == exported - set(pj.__all__)


def test_every_error_is_there_with_a_line() -> None:
    chapter = SCRIPT.page().split("(`pamiq_jax.errors`)\n")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", chapter, flags=re.MULTILINE))
    assert set(rows) == {name for name, thing in vars(errors).items() if is_error(thing)}
    assert all(text.endswith(".") for text in rows.values())


def is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.PamiqError)


@pytest.mark.parametrize("name", SCRIPT.EXAMPLES)
def test_examples_that_no_docstring_has(name: str) -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=OPTIONS)
    test = parser.get_doctest(SCRIPT.EXAMPLES[name], {"pj": pj}, name, str(ROOT / "scripts" / "all_page.py"), 0)
    output: list[str] = []
    result = runner.run(test, out=output.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(output)
