"""The benchmarks themselves measure; here is only that they are all there, and that the page says what the rows say."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.goals import beside, distance, headline, is_reached, parse_goal
from benchmarks.harness import Comparison, report, rounded
from benchmarks.page import Machine, kept_rows, page, write_page

ROOT = Path(__file__).parents[1]
HELPERS = {"__init__", "__main__", "causes", "goals", "harness", "page", "plots", "two_threads"}
ASKED_FOR = (
    "publish",
    "inference_latency",
    "train_throughput",
    "vae_pamiq",
    "ingest",
    "sample",
    "idle_cpu",
    "pause",
    "checkpoint_stall",
    "record_overhead",
    "recompiles",
    "memory",
    "tick_overhead",
    "startup",
)
MACHINE = Machine("2026-01-02", "a processor", 2, "0.1, 0.1, 0.1", "Python 3.12, jax 0.12", "flashbax 0.1.3")


def row(name: str, ours: float, reference: float | None, goal: str, **more: object) -> dict[str, object]:
    comparison = Comparison([ours] * 5, [] if reference is None else [reference] * 5)
    return report(name, comparison, reference_name="bare", unit="ms", goal=goal, more=more)


def test_every_question_has_a_benchmark() -> None:
    assert set(ASKED_FOR) <= set(NAMES)
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == set(NAMES) | HELPERS


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_is_a_module_with_measure(name: str) -> None:
    # Read, not imported: some import what only measuring needs.
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
    measures = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "measure"]
    assert [[argument.arg for argument in node.args.kwonlyargs] for node in measures] == [["quick"]]
    assert ast.get_docstring(tree)


@pytest.mark.parametrize(
    ("goal", "parsed"),
    [
        ("<= 1.2 times", ("ratio", "<=", 1.2)),
        ("ours == 0", ("ours", "==", 0.0)),
        (">= 2,000", ("ratio", ">=", 2000.0)),
    ],
)
def test_goals_are_read(goal: str, parsed: tuple[str, str, float]) -> None:
    assert parse_goal(goal) == parsed


def test_an_unreadable_goal_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast' is not like"):
        parse_goal("fast")


def test_rows_are_judged() -> None:
    fast, slow = row("a", 1.0, 2.0, "<= 1"), row("b", 4.0, 2.0, "<= 1")
    assert (is_reached(fast), is_reached(slow)) == (True, False)
    assert (distance(fast), distance(slow)) == (0.5, 2.0)
    assert distance(row("c", 1.0, 2.0, ">= 1")) == 2.0
    alone = row("d", 0.0, None, "ours == 0")
    assert (alone["ratio"], headline(alone), is_reached(alone), distance(alone)) == (None, 0.0, True, None)
    assert is_reached(row("e", 1.0, None, "<= 1")) is None


def test_figures_beside_have_goals_of_their_own() -> None:
    with_goal = row("a", 1.0, 1.0, "<= 1", p50_ratio=1.2, p50_goal="<= 1.05", other=3)
    assert beside(with_goal) == [("p50_ratio", 1.2, "<= 1.05")]


def test_figures_are_rounded_wherever_they_are() -> None:
    assert rounded({"a": [0.123456789, 12345678.9], "b": "text", "c": None}) == {
        "a": [0.12346, 12346000.0],
        "b": "text",
        "c": None,
    }


def test_the_page_says_what_was_measured_and_what_misses() -> None:
    rows = [row("publish", 1.0, 2.0, "<= 3"), row("ingest: collect", 9.0, 3.0, "<= 1", bytes_copied=277)]
    text = page(rows, MACHINE, {"Goals": "goals.png"})
    assert "| `publish` | 1 (1 to 1) | 2 (2 to 2), bare | ms | 0.5 | <= 3 | yes |" in text
    assert "| 3 | <= 1 | **no** |" in text
    assert "| `publish` (quick) | " in page([{**rows[0], "is_quick": True}], MACHINE, {})
    assert "- `ingest: collect`: 3, goal <= 1. Cause: four leaves are checked and copied" in text
    assert "- bytes_copied: `277`" in text
    assert "2026-01-02; a processor, 2 cores" in text
    assert "![Goals](images/benchmarks/goals.png)" in text
    assert "Nothing misses its goal." in page(rows[:1], MACHINE, {})


def test_the_page_as_it_stands_was_measured_in_full_and_has_a_cause_for_all_that_misses() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "not looked into yet" not in text
    assert "(quick)" not in text


def test_rows_of_other_benchmarks_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row("publish", 1.0, 2.0, "<= 3"), row("ingest: collect", 9.0, 3.0, "<= 1")]))
    kept = kept_rows(path, [row("publish", 5.0, 2.0, "<= 3")])
    assert [(one["name"], one["ours"]) for one in kept] == [("ingest: collect", 9.0), ("publish", 5.0)]
    assert kept_rows(tmp_path / "none.json", []) == []


def test_page_pictures_and_rows_are_written(tmp_path: Path) -> None:
    percentiles = {condition: {"ours": [1, 2, 3], "bare": [1, 2, 2]} for condition in ("idle", "training")}
    rows = [
        row("publish", 1.0, 2.0, "<= 3", microseconds_by_size={"10": 2.0, "100": 3.0}, jitted_copy_of_largest_us=9.0),
        row("inference_latency: at 50 Hz", 1.0, 1.0, "<= 1.15", p50_p99_p999_ms=percentiles),
    ]
    path = write_page(rows, "none", docs=tmp_path)
    assert path.read_text().startswith("# Speed, measured\n")
    folder = tmp_path / "images" / "benchmarks"
    assert {file.name for file in folder.iterdir()} == {"rows.json", "goals.png", "publish.png", "latency.png"}
    assert [one["name"] for one in json.loads((folder / "rows.json").read_text())] == [
        "inference_latency: at 50 Hz",
        "publish",
    ]


def test_peers_requirements_name_no_registry() -> None:
    text = (ROOT / "benchmarks" / "peers" / "requirements.txt").read_text()
    pinned = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert set(pinned) == {"flashbax", "pamiq-core", "torch"}


def test_harness_reports_medians_and_their_spread() -> None:
    got = report("a", Comparison([1, 3, 2], [4, 4, 8]), reference_name="b", unit="s", goal="<= 1")
    assert (got["ours"], got["reference"], got["ratio"], got["runs"]) == (2, 4, 0.5, 3)
    assert (got["ours_min_max"], got["reference_min_max"]) == ([1, 3], [4, 8])
    assert set(inspect.signature(report).parameters) >= {"reference_name", "unit", "goal", "more"}
