"""All that is tried, in the order of the table, and the page that the table goes to."""

from __future__ import annotations

import datetime
import os
import platform
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos import clocks, disks, environments, finite, kills, overflow, soak, trainers
from tests.chaos.rows import Form, Row, Scenario, table

SCENARIOS: dict[str, Scenario] = {
    "kills": kills.killed_and_resumed,
    "full_disk": disks.full,
    "failing_files": disks.failing_once,
    "read_only": disks.read_only,
    "not_finite": finite.poisoned,
    "raising_trainers": trainers.raising,
    "hanging_trainer": trainers.hanging,
    "raising_environments": environments.raising,
    "hanging_environment": environments.hanging,
    "wall_clock": clocks.stepped,
    "slow_trainer": overflow.slow_trainer,
    "slow_disk": overflow.slow_disk,
    "slow_metrics": overflow.slow_metrics,
    "soak": soak.soaked,
}
"""By name."""

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def run_scenario(name: str, *, seed: int, is_long: bool, minutes: float = 30.0) -> list[Row]:
    """Return the rows of one scenario; what it tries is the same for the same seed, whatever is tried beside it.

    Args:
        name: of the scenario.
        seed: of all chance in it.
        is_long: the long form or the short one.
        minutes: how long the soak lasts, in the long form.
    """
    return SCENARIOS[name](Form(random.Random(f"{seed} {name}"), is_long, minutes))


def machine() -> str:
    """Return what the scenarios run on, for people."""
    return f"{os.cpu_count()} cores, {platform.system()} on {platform.machine()}, Python {platform.python_version()}"


def write_page(rows: Sequence[Row], facts: Mapping[str, str], *, today: datetime.date, path: Path = PAGE) -> None:
    """Put the table into its page, between two marks, with the date.

    Args:
        rows: of the table.
        facts: what else to say of the run.
        today: the date.
        path: of the page.
    """
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    said = "; ".join(f"{name} {value}" for name, value in facts.items())
    path.write_text(
        f"{before}{BEGIN}{today.isoformat()}, {machine()}; {said}.\n\n{table(rows)}\n{END}{after}", encoding="utf-8"
    )
