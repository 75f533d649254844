"""Look a transition up, and refuse what the table does not have before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, overload

from pamiq_jax.errors import InvalidTransitionError, InvalidValueError
from pamiq_jax.lifecycle.system import SYSTEM_TRANSITIONS, SystemEvent, SystemPhase
from pamiq_jax.lifecycle.trainer import TRAINER_TRANSITIONS, TrainerEvent, TrainerPhase

type Phase = TrainerPhase | SystemPhase
"""A phase of either machine."""

type Event = TrainerEvent | SystemEvent
"""An event of either machine."""

_TABLES: Mapping[type, Mapping[Any, Any]] = {TrainerPhase: TRAINER_TRANSITIONS, SystemPhase: SYSTEM_TRANSITIONS}
_EVENTS: Mapping[type, type[StrEnum]] = {TrainerPhase: TrainerEvent, SystemPhase: SystemEvent}


@overload
def transition(phase: TrainerPhase, event: TrainerEvent) -> TrainerPhase: ...
@overload
def transition(phase: SystemPhase, event: SystemEvent) -> SystemPhase: ...
def transition(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows when `event` comes in `phase`.

    The machine is chosen by the phase's type: a trainer's or the system's.

    Args:
        phase: the phase the machine is in.
        event: what happens to it, from the same machine.

    Raises:
        InvalidTransitionError: if the event is not possible in this phase; it names those that are.
        InvalidValueError: if the event belongs to the other machine, or either is a plain string.

    Example:
        >>> transition(TrainerPhase.WAITING, TrainerEvent.START)
        <TrainerPhase.SETTING_UP: 'setting_up'>
    """
    allowed = allowed_events(phase)
    expected = _EVENTS[type(phase)]
    # Two StrEnums with equal values are equal: without this a trainer would take the system's STOP for its own.
    if not isinstance(event, expected):
        raise InvalidValueError("event", event, f"a {expected.__name__}", "send a machine only its own events")
    if event not in allowed:
        raise InvalidTransitionError(phase, event, allowed)
    return _TABLES[type(phase)][phase, event]


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
    table = _TABLES.get(type(phase))
    if table is None:
        raise InvalidValueError("phase", phase, "a TrainerPhase or a SystemPhase")
    return tuple(event for source, event in table if source == phase)


def is_final(phase: Phase) -> bool:
    """Return whether nothing can happen any more in `phase`.

    Example:
        >>> is_final(TrainerPhase.STOPPED), is_final(TrainerPhase.WAITING)
        (True, False)
    """
    return not allowed_events(phase)
