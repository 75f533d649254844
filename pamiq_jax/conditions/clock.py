"""Train by the clock: at an interval, or in some hours of the day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import override

from pamiq_jax.conditions.arguments import INT32_MAX, checked_number, short_number
from pamiq_jax.conditions.base import Condition, Progress, Truth, Wake
from pamiq_jax.errors import InvalidValueError

_HOUR = 3600
_DAY = 24 * _HOUR


def every_seconds(seconds: float) -> Condition:
    """Return the condition that `seconds` have passed since the last run started.

    Time is the system's own, which stands still in a pause. Before the first run it counts from the start of
    the system, so the first run starts after `seconds` too.

    Args:
        seconds: the interval, to the millisecond, up to 24 days.

    Raises:
        InvalidValueError: if `seconds` is less than a millisecond or more than 24 days.

    Example:
        >>> every_seconds(5)(Progress(time_ms=8_000), last=Progress(time_ms=5_000)).reason
        '3.0 of 5 seconds since the last run'
    """
    checked = checked_number("every_seconds(seconds)", seconds, least=0.001, most=INT32_MAX // 1000)
    return _EverySeconds(round(checked * 1000))


@dataclass(frozen=True, repr=False)
class _EverySeconds(Condition):
    milliseconds: int

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return now.time_ms - last.time_ms >= self.milliseconds

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        passed = int(now.time_ms - last.time_ms) // 100 / 10  # rounded down: "5.0 of 5" would look as if it held
        return f"{passed:.1f} of {short_number(self.milliseconds / 1000)} seconds since the last run"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        missing = self.milliseconds - int(now.time_ms - last.time_ms)
        # Once it holds, only the start of a run changes that; neither records nor time do.
        return Wake(milliseconds=missing) if missing > 0 else Wake()

    @override
    def __repr__(self) -> str:
        return f"every_seconds({short_number(self.milliseconds / 1000)})"


def time_of_day(start_hour: float, end_hour: float) -> Condition:
    """Return the condition that the local time is within a daily window.

    The window includes its start and not its end, and may go over midnight: `time_of_day(22, 6)` is the night. The
    hint to wake at the boundary is right to a second, and off by the change when the clock is changed meanwhile.

    Args:
        start_hour: from 0 up to 24, not included; 6.5 is half past six.
        end_hour: from 0 to 24.

    Raises:
        InvalidValueError: if an hour is out of range, or the two are equal.

    Example:
        >>> time_of_day(22, 6)(Progress(second_of_day=12 * 3600 + 1800), Progress()).reason
        '12:30 is outside 22:00-06:00'
    """
    start = _second("time_of_day(start_hour)", start_hour)
    end = _second("time_of_day(end_hour)", end_hour)
    if start == _DAY:
        raise InvalidValueError("time_of_day(start_hour)", start_hour, "an hour before 24", "write 0 for midnight")
    if start == end:
        remedy = "write time_of_day(0, 24) for the whole day"
        raise InvalidValueError("time_of_day(end_hour)", end_hour, "another hour than start_hour", remedy)
    return _TimeOfDay(start, end)


def _second(argument: str, hour: float) -> int:
    return round(checked_number(argument, hour, least=0, most=24) * _HOUR)


def _clock_face(second: int) -> str:
    return f"{second // _HOUR:02}:{second % _HOUR // 60:02}"


@dataclass(frozen=True, repr=False)
class _TimeOfDay(Condition):
    start: int
    end: int

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        started, not_ended = now.second_of_day >= self.start, now.second_of_day < self.end
        return started & not_ended if self.start < self.end else started | not_ended

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        place = "within" if self.test(now, last) else "outside"
        window = f"{_clock_face(self.start)}-{_clock_face(self.end)}"
        return f"{_clock_face(int(now.second_of_day))} is {place} {window}"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        if self.always(0):
            return Wake()
        boundary = self.end if self.test(now, last) else self.start
        return Wake(milliseconds=(boundary - int(now.second_of_day)) % _DAY * 1000)

    @override
    def always(self, capacity: int) -> str | None:
        return f"{self!r} is the whole day" if self.end - self.start == _DAY else None

    @override
    def __repr__(self) -> str:
        return f"time_of_day({short_number(self.start / _HOUR)}, {short_number(self.end / _HOUR)})"
