"""Look a transition up, refusing what the table does not have before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, overload

from pamiq_jax.errors import InvalidTransitionError, InvalidValueError
from pamiq_jax.lifecycle.tables import (
    SYSTEM_TRANSITIONS,
    TRAINER_TRANSITIONS,
    SystemEvent,
    SystemPhase,
    TrainerEvent,
    TrainerPhase,
)

type Phase = TrainerPhase | SystemPhase
"""A phase of either machine."""

type Event = TrainerEvent | SystemEvent
"""An event of either machine."""

_MACHINES: Mapping[type, tuple[type[StrEnum], Mapping[Any, Any]]] = {
    TrainerPhase: (TrainerEvent, TRAINER_TRANSITIONS),
    SystemPhase: (SystemEvent, SYSTEM_TRANSITIONS),
}


@overload
def transition(phase: TrainerPhase, event: TrainerEvent) -> TrainerPhase: ...
@overload
def transition(phase: SystemPhase, event: SystemEvent) -> SystemPhase: ...
def transition(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows when `event` comes in `phase`, by the table of the phase's type.

    Raises:
        InvalidTransitionError: if the event is not possible in this phase; it names those that are.
        InvalidValueError: if the event belongs to the other machine, or either is a plain string.

    Example:
        >>> transition(TrainerPhase.WAITING, TrainerEvent.START)
        <TrainerPhase.SETTING_UP: 'setting_up'>
    """
    expected, table = _machine_of(phase)
    # Two StrEnums with equal values are equal: without this a trainer would take the system's STOP for its own.
    if not isinstance(event, expected):
        raise InvalidValueError("event", event, f"a {expected.__name__}", "send a machine only its own events")
    after = table.get((phase, event))
    if after is None:
        raise InvalidTransitionError(phase, event, allowed_events(phase))
    return after


@overload
def allowed_events(phase: TrainerPhase) -> tuple[TrainerEvent, ...]: ...
@overload
def allowed_events(phase: SystemPhase) -> tuple[SystemEvent, ...]: ...
def allowed_events(phase: Phase) -> tuple[Event, ...]:
    """Return the events that are possible in `phase`, in the order of the table.

    Raises:
        InvalidValueError: if `phase` is a plain string; write `TrainerPhase("waiting")`.

    Example:
        >>> [str(event) for event in allowed_events(SystemPhase.PAUSED)]
        ['resume', 'stop', 'fail']
    """
    return tuple(event for source, event in _machine_of(phase)[1] if source == phase)


def _machine_of(phase: Phase) -> tuple[type[StrEnum], Mapping[Any, Any]]:
    machine = _MACHINES.get(type(phase))
    if machine is None:
        raise InvalidValueError("phase", phase, "a TrainerPhase or a SystemPhase")
    return machine


def is_final(phase: Phase) -> bool:
    """Return whether nothing can happen any more in `phase`.

    Example:
        >>> is_final(TrainerPhase.STOPPED), is_final(TrainerPhase.WAITING)
        (True, False)
    """
    return not allowed_events(phase)
