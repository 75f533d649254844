"""Every (phase, event) pair, and random sequences of events against models written in another way."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pamiq_jax.errors import InvalidTransitionError, InvalidValueError
from pamiq_jax.lifecycle import (
    SYSTEM_TRANSITIONS,
    TRAINER_TRANSITIONS,
    SystemEvent,
    SystemPhase,
    TrainerEvent,
    TrainerPhase,
    allowed_events,
    is_final,
    transition,
)

MACHINES: list[Any] = [
    pytest.param(TrainerPhase, TrainerEvent, TRAINER_TRANSITIONS, id="trainer"),
    pytest.param(SystemPhase, SystemEvent, SYSTEM_TRANSITIONS, id="system"),
]
PAIRS: list[Any] = [
    pytest.param(phase, event, machine.values[2], id=f"{machine.id}-{phase}-{event}")
    for machine in MACHINES
    for phase, event in itertools.product(machine.values[0], machine.values[1])
]


@pytest.mark.parametrize(("phase", "event", "table"), PAIRS)
def test_every_pair_is_in_the_table_or_refused(phase: Any, event: Any, table: Any) -> None:
    if (phase, event) in table:
        assert transition(phase, event) is table[phase, event]
        assert event in allowed_events(phase)
    else:
        allowed = ", ".join(allowed_events(phase)) or "no event: the phase is final"
        with pytest.raises(InvalidTransitionError, match=f"^{event} is not possible in phase {phase}; .*: {allowed}$"):
            transition(phase, event)


@pytest.mark.parametrize(("phases", "events", "table"), MACHINES)
def test_a_table_has_only_its_own_types_and_uses_all_of_them(phases: Any, events: Any, table: Any) -> None:
    assert {type(source) for source, _ in table} | {type(target) for target in table.values()} == {phases}
    assert {type(event) for _, event in table} == {events}
    assert {event for _, event in table} == set(events)


@pytest.mark.parametrize(("phases", "events", "table"), MACHINES)
def test_every_phase_is_reachable_from_the_first(phases: Any, events: Any, table: Any) -> None:
    reached = {next(iter(table))[0]}
    for _ in phases:
        reached |= {target for (source, _), target in table.items() if source in reached}
    assert reached == set(phases)


@pytest.mark.parametrize(("phases", "events", "table"), MACHINES)
def test_stopped_and_failed_are_the_only_final_phases(phases: Any, events: Any, table: Any) -> None:
    assert {phase for phase in phases if is_final(phase)} == {phases.STOPPED, phases.FAILED}
    assert allowed_events(phases.STOPPED) == allowed_events(phases.FAILED) == ()


@pytest.mark.parametrize(("phases", "events", "table"), MACHINES)
def test_a_table_cannot_be_changed(phases: Any, events: Any, table: Any) -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        table[phases.STOPPED, events.FAIL] = phases.FAILED


def test_an_event_of_the_other_machine_is_refused_although_it_is_an_equal_string() -> None:
    assert SystemEvent.STOP == TrainerEvent.STOP
    with pytest.raises(InvalidValueError, match=r"event is <SystemEvent.STOP: 'stop'>, expected a TrainerEvent"):
        transition(TrainerPhase.WAITING, SystemEvent.STOP)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_plain_string_is_refused_as_a_phase() -> None:
    with pytest.raises(InvalidValueError, match="phase is 'waiting', expected a TrainerPhase or a SystemPhase"):
        allowed_events("waiting")  # pyright: ignore[reportCallIssue, reportArgumentType]


class TrainerAgainstModel(RuleBasedStateMachine):
    """The model is a place in the cycle of one run, and how the trainer ended, if it did."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = TrainerPhase.WAITING
        self.place = 0
        self.ended_as = ""

    def expected(self, event: TrainerEvent) -> bool:
        """Advance the model; return whether the event is possible."""
        if self.ended_as:
            return False
        if event in ("fail", "stop"):
            self.ended_as = {"fail": "failed", "stop": "stopped"}[event]
            return True
        if event == "chunk_done":
            return self.place == 2
        if event == "roll_back":
            self.place = 0
            return True
        possible = event == ["start", "set_up", "steps_done", "published", "torn_down"][self.place]
        self.place = (self.place + possible) % 5
        return possible

    # Ends are rare here, so that long sequences stay alive.
    @rule(
        event=st.sampled_from([event for event in TrainerEvent if event not in ("fail", "stop")] * 4 + ["fail", "stop"])
    )
    def send(self, event: str) -> None:
        before, sent = self.phase, TrainerEvent(event)
        if self.expected(sent):
            self.phase = transition(self.phase, sent)
        else:
            with pytest.raises(InvalidTransitionError, match=f"{event} is not possible in phase {before}"):
                transition(self.phase, sent)

    @rule()
    def go_on(self) -> None:
        if events := allowed_events(self.phase):
            assert self.expected(events[0])
            self.phase = transition(self.phase, events[0])

    @invariant()
    def agrees(self) -> None:
        cycle = ["waiting", "setting_up", "training", "publishing", "tearing_down"]
        assert self.phase == (self.ended_as or cycle[self.place])


class SystemAgainstModel(RuleBasedStateMachine):
    """The model is how far the start came, what was asked last, and whether all have answered."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = SystemPhase.NEW
        self.started = 0
        self.wanted = "run"
        self.answered = True

    def expected(self, event: SystemEvent) -> bool:
        """Advance the model; return whether the event is possible."""
        if self.wanted == "failed" or (self.wanted == "stop" and self.answered):
            return False
        if event == "fail":
            return self.want("failed", self.wanted != "failed")
        if event == "stop":
            return self.want("stop", self.wanted != "stop")
        if event == "pause":
            return self.want("pause", self.started == 4 and self.wanted == "run")
        if event == "resume":
            return self.want("run", self.started == 4 and self.wanted == "pause")
        if event in ("all_paused", "all_resumed", "all_stopped"):
            asked = {"all_paused": "pause", "all_resumed": "run", "all_stopped": "stop"}[event]
            possible = self.wanted == asked and not self.answered
            self.answered = self.answered or possible
            return possible
        possible = self.wanted == "run" and event == ["compile", "compiled", "restored", "start", None][self.started]
        self.started += possible
        return possible

    def want(self, wanted: str, possible: bool) -> bool:
        if possible:
            self.wanted, self.answered = wanted, False
        return possible

    @rule(
        event=st.sampled_from([event for event in SystemEvent if event not in ("fail", "stop")] * 4 + ["fail", "stop"])
    )
    def send(self, event: str) -> None:
        before, sent = self.phase, SystemEvent(event)
        if self.expected(sent):
            self.phase = transition(self.phase, sent)
        else:
            with pytest.raises(InvalidTransitionError, match=f"{event} is not possible in phase {before}"):
                transition(self.phase, sent)

    @rule()
    def go_on(self) -> None:
        if events := allowed_events(self.phase):
            assert self.expected(events[0])
            self.phase = transition(self.phase, events[0])

    @invariant()
    def agrees(self) -> None:
        if self.wanted == "failed":
            assert self.phase == "failed"
        elif self.wanted == "stop":
            assert self.phase == ("stopped" if self.answered else "stopping")
        elif self.started < 4:
            assert self.phase == ["new", "compiling", "restoring", "ready"][self.started]
        elif self.wanted == "pause":
            assert self.phase == ("paused" if self.answered else "pausing")
        else:
            assert self.phase == ("running" if self.answered else "resuming")


TestTrainerAgainstModel = TrainerAgainstModel.TestCase
TestSystemAgainstModel = SystemAgainstModel.TestCase
