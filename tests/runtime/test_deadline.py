"""A fallback acts for a policy that is late: no tick waits longer than the deadline, and the carry loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, WorkerError
from pamiq_jax.runtime import ActorState, InferReport
from pamiq_jax.runtime.deadline import DeadlinePolicy
from tests.runtime.fakes import AGENT, PATIENCE, World, learning_system

ACTION = np.zeros(2, np.float32)
STAND_STILL = np.float32([-1, -1])


class Held:
    """A policy that answers when it is told to, with what it was asked; it listens."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.heard: list[Any] = []
        self.resets: list[Any] = []
        self.asked = 0
        self.done = threading.Semaphore(0)

    def __call__(self, params: Any, actor: ActorState, observation: Any, /) -> Any:
        self.asked += 1
        self.heard.append(("act", observation))
        self.resets.append(actor.resets)
        assert self.go.wait(PATIENCE)
        if observation is None:
            raise OSError("no camera")
        self.done.release()
        return actor.carry + 1, np.float32([observation, actor.carry]), {"extra": 7}


@pytest.fixture
def held() -> Iterator[tuple[Held, DeadlinePolicy]]:
    policy = Held()
    deadline = DeadlinePolicy(
        policy,
        lambda observation, last: STAND_STILL + last,
        0.01,
        ACTION,
        "pamiq-test-policy",
        tell=lambda feedback: policy.heard.append(("told", float(feedback["reward"]))),
    )
    yield policy, deadline
    policy.go.set()
    assert deadline.close(PATIENCE)


def let_go(policy: Held, deadline: DeadlinePolicy) -> None:
    """Let a late policy answer, and wait until it has."""
    policy.go.set()
    assert policy.done.acquire(timeout=PATIENCE)
    deadline._seconds = PATIENCE
    with deadline._changed:
        assert deadline._changed.wait_for(lambda: not deadline._is_busy, PATIENCE)


def actor(carry: int) -> ActorState:
    return ActorState(carry, jax.random.key(0))


class TestPolicy:
    def test_in_time_it_is_the_policy(self, held: tuple[Held, DeadlinePolicy]) -> None:
        policy, deadline = held
        policy.go.set()
        deadline._seconds = PATIENCE
        carry, action, extras = deadline.act({}, actor(3), 5)
        assert (carry, action.tolist(), extras) == (4, [5, 3], {"extra": 7})

    def test_late_it_is_the_fallback_on_the_last_action(self, held: tuple[Held, DeadlinePolicy]) -> None:
        policy, deadline = held
        answers = [deadline.act({}, actor(3), 5) for _ in range(2)]
        assert [(carry, action.tolist(), extras) for carry, action, extras in answers] == [
            (3, [-1, -1], None),
            (3, [-2, -2], None),
        ]
        assert policy.asked == 1, "a busy policy was asked again"

    def test_the_carry_that_came_late_goes_on(self, held: tuple[Held, DeadlinePolicy]) -> None:
        policy, deadline = held
        deadline.act({}, actor(3), 5)
        let_go(policy, deadline)
        carry, action, _ = deadline.act({}, actor(3), 6)
        assert (carry, action.tolist()) == (5, [6, 4])

    def test_what_it_would_have_been_told_waits_until_it_is_asked_again(
        self, held: tuple[Held, DeadlinePolicy]
    ) -> None:
        policy, deadline = held
        reward = np.zeros((), np.float32)
        for tick, ends in enumerate([(False, False), (True, False), (False, False)]):
            deadline.act({}, actor(3)._replace(resets=np.array(ends)), tick)
            reward[...] = tick  # an environment may write into what it returned
            deadline.tell({"reward": reward})
        let_go(policy, deadline)
        for _ in range(2):
            deadline.act({}, actor(3)._replace(resets=np.array([False, True])), 7)
        assert policy.heard == [("act", 0), ("told", 0), ("told", 1), ("told", 2), ("act", 7), ("act", 7)]
        assert [flags.tolist() for flags in policy.resets] == [[False, False], [True, True], [False, True]]

    def test_what_it_raises_is_raised_in_the_tick(self, held: tuple[Held, DeadlinePolicy]) -> None:
        policy, deadline = held
        policy.go.set()
        deadline._seconds = PATIENCE
        with pytest.raises(OSError, match="no camera"):
            deadline.act({}, actor(3), None)

    def test_a_fallback_of_another_form(self, held: tuple[Held, DeadlinePolicy]) -> None:
        _, deadline = held
        deadline._fallback = lambda observation, last: np.zeros(3, np.float32)
        with pytest.raises(
            RecordMismatchError, match=r"the fallback's action .*expected float32\[2\], got float32\[3\]"
        ):
            deadline.act({}, actor(3), 5)


