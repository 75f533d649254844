"""What docs/examples.md quotes is what the examples say."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from examples.__main__ import main, names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
QUOTATION = re.compile(r'^```py title="(?P<file>[^"]+)"\n(?P<lines>.*?)^```', re.MULTILINE | re.DOTALL)


def quotations() -> list[tuple[str, str]]:
    return [(match["file"], match["lines"]) for match in QUOTATION.finditer(PAGE)]


@pytest.mark.parametrize(("file", "lines"), quotations(), ids=lambda value: value.split("\n")[0])
def test_a_quotation_is_part_of_its_file(file: str, lines: str) -> None:
    # Functions on the page may be quoted from within others, so without their indentation.
    source = (ROOT / file).read_text(encoding="utf-8")
    depths = {len(line) - len(line.lstrip()) for line in source.splitlines() if line.strip()}
    assert any(textwrap.indent(lines, " " * depth) in source for depth in depths)


def test_an_unknown_example_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["poo"]) == 2
    assert f"unknown: poo; the examples are {', '.join(names())}" in capsys.readouterr().err
