from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from pamiq_jax.demo import braille
from pamiq_jax.demo.frame import Frame, plain_line, training_reason
from pamiq_jax.demo.live import panel
from pamiq_jax.demo.report import summarize, write_report
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from tests.demo import frames

SUMMARY_KEYS = {
    "solved",
    "seconds",
    "environment_steps",
    "train_steps",
    "versions_published",
    "mean_return_last_100",
    "best_mean_return_100",
    "inference_latency_ms",
    "staleness_seconds",
    "compiles_after_ready",
    "torn_reads",
    "dropped_records",
    "seed",
}


def printed(frame: Frame, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(panel(frame, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [78, 80, 118, 200])
@pytest.mark.parametrize("frame", [frames.NOT_STARTED, frames.running(), frames.solved()])
def test_the_panel_fits_the_terminal_and_nothing_is_cut_off(frame: Frame, width: int) -> None:
    lines = printed(frame, width)
    assert {len(line) for line in lines} == {min(width, 120)}
    assert "…" not in "".join(lines)
    assert len(lines) <= 24


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_says_what_a_viewer_asks_for(width: int) -> None:
    text = "\n".join(printed(frames.running(), width))
    for part in (
        "● running",
        "12 of 64 new records, 7 more on their way",
        "with version 42, 0.05 s old",
        "123.4, best -",
        "9,876 steps/s, 7,950",
        "12.3 steps/s, 43",
        "2 dropped, 0 torn",
        "p50 0.49, p99 0.49 ms",
        "13.0 of 60 s, seed 5",
    ):
        assert part in text


def test_the_panel_shows_errors() -> None:
    frame = frames.running()
    frame = frame._replace(status=frame.status._replace(errors=("worker 'trainer ppo' failed: ValueError: no",)))
    assert "worker 'trainer ppo' failed" in "\n".join(printed(frame, 80))


def test_the_reason_names_what_training_waits_for() -> None:
    assert training_reason(frames.NOT_STARTED) == "until everything is compiled"
    assert training_reason(frames.running(TrainerPhase.TRAINING, "64 of 64 new records")) == "64 of 64 new records"
    assert training_reason(frames.running(TrainerPhase.STOPPED)) == "after 43 runs"


def test_the_plain_line() -> None:
    line = plain_line(frames.running())
    assert line.startswith(" 13.0 s  running ")
    assert "return 123.4 of 99 episodes" in line
    assert "trainer waiting: 12 of 64 new records, 7 more on their way" in line
    assert plain_line(frames.NOT_STARTED) == "  0.5 s  compiling  not acting yet"
    failed = frames.NOT_STARTED.status._replace(phase=SystemPhase.FAILED, errors=("it broke",))
    assert plain_line(frames.NOT_STARTED._replace(status=failed)).endswith("it broke")


def test_a_line_is_connected_and_stays_within_its_axes() -> None:
    axes = braille.Axes(columns=6, rows=3, right=1.0, top=1.0)
    grid = braille.line(axes, [(0.0, -1.0), (0.5, 2.0), (1.0, 0.0)])
    assert all(any(row[column] for row in grid) for column in range(6))
    assert braille.characters(braille.scatter(axes, [(0.0, 1.0)]))[0] == "⠁     "
    assert braille.characters(braille.line(axes, [])) == ["      "] * 3


def test_the_summary_has_every_number() -> None:
    summary = summarize(frames.solved())
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["solved"], summary["seconds"], summary["seed"]) == (True, 12.5, 5)
    assert (summary["mean_return_last_100"], summary["best_mean_return_100"]) == (480.0, 480.0)
    assert (summary["dropped_records"], summary["versions_published"]) == (2, 43)
    assert "error" not in summary


def test_what_was_never_measured_is_null_in_the_summary() -> None:
    summary = summarize(frames.NOT_STARTED, error="ValueError: no")
    assert summary["error"] == "ValueError: no"
    assert summary["mean_return_last_100"] is None
    assert summary["inference_latency_ms"] == {"p50": None, "p99": None}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("frame", [frames.NOT_STARTED, frames.running(), frames.solved()])
def test_both_files_are_written_even_when_nothing_has_happened(frame: Frame, tmp_path: Path) -> None:
    write_report(tmp_path, summarize(frame), frame.curve)
    assert json.loads((tmp_path / "summary.json").read_text())["seed"] == frame.seed
    with Image.open(tmp_path / "learning_curve.png") as picture:
        assert picture.size == (1280, 720)
        assert len(picture.convert("L").getcolors(256) or []) > 10
