"""The examples in README and docs run, and print what the pages say they print.

Blocks of python are executed from top to bottom, all blocks of a page in one namespace. If a block of text follows
directly, it is what the block must print, `...` standing for anything. A block that raises must say so, in the text
that follows (`SomeError: message`) or in a comment (`# raises SomeError`).
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(?P<source>.*?)^```\n(?:\s*```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Example(NamedTuple):
    line: int
    source: str
    output: str | None


def examples(page: Path) -> list[Example]:
    text = page.read_text()
    return [
        Example(text.count("\n", 0, match.start()) + 1, match["source"], match["output"])
        for match in BLOCK.finditer(text)
    ]


def run(example: Example, page: Path, namespace: dict[str, object]) -> str:
    # Empty lines in front, so that a traceback names the page's own lines.
    code = compile("\n" * example.line + example.source, str(page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            exec(code, namespace)
        except Exception as error:
            name = type(error).__name__
            if f"# raises {name}" not in example.source and f"{name}: " not in (example.output or ""):
                raise
            if example.output is not None:
                print(f"{name}: {error}")
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for example in examples(page):
        got = run(example, page, vars(module))
        if example.output is not None:
            is_right = doctest.OutputChecker().check_output(example.output, got, OPTIONS)
            assert is_right, f"{page.relative_to(ROOT)}, line {example.line}, prints\n{got}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
