"""A dead man's switch for the whole interpreter: C code that never lets go of its lock stops the watchdog too."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time

_LOGGER = logging.getLogger("pamiq_jax")
_STANDARD_ERROR = 2


class InterpreterTimer:
    """Has all stacks written to standard error, by a thread of C code, unless somebody tells it often enough.

    It is `faulthandler.dump_traceback_later`, of which a process has one: systems share it, with the shortest of their
    limits, and the last to end takes it away. A timer of somebody else's, such as pytest's, is replaced.

    Args:
        limit: seconds without a word after which the stacks are written.

    Example:
        >>> InterpreterTimer(limit=600.0).period
        150.0
    """

    _lock = threading.Lock()
    _limits: list[float] = []  # noqa: RUF012 - of the process, one entry for each timer that has begun

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._told = 0.0

    @property
    def period(self) -> float:
        """How often it must be told, in seconds."""
        return self._limit / 4

    def begin(self) -> None:
        """Start it. Called once, by whoever will tell it."""
        with self._lock:
            self._limits.append(self._limit)
            self._arm()
        self._told = time.monotonic()

    def tell(self) -> None:
        """Note that Python code runs; if none did for longer than the limit, log that."""
        now = time.monotonic()
        if now - self._told > self._limit:
            _LOGGER.error(
                "no Python code has run for %.1f s (more than %g s): something held the interpreter's lock, or the "
                "process stood still; the stacks are on standard error",
                now - self._told,
                self._limit,
            )
        self._told = now
        with self._lock:
            self._arm()

    def end(self) -> None:
        """Take it away, unless another system needs it."""
        with self._lock:
            self._limits.remove(self._limit)
            if self._limits:
                self._arm()
            else:
                faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(min(self._limits), file=_standard_error())


def _standard_error() -> int:
    """Return the descriptor of standard error: `sys.stderr` may be something without one, as in a notebook."""
    try:
        return _STANDARD_ERROR if sys.__stderr__ is None else sys.__stderr__.fileno()
    except (OSError, ValueError):
        return _STANDARD_ERROR
