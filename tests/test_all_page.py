"""The page with every public name is what the docstrings say, and its own examples run."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import pamiq_jax as pj

ROOT = Path(__file__).parents[1]


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("all_page", ROOT / "scripts" / "all_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "all.md").read_text(encoding="utf-8")
    assert written == SCRIPT.page(), "run: python scripts/all_page.py"


def test_every_public_name_has_one_line_and_one_example() -> None:
    sections = re.split(r"^### ", SCRIPT.page(), flags=re.MULTILINE)[1:]
    without = [section.split("\n")[0] for section in sections if "```pycon\n>>> " not in section]
    assert without == []
    assert {section.split("\n")[0] for section in sections} >= {f"pj.{name}" for name in pj.__all__}


@pytest.mark.parametrize("name", SCRIPT.EXAMPLES)
def test_examples_that_no_docstring_has(name: str) -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=OPTIONS)
    test = parser.get_doctest(SCRIPT.EXAMPLES[name], {"pj": pj}, name, str(ROOT / "scripts" / "all_page.py"), 0)
    output: list[str] = []
    result = runner.run(test, out=output.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(output)
