"""The phases of a trainer, what can happen to it, and the table that joins the two."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType


class TrainerPhase(StrEnum):
    """Where a trainer is between two of its runs, or inside one.

    Example:
        >>> TrainerPhase.SETTING_UP
        <TrainerPhase.SETTING_UP: 'setting_up'>
    """

    WAITING = auto()
    """Its condition does not hold yet."""
    SETTING_UP = auto()
    """A run has begun: `setup` prepares the state."""
    TRAINING = auto()
    """Chunks of steps; between two of them the trainer can pause, save or stop."""
    PUBLISHING = auto()
    """The new parameters are awaited, checked and swapped in."""
    TEARING_DOWN = auto()
    """`teardown` ends the run."""
    FAILED = auto()
    """Final: something raised, the last published version goes on acting."""
    STOPPED = auto()
    """Final: it was asked to stop."""


class TrainerEvent(StrEnum):
    """What can happen to a trainer.

    Example:
        >>> TrainerEvent("chunk_done")
        <TrainerEvent.CHUNK_DONE: 'chunk_done'>
    """

    START = auto()
    """The condition holds: a run begins and the cursor moves."""
    SET_UP = auto()
    """`setup` has returned."""
    CHUNK_DONE = auto()
    """A chunk of steps is done and the run has more of them."""
    STEPS_DONE = auto()
    """The last chunk of the run is done."""
    PUBLISHED = auto()
    """The snapshot is swapped, or there was nothing to publish."""
    TORN_DOWN = auto()
    """`teardown` has returned: the run is over."""
    FAIL = auto()
    """One of the trainer's functions raised, or it would have published what is not finite."""
    STOP = auto()
    """The system stops."""


_ALIVE = tuple(phase for phase in TrainerPhase if phase not in (TrainerPhase.FAILED, TrainerPhase.STOPPED))

TRAINER_TRANSITIONS: Mapping[tuple[TrainerPhase, TrainerEvent], TrainerPhase] = MappingProxyType(
    {
        (TrainerPhase.WAITING, TrainerEvent.START): TrainerPhase.SETTING_UP,
        (TrainerPhase.SETTING_UP, TrainerEvent.SET_UP): TrainerPhase.TRAINING,
        (TrainerPhase.TRAINING, TrainerEvent.CHUNK_DONE): TrainerPhase.TRAINING,
        (TrainerPhase.TRAINING, TrainerEvent.STEPS_DONE): TrainerPhase.PUBLISHING,
        (TrainerPhase.PUBLISHING, TrainerEvent.PUBLISHED): TrainerPhase.TEARING_DOWN,
        (TrainerPhase.TEARING_DOWN, TrainerEvent.TORN_DOWN): TrainerPhase.WAITING,
    }
    | {(phase, TrainerEvent.FAIL): TrainerPhase.FAILED for phase in _ALIVE}
    | {(phase, TrainerEvent.STOP): TrainerPhase.STOPPED for phase in _ALIVE}
)
"""The phase that follows on each event; the first key holds the initial phase.

A pair that is not in the table is not possible.
"""
