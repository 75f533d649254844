"""A whole system that version 0.1 saved is read and gone on from by every version after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.errors import StateMismatchError, UnknownSchemaError
from pamiq_jax.runtime import Compiled, compile_system
from pamiq_jax.runtime.fields import present_leaves
from pamiq_jax.runtime.saved import FORM, restored_cut, stored_value
from tests.runtime.everything import TICKS, TRAIN_TICKS, everything
from tests.runtime.fakes import PATIENCE, assert_equal_trees
from tests.runtime.resuming import learner_parts, phases, quick_compiles, snapshot_parts

GOLDEN = Path(__file__).parents[1] / "golden" / "system-v1"


@pytest.fixture(autouse=True, scope="module")
def quickly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_system(everything())


@pytest.fixture
def value() -> dict[str, Any]:
    return StateStore(GOLDEN).read(1)


class TestGolden:
    def test_it_is_sound_and_small_and_of_the_middle_of_it_all(self, value: dict[str, Any]) -> None:
        (report,) = StateStore(GOLDEN).verify()
        assert report.problems == ()
        assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 50_000
        within = {name: chunk for name, (phase, chunk) in phases(GOLDEN, 1).items() if phase == "training"}
        assert within == dict.fromkeys(("epochs", "host", "rollout", "value"), 1)
        assert list(value["pending"]["both"]) == ["policy"]
        assert list(value["prefetched"]) == ["host"]
        assert {name for name, part in value["waiting"].items() if part["counts"][2]} == {"epochs", "rollout"}
        assert {name: list(world) for name, world in value["worlds"].items()} == {
            "left": ["environment"],
            "right": ["environment", "agent"],
        }

    def test_every_value_is_restored(self, value: dict[str, Any], compiled: Compiled) -> None:
        cut, report = restored_cut(compiled, value)
        # What follows from `runs` and `data_key` is kept no more.
        gone = {f"['trainers']['{name}']['run_key']" for name in everything().trainers}
        assert gone < set(value["leaves"])
        leaves = {name: leaf for name, leaf in value["leaves"].items() if name not in gone}
        assert set(report.taken) == set(leaves)
        again = stored_value(cut)
        assert_equal_trees({name: again["leaves"][name] for name in leaves}, leaves)
        for part in ("pending", "prefetched", "waiting", "worlds"):
            assert_equal_trees(again[part], value[part])
        policy, left = cut.learner.trainers["policy"], cut.actors["left"]
        assert (policy.runs, policy.steps, left.tick, cut.snapshot.version) == (4, 16, 14, 9)
        np.testing.assert_allclose(policy.state.params["policy"], [0.36989847, 0.755582])

    def test_it_is_gone_on_from(self) -> None:
        result = pj.run_lockstep(everything(), 36 - TICKS, train_ticks=TRAIN_TICKS, resume=GOLDEN)
        learner, buffers = result.learner, result.buffers
        # As in a run without an interruption; floating-point numbers may differ between versions of XLA.
        runs = {name: (run.runs, run.finished, run.steps, run.chunk) for name, run in learner.trainers.items()}
        assert runs == {
            "policy": (7, 7, 28, 2),
            "value": (4, 4, 16, 2),
            "refine": (4, 4, 16, 2),
            "epochs": (7, 6, 26, 1),
            "rollout": (5, 5, 20, 2),
            "host": (8, 7, 30, 1),
        }
        assert (result.snapshot.version, {name: actor.tick for name, actor in result.actors.items()}) == (
            19,
            {"left": 24, "right": 12},
        )
        assert {(name, status.seen, status.inserted) for name, status in buffers.items()} == {
            *((name, 36, 36) for name in ("uniform", "mix", "host")),
            *((name, 24, 24) for name in ("windows", "rollout", "prioritized")),
            ("epochs", 24, 23),
        }


def test_a_live_run_saves_and_restores_everything_too(compiled: Compiled, tmp_path: Path) -> None:
    with pj.launch(everything(), directory=tmp_path, strict=True) as run:
        run.wait_for_version(4, PATIENCE)
        run.pause()
        info = run.save(PATIENCE)
        learner, snapshot, status = run.learner, run.snapshot, run.status
    value = StateStore(tmp_path).read(info)
    cut, _ = restored_cut(compiled, value)
    assert_equal_trees(learner_parts(cut.learner), learner_parts(learner))
    assert_equal_trees(snapshot_parts(cut.snapshot), snapshot_parts(snapshot))
    assert {name: counts for name, (_, counts) in cut.waiting.items()} == {
        name: (buffer.seen, buffer.dropped, buffer.pending) for name, buffer in status.buffers.items()
    }
    assert {name: world["environment"]["ticks"] for name, world in cut.worlds.items()} == info.facts["ticks"]


LATER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "trainers": ("busy_seconds", lambda cut: cut.learner.trainers["policy"].busy_seconds),
    "buffers": ("newest_ms", lambda cut: cut.learner.buffers["epochs"].newest_ms),
    "interactions": ("tick", lambda cut: cut.actors["left"].tick),
    "scheduler": ("turn", lambda cut: cut.learner.turn),
}
"""For each record, a field with a default that could have come later, and how to get at it."""


def without_field(value: dict[str, Any], record: str, field: str) -> dict[str, Any]:
    """Return a state as a version would have written it that did not have the field yet."""
    is_in = {"progress": f"].{field}"}.get(record, f"['{field}']")
    room = "trainers" if record == "progress" else record
    leaves = {name: leaf for name, leaf in value["leaves"].items() if not (f"['{room}']" in name and is_in in name)}
    assert len(leaves) < len(value["leaves"])
    fields = {**value["fields"], record: tuple(name for name in value["fields"][record] if name != field)}
    return {**value, "leaves": leaves, "fields": fields}


class TestOtherVersions:
    @pytest.mark.parametrize("record", LATER)
    def test_a_field_that_came_later_begins_with_its_default(
        self, record: str, value: dict[str, Any], compiled: Compiled
    ) -> None:
        field, get = LATER[record]
        older = without_field(value, record, field)
        cut, report = restored_cut(compiled, older)
        assert get(cut) == 0
        came_later = set(restored_cut(compiled, value)[1].missing)
        assert set(report.missing) == came_later | set(value["leaves"]) - set(older["leaves"])
        again = stored_value(cut)["leaves"]
        leaves = present_leaves(older["leaves"])
        assert_equal_trees({name: again[name] for name in leaves}, leaves)

    def test_so_does_one_of_the_progress_that_conditions_count_from(
        self, value: dict[str, Any], compiled: Compiled
    ) -> None:
        cut, report = restored_cut(compiled, without_field(value, "progress", "versions"))
        assert cut.learner.trainers["refine"].last["other"].versions == 0
        assert "['trainers']['refine']['last']['other'].versions" in report.missing

    def test_a_leaf_that_is_missing_for_no_reason_is_refused(self, value: dict[str, Any], compiled: Compiled) -> None:
        older = without_field(value, "trainers", "busy_seconds")
        with pytest.raises(StateMismatchError, match=r"\['policy'\]\['busy_seconds'\]: missing"):
            restored_cut(compiled, {**older, "fields": value["fields"]})

    @pytest.mark.parametrize(("record", "field"), [("trainers", "state"), ("buffers", "state"), ("snapshot", "params")])
    def test_what_has_no_default_is_never_made_up(
        self, record: str, field: str, value: dict[str, Any], compiled: Compiled
    ) -> None:
        with pytest.raises(StateMismatchError, match=rf"\['{field}'\].*: missing"):
            restored_cut(compiled, without_field(value, record, field))

    def test_a_newer_form_is_refused(self, value: dict[str, Any], compiled: Compiled) -> None:
        message = rf"state 7 has schema {FORM + 1}, expected one up to {FORM}; .* newer pamiq_jax: install that one"
        with pytest.raises(UnknownSchemaError, match=message):
            restored_cut(compiled, {**value, "form": FORM + 1}, number=7)

    def test_what_is_no_system_is_refused(self, compiled: Compiled) -> None:
        with pytest.raises(StateMismatchError, match="form: expected 1, stored is None; no system was saved here"):
            restored_cut(compiled, {"weights": np.zeros(3)})
