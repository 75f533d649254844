"""The demo as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pamiq_jax import cli
from pamiq_jax.demo import session

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-W", "error", "-m", "pamiq_jax", "demo", "cartpole")
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_PLATFORMS": "cpu"}


def environment() -> dict[str, str]:
    return {**os.environ, **STRICT, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}


def run_demo(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=200, check=False
    )


def read_summary(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())


def read_until_learning(process: subprocess.Popen[str]) -> str:
    """Return what was printed up to the line that shows a published version; ends with the process at the latest."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if re.search(r"version [1-9]", line):
            return "".join(lines)
    raise AssertionError(f"the demo published nothing: {lines}")


def test_a_short_run_leaves_its_files_and_honest_numbers(tmp_path: Path) -> None:
    result = run_demo(tmp_path, "--seconds", "25", "--seed", "7", "--plain")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (directory,) = (tmp_path / "runs" / "cartpole").iterdir()
    assert {"summary.json", "metrics.jsonl", "learning_curve.png"} <= {path.name for path in directory.iterdir()}
    summary = read_summary(directory)
    assert summary["seed"] == 7
    assert "error" not in summary
    assert summary["environment_steps"] > 0
    assert summary["train_steps"] == summary["versions_published"] > 0
    assert (summary["torn_reads"], summary["compiles_after_ready"], summary["dropped_records"]) == (0, 0, 0)
    assert summary["inference_latency_ms"]["p99"] >= summary["inference_latency_ms"]["p50"] > 0
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == summary["train_steps"]
    assert "running" in result.stdout
    assert str(directory.relative_to(tmp_path)) in result.stdout


def test_an_interrupt_ends_it_cleanly_with_a_summary(tmp_path: Path) -> None:
    command = [*COMMAND, "--plain", "--directory", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        read_until_learning(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert "Interrupted after" in output
    summary = read_summary(tmp_path)
    assert summary["train_steps"] > 0
    assert "error" not in summary


def test_a_failure_is_in_the_summary_and_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ValueError("no poles left")

    monkeypatch.setattr(session, "cartpole_system", broken)
    assert session.run_cartpole(directory=tmp_path, plain=True) == 1
    assert read_summary(tmp_path)["error"] == "ValueError: no poles left"
    assert "no poles left" in capsys.readouterr().out


def test_a_worker_that_fails_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stumbling(session.Recorder):
        def __call__(self, report: Any) -> None:
            raise ArithmeticError("stumbled")

    monkeypatch.setattr(session, "Recorder", Stumbling)
    assert session.run_cartpole(directory=tmp_path, plain=True) == 1
    assert "ArithmeticError: stumbled" in read_summary(tmp_path)["error"]


def test_the_files_of_another_run_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_text("{}")
    assert session.run_cartpole(directory=tmp_path, plain=True) == 1
    assert "holds the summary.json of another run; name a new --directory" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == "{}"


def test_a_missing_extra_is_one_line_that_says_how_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo", "cartpole"]) == 1
    error = capsys.readouterr().err
    assert error == "the demo needs gymnasium, matplotlib, rich: pip install 'pamiq-jax[demo]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "cartpole", "--seconds", "0"], "0 is not a number of seconds above 0"),
        (["demo", "cartpole", "--seconds", "nan"], "nan is not a number of seconds above 0"),
        (["demo", "cartpole", "--seed", "-1"], "-1 is not an integer from 0 to 2147483647"),
        (["demo", "cartpole", "--seed", "one"], "one is not an integer from 0 to 2147483647"),
        (["demo"], "example"),
        ([], "command"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert message in capsys.readouterr().err
