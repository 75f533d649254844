from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.runtime import ActorState
from tests.runtime.fakes import AGENT, PATIENCE, World, assert_equal_trees, learning_system


def recording_system(environment: Any | None = None, **changes: Any) -> pj.System:
    """Return a system that puts each record into its buffer before the next one is made."""
    return learning_system(environment, **{"buffers": {"seen": pj.ring_buffer(1000)}, **changes})


def stored(state: Any, name: str = "seen") -> pj.Record[Any]:
    """Return all records of a buffer, oldest first."""
    ring = state.buffers[name].state
    size, head = int(ring.size), int(ring.head)
    capacity = jax.tree.leaves(ring.records)[0].shape[0]
    order = np.arange(head - size, head) % capacity
    return jax.tree.map(lambda leaf: np.asarray(leaf)[order], ring.records)


class TestObservations:
    def test_lockstep_stores_what_was_seen(self) -> None:
        world = World()
        result = pj.run_lockstep(recording_system(world), 60, seed=5)
        records, marks = stored(result.learner).data, stored(result.learner).is_first
        assert marks.tolist() == [True] + [False] * 59
        # Each tick is drained before the next one, so nothing is under way.
        np.testing.assert_array_equal(records["observation"], np.stack(world.shown))
        np.testing.assert_array_equal(records["reward"], np.array(world.rewards, np.float32))
        np.testing.assert_array_equal(records["action"][:-1], np.stack(world.shown)[1:, 1])
        assert set(records["observation"][:, 2]) == {5.0}

    def test_launched_system_stores_what_was_seen(self) -> None:
        world, versions, has_acted = World(), [], threading.Event()

        def note(report: Any) -> None:
            versions.append(report.version)
            if len(versions) == 300:
                has_acted.set()

        system = recording_system(world, queues={"seen": pj.Queue(capacity=100_000)})
        with pj.launch(system, seed=5, on_interaction=note) as run:
            assert has_acted.wait(PATIENCE)
            run.wait_for_version(3, PATIENCE)
        assert run.status.buffers["seen"].dropped == 0
        records, inserted = stored(run.learner), run.learner.buffers["seen"].inserted
        kept = slice(inserted - len(records.version), inserted)
        assert len(records.version) > 0
        np.testing.assert_array_equal(records.data["observation"], np.stack(world.shown)[kept])
        np.testing.assert_array_equal(records.data["reward"], np.array(world.rewards, np.float32)[kept])
        np.testing.assert_array_equal(records.version, versions[kept])

    def test_float64_is_brought_to_float32(self) -> None:
        class Wide(World):
            def observe(self) -> np.ndarray:
                return super().observe().astype(np.float64) / 3

        world = Wide()
        world.spec = World.spec._replace(observation=np.zeros(3))
        records = stored(pj.run_lockstep(recording_system(world), 5).learner).data
        assert records["observation"].dtype == np.float32
        expected = (np.stack(world.shown).astype(np.float64) / 3).astype(np.float32)
        np.testing.assert_array_equal(records["observation"], expected)


class TestSnapshots:
    def test_one_tick_uses_one_snapshot(self) -> None:
        compiled = pj.compile_system(recording_system())
        compiled.programs.system.interaction.environment.reset(0)
        cells = compiled.cells()
        latest: list[int] = []

        class Store:
            @property
            def latest(self) -> pj.Snapshot:
                latest.append(1)
                return cells.store.latest

        _, report = pj.infer_tick(compiled.programs, compiled.actor, cells._replace(store=Store()), pj.VirtualClock())
        assert (len(latest), report.version) == (1, 0)

    def test_every_record_has_the_version_it_was_made_with(self) -> None:
        reports: list[Any] = []
        result = pj.run_lockstep(recording_system(), 50, on_interaction=reports.append)
        versions = [report.version for report in reports]
        assert versions == sorted(versions)
        assert versions[-1] > 5
        np.testing.assert_array_equal(stored(result.learner).version, versions)

    def test_staleness_is_measured_from_the_publication(self) -> None:
        compiled = pj.compile_system(recording_system())
        compiled.programs.system.interaction.environment.reset(0)
        clock = pj.VirtualClock()
        clock.advance(7.0)
        _, report = pj.infer_tick(compiled.programs, compiled.actor, compiled.cells(published_at=3.0), clock)
        assert (report.staleness_seconds, report.latency_seconds) == (4.0, 0.0)


