"""The diagrams hold the whole table, and the docs hold the diagrams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.lifecycle import SYSTEM_TRANSITIONS, TRAINER_TRANSITIONS, SystemPhase, mermaid
from scripts.lifecycle_diagrams import main, refresh

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "lifecycle.md"
TABLES: list[Any] = [pytest.param(TRAINER_TRANSITIONS, id="trainer"), pytest.param(SYSTEM_TRANSITIONS, id="system")]
EMPTY = "".join(f"before\n<!-- {name} diagram -->\n```mermaid\n```\nafter\n" for name in ("trainer", "system"))


def arrows(diagram: str) -> set[tuple[str, str, str]]:
    """Read (source, event, target) back from a diagram, with the common nodes unfolded."""
    found = re.findall(r"^ {4}(\S+) --> (\S+): (\S+)$", diagram, re.MULTILINE)
    drawn_alone = {source for source, _, _ in found} | {target for _, target, _ in found}
    final = set(re.findall(r"(\S+) --> \[\*\]", diagram))
    alive = {node for node in drawn_alone - final if not node.startswith("any_phase")}
    unfolded: set[tuple[str, str, str]] = set()
    for source, target, event in found:
        excluded = set(source.split("_but_")[1:])
        sources = alive - excluded if source.startswith("any_phase") else {source}
        unfolded |= {(phase, event, target) for phase in sources}
    return unfolded


@pytest.mark.parametrize("table", TABLES)
def test_the_diagram_reads_back_as_the_table(table: Any) -> None:
    assert arrows(mermaid(table)) == {(source, event, target) for (source, event), target in table.items()}


@pytest.mark.parametrize("table", TABLES)
def test_the_diagram_marks_the_first_phase_and_the_final_ones(table: Any) -> None:
    lines = mermaid(table).splitlines()
    assert lines[:2] == ["stateDiagram-v2", f"    [*] --> {next(iter(table))[0]}"]
    assert {line for line in lines if line.endswith("--> [*]")} == {"    stopped --> [*]", "    failed --> [*]"}
    assert len(lines) == len(set(lines))


def test_the_current_phase_is_highlighted() -> None:
    plain, live = mermaid(SYSTEM_TRANSITIONS), mermaid(SYSTEM_TRANSITIONS, SystemPhase.PAUSED)
    assert live.startswith(plain)
    assert live.endswith("    class paused current\n")
    assert "class" not in plain


def test_the_docs_show_the_tables_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in (("trainer", TRAINER_TRANSITIONS), ("system", SYSTEM_TRANSITIONS)):
        assert f"<!-- {name} diagram -->\n```mermaid\n{mermaid(table)}```\n" in page
    assert refresh(page) == page


def test_refreshing_replaces_only_the_diagrams() -> None:
    once = refresh(EMPTY)
    stale = once.replace("waiting", "idle")
    assert refresh(stale) == once
    assert re.sub(r"```mermaid\n.*?```", "```mermaid\n```", once, flags=re.DOTALL) == EMPTY


def test_main_rewrites_a_file_in_place_also_when_it_gets_shorter(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(EMPTY.replace("```mermaid\n", "```mermaid\n" + "stale line\n" * 500), encoding="utf-8")
    main([str(path)])
    assert path.read_text(encoding="utf-8") == refresh(EMPTY)


@pytest.mark.parametrize("name", ["trainer", "system"])
def test_a_page_without_a_marked_block_is_refused(name: str) -> None:
    unmarked = EMPTY.replace(f"<!-- {name} diagram -->", "")
    with pytest.raises(InvalidValueError, match=f"mermaid block right below <!-- {name} diagram -->"):
        refresh(unmarked)
