"""Train by the clock: at an interval, for a share of the time, on fresh data, or in some hours of the day."""

from __future__ import annotations

import math

from pamiq_jax.arguments import checked_fraction, checked_milliseconds, checked_number, short_number
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.function import Rule
from pamiq_jax.conditions.progress import Count, Progress, Truth, Wake
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

    asks = {"milliseconds since the last run": ((interval, math.inf),)}
    code = f"every_seconds({written})"
    return Rule(code, lambda now, last: now.time_ms - last.time_ms >= interval, facts, hint, asks=asks)


def max_duty(fraction: float) -> Condition:
    """Return the condition that the trainer has rested in proportion to its last run.

    A run that kept the trainer busy for 2 seconds is followed by the next one no sooner than `2 / fraction` seconds
    after it started: of the time between two starts, `fraction` is spent in its chunks at most. Nothing is saved up:
    a trainer that waited for data all night does not work without a rest in the morning. A run that has started is not
    slowed down, so for an even load let it be short. What is counted is this trainer's time alone.

    Args:
        fraction: share of the time, from 0.001 to 1: a fraction with a denominator up to 1000.

    Raises:
        InvalidValueError: if `fraction` is out of range or no such fraction.

    Example:
        >>> max_duty(0.25)(Progress(time_ms=9_000, busy_ms=2_000), last=Progress(time_ms=4_000))
        Decision(go=False, reason='busy for 2000 of 1250 ms that 5000 ms since the last run allow',
                 wake=Wake(records=None, milliseconds=3000))
    """
    share, of = checked_fraction("max_duty(fraction)", fraction, least=0.001, most=1).as_integer_ratio()

    def allowed(now: Progress, last: Progress) -> Count:
        whole, rest = (now.time_ms - last.time_ms) // of, (now.time_ms - last.time_ms) % of
        return whole * share + rest * share // of  # the time times `share` would leave int32 after 36 minutes

    def facts(now: Progress, last: Progress) -> str:
        busy, passed = now.busy_ms - last.busy_ms, now.time_ms - last.time_ms
        return f"busy for {busy} of {allowed(now, last)} ms that {passed} ms since the last run allow"

    def hint(now: Progress, last: Progress) -> Wake:
        missing = -(-int(now.busy_ms - last.busy_ms) * of // share) - int(now.time_ms - last.time_ms)
        return Wake(milliseconds=missing) if missing > 0 else Wake()

    code, asks = f"max_duty({short_number(share / of)})", {"rest, as minus the duty": ((-share / of, math.inf),)}
    return Rule(code, lambda now, last: now.busy_ms - last.busy_ms <= allowed(now, last), facts, hint, asks=asks)


def fresh(max_age_seconds: float) -> Condition:
    """Return the condition that the newest record was inserted no longer than `max_age_seconds` ago.

    It keeps a trainer from going on with the same data once the agent has stopped: a stuck environment, an episode's
    end, a broken sensor. It does not hold for an empty buffer. Time is the system's own, which stands still in a pause.

    Args:
        max_age_seconds: to the millisecond, up to 24 days.

    Raises:
        InvalidValueError: if it is less than a millisecond or more than 24 days.

    Example:
        >>> fresh(5)(Progress(size=10, time_ms=60_000, newest_ms=52_000), Progress()).reason
        'the newest record is 8.0 seconds old, at most 5 allowed'
    """
    limit = checked_milliseconds("fresh(max_age_seconds)", max_age_seconds)
    written = short_number(limit / 1000)

    def holds(now: Progress, last: Progress) -> Truth:
        return (now.size > 0) & (now.time_ms - now.newest_ms <= limit)

    def facts(now: Progress, last: Progress) -> str:
        if now.size == 0:
            return "has no record yet"
        age = -(int(now.newest_ms - now.time_ms) // 100) / 10  # rounded up: never "5.0" where 5 is exceeded
        return f"the newest record is {age:.1f} seconds old, at most {written} allowed"

    def hint(now: Progress, last: Progress) -> Wake:
        remaining = limit - int(now.time_ms - now.newest_ms)
        return Wake(milliseconds=remaining + 1) if holds(now, last) else Wake(records=1)

    asks = {"records": ((1, math.inf),), "milliseconds of age": ((-math.inf, limit + 1),)}
    return Rule(f"fresh({written})", holds, facts, hint, asks=asks)


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

    hours = ((start, end),) if start < end else ((0, end), (start, _DAY))
    why, asks = f"{code} is the whole day" if whole_day else None, {"seconds of the day": hours}
    return Rule(code, holds, facts, hint, why_always=why, asks=asks)


def _clock_face(second: int) -> str:
    return f"{second // _HOUR:02}:{second % _HOUR // 60:02}"
