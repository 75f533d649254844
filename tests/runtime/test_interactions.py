"""Several agents, each in a world and a thread of its own, over one snapshot store."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.data import sequence_buffer
from pamiq_jax.errors import (
    InvalidTransitionError,
    InvalidValueError,
    RecordMismatchError,
    UnknownNameError,
    WorkerError,
)
from pamiq_jax.runtime import InferReport
from tests.runtime.fakes import AGENT, PATIENCE, World, assert_equal_trees, learner, learning_system


def pair(left: Any = None, right: Any = None, **changes: Any) -> pj.System:
    """Return a system in which two agents feed one buffer."""
    interactions = {
        "left": pj.Interaction(AGENT, World() if left is None else left, interval_seconds=0.01),
        "right": pj.Interaction(AGENT, World() if right is None else right, interval_seconds=0.02),
    }
    return learning_system(interaction=interactions, **changes)


class Vanishing(World):
    def affect(self, action: Any) -> Any:
        if self.rewards:
            raise OSError("the left arm is gone")
        return super().affect(action)


class TestLockstep:
    def test_who_is_due_first_ticks_next(self) -> None:
        order: list[str] = []
        pj.run_lockstep(pair(), 7, train_ticks=0, on_interaction=lambda report: order.append(report.interaction))
        # Due at        0       0        10      20      20       30      40 milliseconds; of equal ones the first.
        assert order == ["left", "right", "left", "left", "right", "left", "left"]

    def test_it_is_the_same_every_time(self) -> None:
        first, second = (pj.run_lockstep(pair(), 30, seed=4) for _ in range(2))
        assert first.actors.keys() == {"left", "right"}
        assert_equal_trees(tuple(first[:3]), tuple(second[:3]))
        assert first.buffers["seen"].seen == 30

    def test_each_world_has_a_seed_and_each_agent_a_key_of_its_own(self) -> None:
        reports: list[InferReport] = []
        pj.run_lockstep(pair(), 2, seed=5, on_interaction=reports.append)
        assert [report.observation[2] for report in reports] == [5, 6]
        assert reports[0].extras["noise"] != reports[1].extras["noise"]

    def test_the_only_actor_of_two_is_not_known(self) -> None:
        with pytest.raises(InvalidValueError, match=r"System\(interaction\) is \['left', 'right'\], expected one"):
            _ = pj.run_lockstep(pair(), 1).actor


class TestLive:
    def test_each_acts_in_a_thread_of_its_own_with_the_same_snapshots(self) -> None:
        threads: dict[str, set[str]] = {"left": set(), "right": set()}
        have_both = threading.Event()

        def note(report: InferReport) -> None:
            threads[report.interaction].add(threading.current_thread().name)
            if all(threads.values()):
                have_both.set()

        with pj.launch(pair(), on_interaction=note) as run:
            assert have_both.wait(PATIENCE)
            run.wait_for_version(2, PATIENCE)
            run.pause()
            status = run.status
        assert threads == {name: {f"pamiq-inference-{name}"} for name in threads}
        assert status.inference.ticks == sum(status.interactions[name].ticks for name in ("left", "right"))
        assert status.buffers["seen"].seen == status.inference.ticks
        assert "inference left: " in str(status)

    def test_when_one_is_gone_the_other_acts_on(self) -> None:
        with pj.launch(pair(left=Vanishing())) as run:
            with pytest.raises(WorkerError, match=r"'pamiq-inference-left' failed: OSError: the left arm is gone"):
                run.wait(PATIENCE)
            version = run.snapshot.version
            run.wait_for_version(version + 2, PATIENCE)
            assert run.status.phase is pj.SystemPhase.RUNNING
            run.pause()
            run.resume()

    def test_when_both_are_gone_the_system_has_failed(self) -> None:
        with pj.launch(pair(left=Vanishing(), right=Vanishing())) as run:
            for _ in range(2):
                with pytest.raises(WorkerError, match="the left arm is gone"):
                    run.wait(PATIENCE)
            assert run.wait(PATIENCE) is pj.WaitResult.ENDED
            assert run.status.phase is pj.SystemPhase.FAILED


class TestRefused:
    def test_one_world_for_two(self) -> None:
        world = World()
        with pytest.raises(InvalidValueError, match=r"interaction 'right' is 'World', expected one of its own: 'left'"):
            pair(left=world, right=world)

    def test_what_is_no_interaction(self) -> None:
        with pytest.raises(InvalidValueError, match=r"System\(interaction\) is 'list', expected an Interaction, or a"):
            learning_system(interaction=[pj.Interaction(AGENT, World())])

    def test_a_buffer_fed_with_different_records(self) -> None:
        interactions = {
            "left": pj.Interaction(AGENT, World()),
            "right": pj.Interaction(AGENT, World(), collect={"seen": lambda record: record["action"]}),
        }
        match = (
            r"buffer 'seen': interaction 'right' feeds it other records than interaction 'left': missing .*`collect`"
        )
        with pytest.raises(RecordMismatchError, match=match):
            pj.compile_system(learning_system(interaction=interactions))

    def test_two_streams_in_a_buffer_that_wants_one(self) -> None:
        with pytest.raises(
            InvalidValueError, match=r"buffer 'seen' is \['left', 'right'\], expected fed by one interact"
        ):
            pair(buffers={"seen": sequence_buffer(100, window=4)})

    def test_a_pause_leaves_a_gap_in_the_records(self) -> None:
        interaction = pj.Interaction(AGENT, World(), interval_seconds=0.005)
        with pj.launch(learning_system(trainers={}, interaction=interaction)) as run:
            run.wait_until_ready()
            for seen in (3, 6):
                while run.status.buffers["seen"].seen < seen:
                    run.wait(0.01)
                run.pause()
                run.resume()
            while run.status.buffers["seen"].seen < 9:
                run.wait(0.01)
            run.pause()
            buffer = run.learner.buffers["seen"]
            marks = np.asarray(buffer.state.records.is_first)[: buffer.inserted]
        assert marks[0]
        assert 2 <= marks.sum() <= 3  # the newest records may still be waiting

    def test_a_tick_of_an_unknown_one(self) -> None:
        compiled = pj.compile_system(pair(trainers={}))
        with pytest.raises(UnknownNameError, match="no interaction is named 'agent'; known: 'left', 'right'"):
            pj.infer_tick(compiled.programs, compiled.actors["left"], compiled.cells(), pj.VirtualClock())


class Episodes(World):
    """Three episodes of three ticks side by side, or one: `autoreset` is set in the last tick of each."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.ticks = shape, 0
        self.spec = pj.EnvironmentSpec(World.spec.observation, np.float32(0), {"autoreset": np.zeros(shape, np.bool_)})

    def affect(self, action: Any) -> dict[str, Any]:
        self.ticks += 1
        last = np.arange(self.shape[0]) if self.shape else np.int64(0)
        return {"autoreset": np.asarray((self.ticks + last) % 3 == 0)}


