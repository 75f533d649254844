"""Every transition of every machine, as a stream of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pamiq_jax.lifecycle import Event, Phase


class Transition(NamedTuple):
    """One transition of one machine.

    Attributes:
        sequence: 0 for a run's first, then one more with each; the order in which they were made.
        seconds: on the system's clock.
        machine: "system", or a trainer's name as `"trainer vae"`.
        before: the phase it was in.
        event: what happened.
        after: the phase it is in now.

    Example:
        >>> from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
        >>> print(Transition(3, 1.5, "trainer vae", TrainerPhase.WAITING, TrainerEvent.START, TrainerPhase.SETTING_UP))
        3  1.500 s  trainer vae: waiting --start--> setting_up
    """

    sequence: int
    seconds: float
    machine: str
    before: Phase
    event: Event
    after: Phase

    def __str__(self) -> str:
        return f"{self.sequence}  {self.seconds:.3f} s  {self.machine}: {self.before} --{self.event}--> {self.after}"


type OnTransition = Callable[[Transition], Any]
"""Told of each transition, on the thread that makes it, once it is made. What it raises is a failure of its own."""