class SlowMind:
    """A Python agent that thinks for as long as it is held, and listens."""

    extras: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.go = threading.Event()
        self.told: list[tuple[str, float]] = []

    def reset(self, seed: int) -> None:
        pass

    def on_feedback(self, feedback: Mapping[str, Any]) -> None:
        self.told.append((threading.current_thread().name, float(feedback["reward"])))

    def act(self, params: Any, observation: Any) -> Any:
        assert self.go.wait(PATIENCE)
        return np.float32(1), {}


class TestLive:
    def test_the_world_goes_on_while_the_policy_thinks(self) -> None:
        mind, world, reports = SlowMind(), World(), list[InferReport]()
        has_fallen_back, has_acted = threading.Event(), threading.Event()

        def note(report: InferReport) -> None:
            reports.append(report)
            if len([one for one in reports if one.is_fallback]) >= 3:
                has_fallen_back.set()
            if not report.is_fallback:
                has_acted.set()

        interaction = pj.Interaction(
            mind, world, interval_seconds=0.01, fallback=lambda observation, last: np.float32(-1)
        )
        with pj.launch(learning_system(trainers={}, interaction=interaction), on_interaction=note) as run:
            assert has_fallen_back.wait(PATIENCE)
            mind.go.set()
            assert has_acted.wait(PATIENCE)
            run.pause()
            status = run.status
        late = sum(report.is_fallback for report in reports)
        assert status.inference.fallbacks == late >= 3
        assert status.buffers["seen"].seen == len(reports) - late, "a fallback's tick was recorded"
        assert "by the fallback" in str(status)
        assert len(mind.told) >= 3
        assert mind.told == [("pamiq-inference-policy", reward) for reward in world.rewards[: len(mind.told)]]
        assert {float(report.action) for report in reports if report.is_fallback} == {-1.0}

    def test_what_the_policy_raises_ends_the_agent(self) -> None:
        class Broken(SlowMind):
            def act(self, params: Any, observation: Any) -> Any:
                raise OSError("no mind")

        interaction = pj.Interaction(Broken(), World(), interval_seconds=0.1, fallback=lambda observation, last: last)
        with (
            pj.launch(learning_system(trainers={}, interaction=interaction)) as run,
            pytest.raises(WorkerError, match="OSError: no mind"),
        ):
            run.wait(PATIENCE)

    def test_strict_mode_and_a_compiled_policy(self) -> None:
        interaction = pj.Interaction(AGENT, World(), interval_seconds=0.005, fallback=lambda observation, last: last)
        with pj.launch(learning_system(interaction=interaction), strict=True) as run:
            run.wait_for_version(3, PATIENCE)
            assert run.status.compiles_after_ready == 0


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"fallback": lambda observation, last: last}, r"deadline_seconds\) is None, expected seconds.*interval"),
            ({"deadline_seconds": 0.1}, r"Interaction\(fallback\) is None, expected one.*deadline_misses"),
            ({"deadline_seconds": 0.0, "fallback": max}, r"deadline_seconds\) is 0.0, expected more than 0"),
            (
                {"deadline_seconds": 2.0, "interval_seconds": 1.0, "fallback": max},
                r"is 2.0, .* at most the interval of 1",
            ),
        ],
    )
    def test_deadlines(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(InvalidValueError, match=match):
            pj.Interaction(AGENT, World(), **options)

    def test_a_fallback_of_another_form(self) -> None:
        interaction = pj.Interaction(
            AGENT, World(), interval_seconds=1.0, fallback=lambda observation, last: observation
        )
        with pytest.raises(RecordMismatchError, match="the fallback's action differs from the environment's spec"):
            pj.compile_system(learning_system(interaction=interaction))
