"""Each scenario in its short form loses nothing, and the harness itself notices a loss."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateInfo, StateStore
from tests.chaos.kills import check_records, check_states
from tests.chaos.rows import Losses, Row, table
from tests.chaos.scenarios import BEGIN, END, PAGE, SCENARIOS, run_scenario, write_page
from tests.chaos.systems import busy_system
from tests.chaos.victim import described


@pytest.fixture
def quiet() -> Iterator[None]:
    logger = logging.getLogger("pamiq_jax")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost(name: str) -> None:
    rows = run_scenario(name, seed=0, is_long=False)
    assert rows
    assert [(row.tried, row.lost) for row in rows if not row.passed] == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StateInfo]:
    place = tmp_path_factory.mktemp("run")
    pj.run_lockstep(busy_system(interval_seconds=None), 6, directory=place)
    info = StateStore(place).latest()
    assert info is not None
    return place, info


class TestHarness:
    def losses_of(self, place: Path, acknowledged: dict[str, Any] | None) -> tuple[str, ...]:
        losses = Losses()
        check_states(place, acknowledged, losses)
        return losses.found

    def test_a_sound_state_is_no_loss(self, saved: tuple[Path, StateInfo]) -> None:
        place, info = saved
        assert self.losses_of(place, described(info)) == ()

    @pytest.mark.parametrize(
        "change", [{"number": 2}, {"version": 99}, {"steps": {"fit": 99}}, {"ticks": {"agent": 99}}]
    )
    def test_an_acknowledged_save_that_is_gone_is_noticed(
        self, saved: tuple[Path, StateInfo], change: dict[str, Any]
    ) -> None:
        place, info = saved
        acknowledged = {**(described(info) or {}), **change}
        assert [found.split("{")[0] for found in self.losses_of(place, acknowledged)] == ["acknowledged save "]

    @pytest.mark.parametrize("what", ["lost", "doubled"])
    def test_a_record_that_is_lost_or_doubled_is_noticed(self, saved: tuple[Path, StateInfo], what: str) -> None:
        place, info = saved
        value, losses = StateStore(place).read(info), Losses()
        numbers = value["leaves"]["['buffers']['seen']['state'].records.data['observation']"]
        check_records(value, losses)
        assert losses.found == ()
        numbers[2, 0] = 99 if what == "lost" else numbers[1, 0]
        check_records(value, losses)
        assert [found.split(":")[0] for found in losses.found] == ["records lost or doubled"]

    def test_a_damaged_state_is_noticed(self, saved: tuple[Path, StateInfo]) -> None:
        place, _ = saved
        block = next(path for path in (place / "blocks").rglob("*") if path.is_file())
        sound = block.read_bytes()
        block.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        try:
            store = StateStore(place)
            assert [report.is_sound for report in store.verify()] == [False]
        finally:
            block.write_bytes(sound)

    def test_a_loss_is_shown(self) -> None:
        assert table([Row("a", 2, "b", ("c", "d"))]).splitlines()[-1] == "| a | 2 | b | **c; d** |"

    def test_the_page_keeps_what_is_around_the_table(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"before\n{BEGIN}old\n{END}after\n")
        write_page([Row("a", 1, "b")], {"seed": "3"}, today=datetime.date(2026, 11, 25), path=page)
        text = page.read_text()
        assert text.startswith(f"before\n{BEGIN}2026-11-25, ")
        assert text.endswith(f"; seed 3.\n\n{table([Row('a', 1, 'b')])}\n{END}after\n")

    def test_the_committed_table_lost_nothing(self) -> None:
        rows = [line for line in PAGE.read_text().split(BEGIN)[1].splitlines() if line.startswith("| ")]
        assert len(rows) > len(SCENARIOS)
        assert [row for row in rows[1:] if not row.endswith("| nothing |")] == []