def count(params: Any, carry: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
    return carry + 1, jnp.float32(0), {"carry": carry}


class TestCarry:
    def carries(self, shape: tuple[int, ...], ticks: int) -> list[Any]:
        agent = pj.Agent(count, lambda rng_key: jnp.zeros(shape, jnp.int32), resets_on="autoreset")
        seen: list[Any] = []
        system = learning_system(trainers={}, interaction=pj.Interaction(agent, Episodes(shape)))
        pj.run_lockstep(system, ticks, on_interaction=lambda report: seen.append(report.extras["carry"].tolist()))
        return seen

    def test_it_is_new_after_the_tick_that_resets(self) -> None:
        assert self.carries((), 7) == [0, 1, 2, 0, 1, 2, 0]

    def test_of_several_environments_only_the_rows_that_reset_are_new(self) -> None:
        assert self.carries((3,), 5) == [[0, 0, 0], [1, 1, 0], [2, 0, 1], [0, 1, 2], [1, 2, 0]]

    def test_it_begins_as_the_key_of_the_tick_says(self) -> None:
        agent = pj.Agent(count, lambda rng_key: jax.random.randint(rng_key, (), 0, 1 << 20), resets_on="autoreset")
        system = learning_system(trainers={}, interaction=pj.Interaction(agent, Episodes(())))
        seen: list[int] = []
        pj.run_lockstep(system, 7, on_interaction=lambda report: seen.append(int(report.extras["carry"])))
        assert seen[1] == seen[0] + 1 != seen[3] != seen[6]

    @pytest.mark.parametrize(
        ("resets_on", "carry", "error", "match"),
        [
            ("done", (3,), UnknownNameError, r"Agent\(resets_on\): no flag in the feedback is named 'done'"),
            ("autoreset", (2,), InvalidValueError, r"carry .* is 'float32\[2\]', expected an axis of 3 in front"),
        ],
    )
    def test_refused(self, resets_on: str, carry: tuple[int, ...], error: type[Exception], match: str) -> None:
        agent = pj.Agent(count, lambda rng_key: jnp.zeros(carry), resets_on=resets_on)
        with pytest.raises(error, match=match):
            pj.compile_system(learning_system(interaction=pj.Interaction(agent, Episodes((3,)))))


def test_counters_of_a_buffer() -> None:
    schedule = pj.Schedule(learner(), data="seen", batch_size=4, steps=2, when=pj.min_new(5))
    status = pj.run_lockstep(learning_system(trainers={"fit": schedule}), 12).buffers["seen"]
    assert (status.seen, status.inserted, status.dropped, status.pending, status.size) == (12, 12, 0, 0, 12)
    assert status.sampled == 2 * 2 * 4


class TestHooks:
    def test_a_pause_hook_that_raises_is_a_failure_with_its_name(self) -> None:
        def on_paused() -> None:
            raise OSError("the arm does not stop")

        interaction = pj.Interaction(AGENT, World(), on_paused=on_paused)
        with pj.launch(learning_system(interaction=interaction)) as run:
            run.wait_for_version(1, PATIENCE)
            with pytest.raises(InvalidTransitionError, match="failed"):
                run.pause(PATIENCE)
            with pytest.raises(
                WorkerError, match=r"on_paused of interaction 'agent'. failed: OSError: the arm does not"
            ):
                run.wait(PATIENCE)

    def test_a_subscription_begins_and_ends_while_it_runs(self) -> None:
        told: list[int] = []
        with pj.launch(learning_system(trainers={})) as run:
            run.wait_until_ready()
            both = threading.Event()

            def tell(transition: pj.Transition) -> None:
                told.append(transition.sequence)
                if len(told) == 2:
                    both.set()

            unsubscribe = run.subscribe(tell)
            run.pause()
            assert both.wait(PATIENCE)  # the second is told by a worker, after the pause
            unsubscribe()
            run.resume()
        assert len(told) == 2
        assert told[1] == told[0] + 1
