"""The phases of a trainer and of a system, what can happen to each, and the tables that join the two."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType


class TrainerPhase(StrEnum):
    """Where a trainer is between two of its runs, or inside one."""

    WAITING = auto()  # its condition does not hold yet
    SETTING_UP = auto()  # a run has begun: `setup` prepares the state
    TRAINING = auto()  # chunks of steps; between two of them the trainer can pause, save or stop
    PUBLISHING = auto()  # the new parameters are awaited, checked and swapped in
    TEARING_DOWN = auto()  # `teardown` ends the run
    FAILED = auto()  # final: something raised, the last published version goes on acting
    STOPPED = auto()  # final: it was asked to stop


class TrainerEvent(StrEnum):
    """What can happen to a trainer."""

    START = auto()  # the condition holds: a run begins and the cursor moves
    SET_UP = auto()  # `setup` has returned
    CHUNK_DONE = auto()  # a chunk of steps is done and the run has more of them
    STEPS_DONE = auto()  # the last chunk of the run is done
    PUBLISHED = auto()  # the snapshot is swapped, or there was nothing to publish
    TORN_DOWN = auto()  # `teardown` has returned: the run is over
    ROLL_BACK = auto()  # it failed, and goes back to its last good state to begin anew
    FAIL = auto()  # it failed and is not to begin anew: it raised, or what it made is not finite
    STOP = auto()  # the system stops


_LIVE_TRAINER = tuple(phase for phase in TrainerPhase if phase not in (TrainerPhase.FAILED, TrainerPhase.STOPPED))

TRAINER_TRANSITIONS: Mapping[tuple[TrainerPhase, TrainerEvent], TrainerPhase] = MappingProxyType(
    {
        (TrainerPhase.WAITING, TrainerEvent.START): TrainerPhase.SETTING_UP,
        (TrainerPhase.SETTING_UP, TrainerEvent.SET_UP): TrainerPhase.TRAINING,
        (TrainerPhase.TRAINING, TrainerEvent.CHUNK_DONE): TrainerPhase.TRAINING,
        (TrainerPhase.TRAINING, TrainerEvent.STEPS_DONE): TrainerPhase.PUBLISHING,
        (TrainerPhase.PUBLISHING, TrainerEvent.PUBLISHED): TrainerPhase.TEARING_DOWN,
        (TrainerPhase.TEARING_DOWN, TrainerEvent.TORN_DOWN): TrainerPhase.WAITING,
    }
    | {(phase, TrainerEvent.ROLL_BACK): TrainerPhase.WAITING for phase in _LIVE_TRAINER}
    | {(phase, TrainerEvent.FAIL): TrainerPhase.FAILED for phase in _LIVE_TRAINER}
    | {(phase, TrainerEvent.STOP): TrainerPhase.STOPPED for phase in _LIVE_TRAINER}
)
"""The phase that follows on each event; the first key holds the initial phase. What is not here is not possible."""


class SystemPhase(StrEnum):
    """Where a system is between being built and being over."""

    NEW = auto()  # built and checked; nothing has been compiled
    COMPILING = auto()  # inference and training are compiled, since nothing may be later
    RESTORING = auto()  # the initial states are brought in place and version 0 is published
    READY = auto()  # the agent could act, but has not been started
    RUNNING = auto()  # the agent acts and the trainers learn
    PAUSING = auto()  # workers were asked to pause and not all of them have answered
    PAUSED = auto()  # every worker stands still and every pause hook has returned
    RESUMING = auto()  # workers were asked to go on and not all of them have answered
    STOPPING = auto()  # workers were asked to end and not all of them have
    STOPPED = auto()  # final: everything ended as asked
    FAILED = auto()  # final: something raised, and waiting for the system raises it again


class SystemEvent(StrEnum):
    """What can happen to a system: five commands, five answers, and failure."""

    COMPILE = auto()  # command: compile everything
    COMPILED = auto()  # every program is compiled
    RESTORED = auto()  # the states are in place and version 0 is published
    START = auto()  # command: let the agent act
    PAUSE = auto()  # command: stand still; also takes back a resume that is under way
    ALL_PAUSED = auto()  # the last worker has acknowledged the pause, after its hooks
    RESUME = auto()  # command: go on; also takes back a pause that is under way
    ALL_RESUMED = auto()  # the last worker has acknowledged that it goes on
    STOP = auto()  # command: end
    ALL_STOPPED = auto()  # the last worker has ended
    FAIL = auto()  # a worker raised, or a deadline passed


_LIVE_SYSTEM = tuple(phase for phase in SystemPhase if phase not in (SystemPhase.STOPPED, SystemPhase.FAILED))

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
    | {(phase, SystemEvent.STOP): SystemPhase.STOPPING for phase in _LIVE_SYSTEM if phase != SystemPhase.STOPPING}
    | {(phase, SystemEvent.FAIL): SystemPhase.FAILED for phase in _LIVE_SYSTEM}
)
"""The phase that follows on each event; the first key holds the initial phase. What is not here is not possible."""
