"""Time as an argument: the real clock, and one that a test or a lockstep run moves by hand."""

from __future__ import annotations

import time
from typing import Protocol

from pamiq_jax.arguments import checked_positive


class Clock(Protocol):
    """What the ticks ask for the time.

    Attributes:
        scale: seconds on this clock in one real second.
    """

    scale: float

    def now(self) -> float:
        """Return seconds since the system's start; never goes back."""
        ...

    def second_of_day(self) -> int:
        """Return seconds since local midnight, 0 to 86,399."""
        ...

    def set(self, seconds: float) -> None:
        """Go on from a time, as a restored system does."""
        ...

    def pause(self) -> None:
        """Stop the time."""
        ...

    def resume(self) -> None:
        """Let the time go on from where it was stopped."""
        ...


def real_seconds(clock: Clock) -> float:
    """Return the time on a clock in real seconds, whatever its scale, for what takes time however fast the clock runs.

    As the clock's, it stands still in a pause. What is of use is the difference of two.

    Example:
        >>> clock = VirtualClock()
        >>> clock.scale = 10.0
        >>> clock.advance(20.0)
        >>> real_seconds(clock)
        2.0
    """
    return clock.now() / clock.scale


class RealClock:
    """The monotonic clock of this machine, from 0 at its creation; it stands still while it is paused.

    Args:
        scale: seconds on this clock in one real second.

    Raises:
        InvalidValueError: a scale of 0 or less, or that is no finite number.

    Example:
        >>> clock = RealClock()
        >>> 0 <= clock.now() <= clock.now()
        True
        >>> clock.pause()
        >>> clock.now() == clock.now()
        True
        >>> clock.resume()
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = checked_positive("RealClock(scale)", scale, "1 is the pace of the machine's clock")
        self._start = time.monotonic()
        self._paused_at: float | None = None

    def set(self, seconds: float) -> None:
        """Go on from a time, as a restored system does. Called before any worker has begun.

        Args:
            seconds: what `now` returns next.
        """
        self._start += self.now() / self.scale - seconds / self.scale

    def now(self) -> float:
        """Return seconds since this clock was made, pauses not counted."""
        paused_at = self._paused_at
        return ((time.monotonic() if paused_at is None else paused_at) - self._start) * self.scale

    def second_of_day(self) -> int:
        """Return seconds since local midnight, from the wall clock."""
        local = time.localtime()
        return local.tm_hour * 3600 + local.tm_min * 60 + min(local.tm_sec, 59)

    def pause(self) -> None:
        """Stop the time. Called once all workers have acknowledged a pause."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Let the time go on from where it was stopped. Called before any worker goes on."""
        if self._paused_at is not None:
            self._start += time.monotonic() - self._paused_at
            self._paused_at = None


class VirtualClock:
    """A clock that stands still until it is moved.

    Args:
        second_of_day: local time of day at `now() == 0`, in seconds since midnight.

    Example:
        >>> clock = VirtualClock(second_of_day=86_399)
        >>> clock.advance(2.5)
        >>> clock.now(), clock.second_of_day()
        (2.5, 1)
    """

    def __init__(self, *, second_of_day: int = 0) -> None:
        self.scale = 1.0
        self._now = 0.0
        self._second_of_day = second_of_day

    def now(self) -> float:
        """Return the seconds it was moved by so far."""
        return self._now

    def second_of_day(self) -> int:
        """Return the time of day that the moves have led to."""
        return int(self._second_of_day + self._now) % 86_400

    def set(self, seconds: float) -> None:
        """Go on from a time, as a restored system does.

        Args:
            seconds: what `now` returns next.
        """
        self._now = seconds

    def advance(self, seconds: float) -> None:
        """Move it on.

        Args:
            seconds: at least 0.
        """
        self._now += seconds

    def pause(self) -> None:
        """Do nothing: it only moves when it is moved."""

    def resume(self) -> None:
        """Do nothing: it only moves when it is moved."""
