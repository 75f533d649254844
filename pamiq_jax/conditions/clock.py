"""Train by the clock: at an interval, or in some hours of the day."""

from __future__ import annotations

from pamiq_jax.arguments import checked_milliseconds, checked_number, short_number
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.function import Rule
from pamiq_jax.conditions.progress import Progress, Truth, Wake
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
    interval = checked_milliseconds("every_seconds(seconds)", seconds)
    written = short_number(interval / 1000)

    def facts(now: Progress, last: Progress) -> str:
        passed = int(now.time_ms - last.time_ms) // 100 / 10  # rounded down: "5.0 of 5" would look as if it held
        return f"{passed:.1f} of {written} seconds since the last run"

    def hint(now: Progress, last: Progress) -> Wake:
        missing = interval - int(now.time_ms - last.time_ms)
        # Once it holds, only the start of a run changes that; neither records nor time do.
        return Wake(milliseconds=missing) if missing > 0 else Wake()

    return Rule(f"every_seconds({written})", lambda now, last: now.time_ms - last.time_ms >= interval, facts, hint)


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
    start = round(checked_number("time_of_day(start_hour)", start_hour, least=0, most=24) * _HOUR)
    end = round(checked_number("time_of_day(end_hour)", end_hour, least=0, most=24) * _HOUR)
    if start == _DAY:
        raise InvalidValueError("time_of_day(start_hour)", start_hour, "an hour before 24", "write 0 for midnight")
    if start == end:
        remedy = "write time_of_day(0, 24) for the whole day"
        raise InvalidValueError("time_of_day(end_hour)", end_hour, "another hour than start_hour", remedy)
    code = f"time_of_day({short_number(start / _HOUR)}, {short_number(end / _HOUR)})"
    whole_day = end - start == _DAY

    def holds(now: Progress, last: Progress) -> Truth:
        started, not_ended = now.second_of_day >= start, now.second_of_day < end
        return started & not_ended if start < end else started | not_ended

    def facts(now: Progress, last: Progress) -> str:
        place = "within" if holds(now, last) else "outside"
        return f"{_clock_face(int(now.second_of_day))} is {place} {_clock_face(start)}-{_clock_face(end)}"

    def hint(now: Progress, last: Progress) -> Wake:
        boundary = end if holds(now, last) else start
        return Wake() if whole_day else Wake(milliseconds=(boundary - int(now.second_of_day)) % _DAY * 1000)

    return Rule(code, holds, facts, hint, why_always=f"{code} is the whole day" if whole_day else None)


def _clock_face(second: int) -> str:
    return f"{second // _HOUR:02}:{second % _HOUR // 60:02}"
