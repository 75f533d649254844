"""The phases of a system, what can happen to it, and the table that joins the two."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType


class SystemPhase(StrEnum):
    """Where a system is between being built and being over.

    Example:
        >>> SystemPhase.RUNNING
        <SystemPhase.RUNNING: 'running'>
    """

    NEW = auto()
    """Built and checked; nothing has been compiled."""
    COMPILING = auto()
    """Inference and training are compiled, since nothing may be later."""
    RESTORING = auto()
    """The initial states are brought in place and version 0 is published."""
    READY = auto()
    """The agent could act, but has not been started."""
    RUNNING = auto()
    """The agent acts and the trainers learn."""
    PAUSING = auto()
    """Workers were asked to pause and not all of them have answered."""
    PAUSED = auto()
    """Every worker stands still and every pause hook has returned."""
    RESUMING = auto()
    """Workers were asked to go on and not all of them have answered."""
    STOPPING = auto()
    """Workers were asked to end and not all of them have."""
    STOPPED = auto()
    """Final: everything ended as asked."""
    FAILED = auto()
    """Final: something raised, and waiting for the system raises it again."""


class SystemEvent(StrEnum):
    """What can happen to a system: five commands, five answers, and failure.

    Example:
        >>> SystemEvent("all_paused")
        <SystemEvent.ALL_PAUSED: 'all_paused'>
    """

    COMPILE = auto()
    """Command: compile everything."""
    COMPILED = auto()
    """Every program is compiled."""
    RESTORED = auto()
    """The states are in place and version 0 is published."""
    START = auto()
    """Command: let the agent act."""
    PAUSE = auto()
    """Command: stand still; also takes back a resume that is under way."""
    ALL_PAUSED = auto()
    """The last worker has acknowledged the pause, after its hooks."""
    RESUME = auto()
    """Command: go on; also takes back a pause that is under way."""
    ALL_RESUMED = auto()
    """The last worker has acknowledged that it goes on."""
    STOP = auto()
    """Command: end."""
    ALL_STOPPED = auto()
    """The last worker has ended."""
    FAIL = auto()
    """A worker raised, or a deadline passed."""


_ALIVE = tuple(phase for phase in SystemPhase if phase not in (SystemPhase.STOPPED, SystemPhase.FAILED))

SYSTEM_TRANSITIONS: Mapping[tuple[SystemPhase, SystemEvent], SystemPhase] = MappingProxyType(
    {
        (SystemPhase.NEW, SystemEvent.COMPILE): SystemPhase.COMPILING,
        (SystemPhase.COMPILING, SystemEvent.COMPILED): SystemPhase.RESTORING,
        (SystemPhase.RESTORING, SystemEvent.RESTORED): SystemPhase.READY,
        (SystemPhase.READY, SystemEvent.START): SystemPhase.RUNNING,
        (SystemPhase.RUNNING, SystemEvent.PAUSE): SystemPhase.PAUSING,
        (SystemPhase.PAUSING, SystemEvent.ALL_PAUSED): SystemPhase.PAUSED,
        (SystemPhase.PAUSING, SystemEvent.RESUME): SystemPhase.RESUMING,
        (SystemPhase.PAUSED, SystemEvent.RESUME): SystemPhase.RESUMING,
        (SystemPhase.RESUMING, SystemEvent.ALL_RESUMED): SystemPhase.RUNNING,
        (SystemPhase.RESUMING, SystemEvent.PAUSE): SystemPhase.PAUSING,
        (SystemPhase.STOPPING, SystemEvent.ALL_STOPPED): SystemPhase.STOPPED,
    }
    | {(phase, SystemEvent.STOP): SystemPhase.STOPPING for phase in _ALIVE if phase is not SystemPhase.STOPPING}
    | {(phase, SystemEvent.FAIL): SystemPhase.FAILED for phase in _ALIVE}
)
"""The phase that follows on each event; the first key holds the initial phase.

A pair that is not in the table is not possible.
"""