class TestAgents:
    def test_carry_threads_through(self) -> None:
        result = pj.run_lockstep(recording_system(), 12)
        assert int(result.actor.carry) == result.actor.tick == 12
        np.testing.assert_array_equal(stored(result.learner).data["carry"], np.arange(12))

    def test_every_tick_has_another_key(self) -> None:
        noise = stored(pj.run_lockstep(recording_system(), 20).learner).data["noise"]
        assert len(set(noise.tolist())) == len(noise) == 20

    def test_python_agent(self) -> None:
        agent = Counter()
        interaction = pj.Interaction(agent, World())
        first = pj.run_lockstep(recording_system(interaction=interaction), 10, seed=4)
        records = stored(first.learner).data
        np.testing.assert_array_equal(records["action"], np.arange(10, dtype=np.float32) + 4)
        np.testing.assert_array_equal(records["norm"][:4], np.zeros(4, np.float32))
        assert first.snapshot.version > 0
        # It is reset, so it does the same again.
        assert_equal_trees(first, pj.run_lockstep(recording_system(interaction=interaction), 10, seed=4))

    def test_python_agent_may_keep_what_it_is_given(self) -> None:
        agent, world = Counter(), World()
        pj.run_lockstep(recording_system(interaction=pj.Interaction(agent, world)), 10)
        np.testing.assert_array_equal(np.stack(agent.kept), np.stack(world.shown))

    def test_a_python_agent_that_listens_is_told_all_feedback_before_it_acts_again(self) -> None:
        agent, world = Listener(), World()
        pj.run_lockstep(recording_system(interaction=pj.Interaction(agent, world)), 6)
        assert isinstance(agent, pj.FeedbackAgent)
        assert not isinstance(Counter(), pj.FeedbackAgent)
        assert [float(feedback["reward"]) for feedback in agent.told] == world.rewards
        assert agent.told_before_each_act == list(range(6))

    def test_selected_parts_go_to_their_buffers(self) -> None:
        collect = {
            "seen": lambda record: {"observation": record["observation"]},
            "rewards": lambda record: record["reward"],
        }
        buffers = {"seen": pj.ring_buffer(20), "rewards": pj.ring_buffer(20)}
        world = World()
        interaction = pj.Interaction(AGENT, world, collect=collect)
        result = pj.run_lockstep(recording_system(buffers=buffers, interaction=interaction), 10)
        assert set(stored(result.learner).data) == {"observation"}
        np.testing.assert_array_equal(stored(result.learner, "rewards").data, np.array(world.rewards, np.float32))


class Counter:
    """A Python agent: counts on from its seed, and writes each action into one array."""

    extras: Mapping[str, Any] = {"norm": np.float32(0)}

    def __init__(self) -> None:
        self._action = np.zeros((), np.float32)
        self.kept: list[np.ndarray] = []

    def reset(self, seed: int) -> None:
        self._action[...] = seed - 1
        self.kept.clear()

    def act(self, params: Any, observation: Any) -> Any:
        self.kept.append(observation)
        self._action += 1
        return self._action, {"norm": np.float32(jnp.linalg.norm(params["policy"]))}


class Listener(Counter):
    """A Python agent that keeps what it is told."""

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.told: list[Mapping[str, Any]] = []
        self.told_before_each_act: list[int] = []

    def act(self, params: Any, observation: Any) -> Any:
        self.told_before_each_act.append(len(self.told))
        return super().act(params, observation)

    def on_feedback(self, feedback: Mapping[str, Any]) -> None:
        self.told.append(feedback)


def test_a_tick_without_an_interaction_is_refused() -> None:
    system = pj.System(models={"policy": pj.Model(jnp.zeros(3))})
    compiled = pj.compile_system(system)
    with pytest.raises(InvalidValueError, match=r"System\(interaction\) is \[\], expected one"):
        _ = compiled.actor
    actor = ActorState((), jax.random.key(0))
    with pytest.raises(UnknownNameError, match="no interaction is named 'agent'"):
        pj.infer_tick(compiled.programs, actor, compiled.cells(), pj.VirtualClock())
