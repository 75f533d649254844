"""A run that is saved, ended and resumed goes on as if it had never stopped: bit for bit in lockstep."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.errors import (
    CheckpointNotFoundError,
    CorruptStateError,
    DirectoryHasStatesError,
    InvalidValueError,
    StateMismatchError,
    UnknownNameError,
    WorkerError,
)
from tests.runtime.fakes import AGENT, PATIENCE, SavedWorld, World, assert_equal_trees, learner, learning_system
from tests.runtime.resuming import parts_of, quick_compiles


@pytest.fixture(autouse=True, scope="module")
def quickly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


class TestLockstep:
    @pytest.mark.parametrize("ticks", [0, 3, 4, 5, 9])  # runs have two chunks each, so some cuts are within one
    def test_saved_at_any_tick_it_goes_on_bit_for_bit(self, ticks: int, tmp_path: Path) -> None:
        whole = pj.run_lockstep(learning_system(SavedWorld()), 20, seed=2)
        first = pj.run_lockstep(learning_system(SavedWorld()), ticks, seed=2, directory=tmp_path)
        rest = pj.run_lockstep(learning_system(SavedWorld()), 20 - ticks, seed=2, directory=tmp_path, resume=True)
        assert_equal_trees(parts_of(whole), parts_of(rest))
        assert_equal_trees(whole.metrics, first.metrics + rest.metrics)

    def test_records_that_wait_are_saved_too(self, tmp_path: Path) -> None:
        def run(ticks: int, train_ticks: int, **options: Any) -> pj.LockstepResult:
            return pj.run_lockstep(learning_system(SavedWorld()), ticks, train_ticks=train_ticks, **options)

        first = run(7, 0, directory=tmp_path)
        assert first.buffers["seen"].pending == 7
        rest = run(1, 1, directory=tmp_path, resume=True)
        assert (rest.buffers["seen"].seen, rest.buffers["seen"].inserted) == (8, 8)

    def test_several_interactions_models_and_groups(self, tmp_path: Path) -> None:
        def system() -> pj.System:
            schedules = {
                name: pj.Schedule(learner(name), data="seen", batch_size=2, steps=2, when=pj.min_new(new), group="both")
                for name, new in (("value", 3), ("policy", 5))  # turns go by this order, not by the alphabet
            }
            return learning_system(
                models={"policy": pj.Model(jnp.zeros(3)), "value": pj.Model(jnp.ones(3))},
                trainers=schedules,
                interaction={
                    "right": pj.Interaction(AGENT, SavedWorld(), interval_seconds=0.01),
                    "left": pj.Interaction(AGENT, SavedWorld(), interval_seconds=0.03),
                },
            )

        whole = pj.run_lockstep(system(), 24)
        for ticks in (4, 5, 15):  # within a group that one of the two has finished, too
            pj.run_lockstep(system(), ticks, directory=tmp_path / str(ticks))
            rest = pj.run_lockstep(system(), 24 - ticks, directory=tmp_path / str(ticks), resume=True)
            assert_equal_trees(parts_of(whole), parts_of(rest))

    def test_a_policy_saves_within_and_keeps_what_it_should(self, tmp_path: Path) -> None:
        save = pj.every_versions(2)
        result = pj.run_lockstep(learning_system(), 30, directory=tmp_path, save=save, keep=latest_n(2))
        versions = [info.facts["version"] for info in StateStore(tmp_path).states()]
        assert len(versions) == 2
        assert versions[-1] == result.snapshot.version

    def test_from_an_older_state(self, tmp_path: Path) -> None:
        for ticks in (5, 6):
            pj.run_lockstep(learning_system(SavedWorld()), ticks, directory=tmp_path, resume=True)
        again = pj.run_lockstep(learning_system(SavedWorld()), 6, directory=tmp_path, resume=1)
        assert_equal_trees(parts_of(again), parts_of(pj.run_lockstep(learning_system(SavedWorld()), 11)))

    def test_another_run_can_begin_from_it(self, tmp_path: Path) -> None:
        pj.run_lockstep(learning_system(SavedWorld()), 5, directory=tmp_path / "first")
        rest = pj.run_lockstep(
            learning_system(SavedWorld()), 6, directory=tmp_path / "second", resume=tmp_path / "first"
        )
        assert_equal_trees(parts_of(rest), parts_of(pj.run_lockstep(learning_system(SavedWorld()), 11)))

    def test_a_world_without_state_begins_anew_with_another_seed(self, tmp_path: Path) -> None:
        pj.run_lockstep(learning_system(), 5, seed=2, directory=tmp_path)
        seen: list[Any] = []
        pj.run_lockstep(
            learning_system(),
            1,
            seed=2,
            directory=tmp_path,
            resume=True,
            on_interaction=lambda report: seen.append(report.observation.tolist()),
        )
        assert seen == [[0, 0, 2 + 5]]

    @pytest.mark.parametrize(("world", "marks"), [(SavedWorld, [0]), (World, [0, 5])])
    def test_only_a_world_that_begins_anew_leaves_a_gap(self, world: Any, marks: list[int], tmp_path: Path) -> None:
        system = learning_system(world(), trainers={})
        pj.run_lockstep(system, 5, directory=tmp_path)
        result = pj.run_lockstep(system, 3, directory=tmp_path, resume=True)
        assert np.flatnonzero(result.learner.buffers["seen"].state.records.is_first).tolist() == marks


def changed(**changes: Any) -> pj.System:
    return learning_system(SavedWorld(), **changes)


BLIND: dict[str, Any] = {
    "trainers": {},
    "interaction": pj.Interaction(
        AGENT._replace(act=lambda params, *rest: AGENT.act({"policy": jnp.zeros(3)}, *rest)), SavedWorld()
    ),
}
"""An agent that does not look at its parameters."""


MORE: dict[str, Any] = {
    "model": lambda: {"models": {"policy": pj.Model(jnp.zeros(3)), "value": pj.Model(jnp.ones(3))}},
    "buffer": lambda: {
        "buffers": {"seen": pj.ring_buffer(1000, sampling="in_order"), "more": pj.ring_buffer(10)},
    },
    "interaction": lambda: {
        "interaction": {"agent": pj.Interaction(AGENT, SavedWorld()), "other": pj.Interaction(AGENT, SavedWorld())},
    },
}
"""What a system has more of than the others."""

MORE_LEAVES = {
    "model": r"\['snapshot'\]\['params'\]\['value'\]",
    "buffer": r"\['buffers'\]\['more'\]",
    "interaction": r"\['interactions'\]\['other'\]",
}


class TestOtherSystems:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        pj.run_lockstep(changed(), 6, directory=tmp_path)
        return tmp_path

    def test_a_trainer_that_is_new(self, saved: Path) -> None:
        schedule = pj.Schedule(learner("value"), data="seen", batch_size=2)
        more: dict[str, Any] = {
            "models": {"policy": pj.Model(jnp.zeros(3)), "value": pj.Model(jnp.ones(3))},
            "trainers": {**changed().trainers, "judge": schedule},
        }
        with pytest.raises(StateMismatchError, match=r"(?s)partial=True.*judge.*missing"):
            pj.run_lockstep(changed(**more), 1, directory=saved, resume=True)
        result = pj.run_lockstep(changed(**more), 6, directory=saved, resume=True, partial=True)
        assert result.actor.tick == 12
        assert result.learner.trainers["judge"].runs > 0

    def test_a_trainer_that_is_gone(self, saved: Path) -> None:
        with pytest.raises(StateMismatchError, match=r"\['trainers'\]\['fit'\].*unexpected"):
            pj.run_lockstep(changed(trainers={}), 1, directory=saved, resume=True)
        assert pj.run_lockstep(changed(trainers={}), 1, directory=saved, resume=True, partial=True).actor.tick == 7

    @pytest.mark.parametrize("kind", MORE)
    def test_a_part_that_is_new(self, kind: str, saved: Path) -> None:
        with pytest.raises(StateMismatchError, match=rf"(?s)partial=True.*{MORE_LEAVES[kind]}.*missing"):
            pj.run_lockstep(changed(**MORE[kind]()), 1, directory=saved, resume=True)
        result = pj.run_lockstep(changed(**MORE[kind]()), 10, directory=saved, resume=True, partial=True)
        ticks = {name: actor.tick for name, actor in result.actors.items()}
        # A new interaction begins now, and makes up for nothing.
        assert ticks == ({"agent": 11, "other": 5} if kind == "interaction" else {"agent": 16})
        assert result.learner.trainers["fit"].runs > 1  # of which one was before
        if kind == "buffer":
            assert (result.buffers["seen"].seen, result.buffers["more"].seen) == (16, 10)

    @pytest.mark.parametrize("kind", MORE)
    def test_a_part_that_is_gone(self, kind: str, tmp_path: Path) -> None:
        pj.run_lockstep(changed(**MORE[kind]()), 6, directory=tmp_path)
        with pytest.raises(StateMismatchError, match=rf"(?s)partial=True.*{MORE_LEAVES[kind]}.*unexpected"):
            pj.run_lockstep(changed(), 1, directory=tmp_path, resume=True)
        result = pj.run_lockstep(changed(), 1, directory=tmp_path, resume=True, partial=True)
        assert result.actor.tick == (4 if kind == "interaction" else 7)

    def test_new_names(self, saved: Path) -> None:
        schedule = changed().trainers["fit"]
        act = lambda params, *rest: AGENT.act({"policy": params["mind"]}, *rest)  # noqa: E731
        trainer = pj.gradient_trainer(
            lambda params, batch, key: (jnp.mean((params["mind"] - jnp.tanh(batch["observation"]).mean(0)) ** 2), {}),
            optax.adam(0.05),
            trains=("mind",),
        )
        renamed = changed(
            models={"mind": pj.Model(jnp.zeros(3))},
            trainers={"learn": dataclasses.replace(schedule, trainer=trainer, data="past")},
            interaction={"body": pj.Interaction(AGENT._replace(act=act), SavedWorld(), collect={"past": lambda r: r})},
            buffers={"past": pj.ring_buffer(1000, sampling="in_order")},
        )
        rename = {
            "models": {"policy": "mind"},
            "trainers": {"fit": "learn"},
            "interactions": {"agent": "body"},
            "buffers": {"seen": "past"},
        }
        result = pj.run_lockstep(renamed, 5, directory=saved, resume=True, rename=rename)
        whole = pj.run_lockstep(changed(), 11)
        assert_equal_trees(result.snapshot.params["mind"], whole.snapshot.params["policy"])

    def test_a_model_of_another_size(self, saved: Path) -> None:
        with pytest.raises(StateMismatchError, match=r"expected float32\[4\], stored is float32\[3\]"):
            pj.run_lockstep(changed(models={"policy": pj.Model(jnp.zeros(4))}, **BLIND), 1, resume=saved)


class TestRefused:
    def test_a_new_run_among_the_states_of_another(self, tmp_path: Path) -> None:
        pj.run_lockstep(learning_system(), 1, directory=tmp_path)
        with pytest.raises(DirectoryHasStatesError, match=r"has states of an earlier run; pass resume=True"):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path)
        with pytest.raises(DirectoryHasStatesError, match="has states"):
            pj.launch(learning_system(), directory=tmp_path)

    def test_nothing_to_resume_from(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointNotFoundError, match="nowhere does not exist"):
            pj.run_lockstep(learning_system(), 1, resume=tmp_path / "nowhere")
        with pytest.raises(UnknownNameError, match="no state is named 7"):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path, resume=7)
        with pytest.raises(InvalidValueError, match="resume is True, expected False without a directory"):
            pj.run_lockstep(learning_system(), 1, resume=True)

    def test_to_begin_anew_where_all_states_are_damaged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(2):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path, resume=True)
        older, newer = sorted((tmp_path / "states").glob("*/manifest.json"))
        newer.write_bytes(b"{")
        result = pj.run_lockstep(learning_system(), 0, directory=tmp_path / "a", resume=tmp_path)
        assert result.actor.tick == 1
        assert "state 2 is damaged" in caplog.text
        older.write_bytes(b"{")
        with pytest.raises(CorruptStateError, match="state 2 is damaged"):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path, resume=True)
        with pytest.raises(CorruptStateError, match="state 2 is damaged"):
            pj.launch(learning_system(), directory=tmp_path, resume=True)

    def test_saving_without_a_directory(self) -> None:
        with pytest.raises(InvalidValueError, match=r"run_lockstep\(directory\) is None"):
            pj.run_lockstep(learning_system(), 1, save=pj.every_versions(1))
        with pytest.raises(InvalidValueError, match=r"launch\(directory\) is None"):
            pj.launch(learning_system(), keep=latest_n(1))

    def test_a_damaged_state(self, tmp_path: Path) -> None:
        pj.run_lockstep(learning_system(), 5, directory=tmp_path)
        block = next(path for path in sorted((tmp_path / "blocks").rglob("*")) if path.is_file())
        data = bytearray(block.read_bytes())
        data[len(data) // 2] ^= 1
        block.write_bytes(bytes(data))
        with pytest.raises(CorruptStateError, match="checksum"):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path, resume=True)

    def test_the_newest_that_can_be_read_is_gone_on_from(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            pj.run_lockstep(learning_system(SavedWorld()), 3, directory=tmp_path, resume=True)
        reports = {path for path in (tmp_path / "blocks").rglob("*") if path.is_file()}
        older = StateStore(tmp_path)._directory.manifest(1).block_sizes()  # pyright: ignore[reportPrivateUsage]
        block = next(path for path in sorted(reports) if path.name not in older)
        data = bytearray(block.read_bytes())
        data[0] ^= 1
        block.write_bytes(bytes(data))
        with pj.launch(learning_system(SavedWorld()), directory=tmp_path, resume=True) as run:
            assert run.restored is not None
            assert run.restored.state.number == 1
            assert run.save(PATIENCE).number == 3
        assert "state 2 is damaged" in caplog.text
        with (
            pytest.raises(WorkerError, match="worker 'restore' failed: CorruptStateError: state 2 is damaged"),
            pj.launch(learning_system(SavedWorld()), directory=tmp_path, resume=2) as run,
        ):
            run.wait_until_ready()

    def test_a_rename_that_is_no_mapping_is_refused_where_nothing_is_stored_too(self, tmp_path: Path) -> None:
        wrong: Any = 3
        with pytest.raises(InvalidValueError, match="rename is 3, expected a mapping"):
            pj.launch(learning_system(), directory=tmp_path, resume=True, rename=wrong)
        with pytest.raises(UnknownNameError, match="rename: no kind is named 'a'"):
            pj.launch(learning_system(), directory=tmp_path, resume=True, rename={"a": {"b": "c"}})

    def test_a_rename_of_nothing(self, tmp_path: Path) -> None:
        pj.run_lockstep(learning_system(), 1, directory=tmp_path)
        wrong: list[tuple[type[Exception], dict[str, Any], str]] = [
            (UnknownNameError, {"trainers": {"fitt": "fit"}}, "no trainer is named 'fitt'.*known: 'fit'"),
            (UnknownNameError, {"trainers": {"policy": "fit"}}, "no trainer is named 'policy'.*known: 'fit'"),
            (UnknownNameError, {"models": {"polici": "policy"}}, "no model is named 'polici'.*known: 'policy'"),
            (
                InvalidValueError,
                {"models": ["a", "b"]},
                r"rename\['models'\] is \['a', 'b'\], expected a mapping of old",
            ),
            (InvalidValueError, {"models": {"policy": 1}}, r"expected a mapping of old names.*; 1 is no name"),
        ]
        for error, rename, match in wrong:
            with pytest.raises(error, match=match):
                pj.run_lockstep(learning_system(), 1, directory=tmp_path, resume=True, rename=rename)


def test_every_leaf_of_a_state_has_a_name_a_person_can_read(tmp_path: Path) -> None:
    pj.run_lockstep(learning_system(), 5, directory=tmp_path)
    value = StateStore(tmp_path).read(1)
    assert "['trainers']['fit']['state'].params['policy']" in value["leaves"]
    assert value["leaves"]["['interactions']['agent']['tick']"] == 5
    assert isinstance(value["leaves"]["['buffers']['seen']['state'].records.data['noise']"], np.ndarray)
    assert jax.tree.leaves(value["waiting"]["seen"]["counts"]) == [5, 0, 1]  # the last record waits within a run
