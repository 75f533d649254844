"""Look a transition up, refusing what the table does not have before anything changes, and draw a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_COMMON = 3
"""An event that leads as many phases to one target is drawn once, lest its arrows hide the others."""


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


def mermaid[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], current: P | None = None) -> str:
    """Return the table as the text of a Mermaid `stateDiagram-v2`.

    The initial phase is that of the table's first key; a phase without a row is final. An event that at
    least three phases answer in the same way gets one arrow, from a node that says which phases those are.

    Args:
        table: the phase that follows on each (phase, event).
        current: a phase to highlight, for a live view.

    Example:
        >>> mermaid(TRAINER_TRANSITIONS).splitlines()[:3]
        ['stateDiagram-v2', '    [*] --> waiting', '    waiting --> setting_up: start']
    """
    arrows: dict[tuple[E, P], list[str]] = {}
    for (source, event), target in table.items():
        arrows.setdefault((event, target), []).append(source)
    lines = [f"[*] --> {next(iter(table))[0]}"]
    for (event, target), sources in arrows.items():
        if len(sources) < _COMMON:
            lines += [f"{source} --> {target}: {event}" for source in sources]
        else:
            node, label = _common_node(table, sources)
            lines += [f'state "{label}" as {node}', f"{node} --> {target}: {event}"]
    with_row = {source for source, _ in table}
    lines += [f"{phase} --> [*]" for phase in dict.fromkeys(table.values()) if phase not in with_row]
    if current is not None:
        lines += ["classDef current fill:#ffe8a3,stroke:#b7791f,color:#1a202c", f"class {current} current"]
    # As keys, since two events that come from the same phases declare the same node.
    return "stateDiagram-v2\n" + "".join(f"    {line}\n" for line in dict.fromkeys(lines))


def _common_node[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], sources: Sequence[str]) -> tuple[str, str]:
    others = [phase for phase in dict.fromkeys(source for source, _ in table) if phase not in sources]
    return "_but_".join(["any_phase", *others]), ", but not ".join(["any phase that is not final", *others])
