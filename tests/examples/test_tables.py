"""Tables of several seeds, and where figures go."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from examples import figures, tables
from examples.__main__ import main, names, seeds_of


def half(seed: int, ticks: int) -> dict[str, float]:
    return {"score": ticks / 2 + seed, "at random": 1.25}


def test_a_table_has_a_row_for_each_seed_and_one_of_medians() -> None:
    head, rule, *rows = tables.lines(tables.Experiment(half, ticks=10), [0, 3, 1])
    assert head == "| seed | score | at random | wall seconds |"
    assert rule == "|---:|---:|---:|---:|"
    assert [row.split("|")[1:4] for row in rows] == [
        [" 0 ", " 5 ", " 1 "],
        [" 3 ", " 8 ", " 1 "],
        [" 1 ", " 6 ", " 1 "],
        [" median ", " 6 ", " 1 "],
    ]


def test_ticks_can_be_others_and_digits_are_the_experiments() -> None:
    rows = list(tables.lines(tables.Experiment(half, ticks=10, digits=2), [0], ticks=7))
    assert rows[2].startswith("| 0 | 3.50 | 1.25 | ")


@pytest.mark.parametrize(("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("7", [7]), ("0,2", [0, 2])])
def test_seeds_as_they_are_written(text: str, seeds: list[int]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["4-0", "a", ""])
def test_what_are_no_seeds_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["ppo", "--seeds", text])
    assert "--seeds: invalid" in capsys.readouterr().err


def test_an_example_without_a_table_is_refused_with_those_that_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vae", "--seeds", "0"]) == 2
    assert "unknown: vae; the examples are curiosity, dreamer, pendulum, ppo" in capsys.readouterr().err


def test_the_command_prints_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.EXPERIMENTS, "ppo", tables.Experiment(half, ticks=10))
    assert main(["ppo", "--seeds", "0-1", "--ticks", "4"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "== ppo, 4 ticks"
    assert [line.split("|")[1].strip() for line in printed[1:]] == ["seed", "---:", "0", "1", "median"]


@pytest.mark.parametrize("name", ["pendulum", "ppo"])
def test_an_even_agent_is_no_good(name: str) -> None:
    returns = tables.random_return({"pendulum": tables.ppo.PENDULUM, "ppo": tables.ppo.CARTPOLE}[name], seed=0)
    assert {"pendulum": -1500 < returns < -800, "ppo": 10 < returns < 40}[name], returns


@pytest.mark.parametrize("options", [[], ["--write"]], ids=["a run", "for the documentation"])
def test_a_figure_is_one_of_the_documentation_only_if_asked(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []

    def draw(directory: Path = figures.RUNS) -> None:
        given.append(directory)

    monkeypatch.setattr("examples.vae.main", draw)
    assert main(["vae", *options]) == 0
    assert given == [figures.DOCS if options else figures.RUNS]


@pytest.mark.parametrize("name", names())
def test_an_example_alone_leaves_the_documentation_as_it_is(name: str) -> None:
    parameters: Any = inspect.signature(importlib.import_module(f"examples.{name}").main).parameters
    assert "directory" not in parameters or parameters["directory"].default == figures.RUNS
    assert figures.RUNS.parts[-2:] == ("runs", "examples")
