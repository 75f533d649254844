"""How long a thread may be in one thing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pamiq_jax.errors import InvalidValueError


@dataclass(frozen=True)
class Deadlines:
    """How long a thread may be in one thing before it counts as stuck: real seconds; None: for ever.

    A thread that sleeps until there is data, a command or its time is never stuck. Work takes as long as it takes, so
    that `time_scale` does not change the limits; they do not advance in a pause.

    Args:
        compiling: all programs, before the system is ready.
        training: one chunk of one trainer; also its set-up and tear-down, each, and what comes between chunks.
        publishing: one publication, until all arrays are there.
        environment: one `observe`, `affect`, `reset` or `close`.
        acting: one `act` of the agent.
        hook: one `on_paused`, `on_resumed` or `on_interaction`, or one call that another thread has brought.
        saving: one save, from its beginning until it is on the disk, and the removal of old states.
        pausing: from a pause, resume or stop to its acknowledgment by each thread, whatever that thread is in.
        interpreter: how long C code may keep all Python code from running, by holding the interpreter's lock; in real
            seconds. Then no thread can say so, this one neither: `faulthandler` writes all stacks to standard error. A
            process has one such timer, which others use too (pytest's `faulthandler_timeout`), so there is none by
            default.

    Raises:
        InvalidValueError: a limit that is no number above 0.

    Example:
        >>> Deadlines(training=600.0, environment=None).training
        600.0
    """

    compiling: float | None = 600.0
    training: float | None = 60.0
    publishing: float | None = 60.0
    environment: float | None = 60.0
    acting: float | None = 60.0
    hook: float | None = 60.0
    saving: float | None = 600.0
    pausing: float | None = 60.0
    interpreter: float | None = None

    def __post_init__(self) -> None:
        for name, seconds in dataclasses.asdict(self).items():
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if seconds is not None and not (is_number and seconds > 0):
                raise InvalidValueError(f"Deadlines({name})", seconds, "more than 0", "None sets no limit")
        if self.interpreter == math.inf:
            raise InvalidValueError("Deadlines(interpreter)", self.interpreter, "a finite number", "None sets no limit")

    @property
    def limits(self) -> Mapping[str, float]:
        """The limits of what a thread is in, by name, infinite where there is none."""
        limits = {name: math.inf if limit is None else limit for name, limit in dataclasses.asdict(self).items()}
        del limits["interpreter"]  # it is of the process
        return limits


DEADLINES = Deadlines()
"""The deadlines that `launch` has by default."""
