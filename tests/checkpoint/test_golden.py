"""States that version 1 wrote are read by every version after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pamiq_jax.checkpoint import StateStore
from scripts.golden_state import golden_facts, golden_value
from tests.checkpoint.values import assert_same

GOLDEN = Path(__file__).parents[1] / "golden" / "state-v1"


def test_the_golden_states_are_sound() -> None:
    store = StateStore(GOLDEN)
    assert [(report.number, report.problems) for report in store.verify()] == [(1, ()), (2, ())]
    assert [state.facts for state in store.states()] == [golden_facts(1), golden_facts(2)]
    assert [state.created_at for state in store.states()] == [1_763_000_001.25, 1_763_000_002.25]


@pytest.mark.parametrize("number", [1, 2])
def test_the_golden_states_are_read(number: int) -> None:
    assert_same(StateStore(GOLDEN).read(number), golden_value(number))


def test_the_golden_states_can_be_gone_on_from(tmp_path: Path) -> None:
    directory = tmp_path / "states"
    shutil.copytree(GOLDEN, directory)
    store = StateStore(directory, block_bytes=512)
    info = store.write(golden_value(2), facts={}, created_at=0)
    assert (info.number, info.written_bytes) == (3, 0)


def test_they_are_small_and_nothing_changes_their_line_ends() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 50_000
    assert "tests/golden/** -text" in (GOLDEN.parents[2] / ".gitattributes").read_text()
