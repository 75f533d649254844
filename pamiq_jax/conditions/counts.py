"""Train when there are enough records, in proportion to them, or always."""

from __future__ import annotations

from fractions import Fraction
from typing import SupportsIndex

from pamiq_jax.arguments import INT32_MAX, checked_integer, checked_number, short_number
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.function import Rule
from pamiq_jax.conditions.progress import Progress, Wake
from pamiq_jax.errors import InvalidValueError

_MAX_DENOMINATOR = 1000


def always() -> Condition:
    """Return the condition that always holds: the trainer's next run starts as soon as it can.

    Example:
        >>> always()(Progress(), Progress()).go
        True
    """
    return Rule(
        "always()",
        holds=lambda now, last: True,
        facts=lambda now, last: "always",
        hint=lambda now, last: Wake(),
        why_always="always() always holds",
    )


def min_size(minimum: SupportsIndex) -> Condition:
    """Return the condition that the buffer holds at least `minimum` records.

    A system whose buffer is smaller than that is refused when it is built.

    Args:
        minimum: number of records, at least 1.

    Raises:
        InvalidValueError: if `minimum` is not such a number.

    Example:
        >>> min_size(1000)(Progress(size=12), Progress()).reason
        'has 12 of 1000 records'
    """
    least = checked_integer("min_size(minimum)", minimum, least=1)
    refusal = f"min_size({least}) needs more records than the {{}} that the buffer holds"
    return Rule(
        f"min_size({least})",
        holds=lambda now, last: now.size >= least,
        facts=lambda now, last: f"has {now.size} of {least} records",
        hint=lambda now, last: Wake(records=max(1, least - int(now.size))),
        why_never=lambda capacity: refusal.format(capacity) if capacity < least else None,
    )


def min_new(minimum: SupportsIndex) -> Condition:
    """Return the condition that at least `minimum` records were inserted since the last run started.

    The count is of insertions, not of what is still there: it may be larger than the buffer's capacity, and then some
    records are overwritten before a run could draw them. Before the first run all records are new.

    Args:
        minimum: number of records, at least 1.

    Raises:
        InvalidValueError: if `minimum` is not such a number.

    Example:
        >>> min_new(100)(Progress(inserted=240), last=Progress(inserted=200)).reason
        '40 of 100 new records'
    """
    least = checked_integer("min_new(minimum)", minimum, least=1)
    return Rule(
        f"min_new({least})",
        holds=lambda now, last: now.inserted - last.inserted >= least,
        facts=lambda now, last: f"{now.inserted - last.inserted} of {least} new records",
        hint=lambda now, last: Wake(records=max(1, least - int(now.inserted - last.inserted))),
    )


def samples_per_insert(ratio: float, tolerance: SupportsIndex = 0) -> Condition:
    """Return the condition that the trainer is not ahead of what was collected.

    A run may start while `sampled - ratio * inserted <= tolerance`. Both counters go from the start of the
    system, so a trainer that fell behind catches up, and in the long run each inserted record is drawn `ratio` times.
    A run that has started draws all of its samples, and so gets ahead by up to `tolerance` plus these (batch size
    times steps); for a run to start only when all of it is paid for, let `tolerance` be minus that number.

    This is the lower limit of Reverb's SampleToInsertRatio, checked once a run instead of for each sample: for runs of
    `n` samples, `tolerance = error_buffer - ratio * min_size_to_sample - n`. Nothing here makes the actor wait.

    int32 counters may wrap around, as long as the trainer is not ahead or behind by more than
    `2**31 / denominator(ratio)` samples.

    Args:
        ratio: samples per inserted record, from 0.001 to 1,000,000: a fraction with a denominator up to 1000.
        tolerance: samples by which a run may start early; negative to make it start later.

    Raises:
        InvalidValueError: if `ratio` is out of range or no such fraction, or `tolerance` no integer.

    References:
        Cassirer et al., "Reverb: A Framework For Experience Replay", 2021, https://arxiv.org/abs/2102.04736

    Example:
        >>> condition = samples_per_insert(4, tolerance=64)
        >>> condition(Progress(inserted=100, sampled=512), Progress())
        Decision(go=False, reason='512 of 464 samples that 100 records allow', wake=Wake(records=12, milliseconds=None))
    """
    per_insert, per_sample = _as_fraction(ratio).as_integer_ratio()
    most = INT32_MAX // per_sample
    early = checked_integer("samples_per_insert(tolerance)", tolerance, least=-most, most=most)

    def hint(now: Progress, last: Progress) -> Wake:
        excess = (int(now.sampled) - early) * per_sample - int(now.inserted) * per_insert
        return Wake(records=max(1, -(-excess // per_insert)))

    def facts(now: Progress, last: Progress) -> str:
        allowed = int(now.inserted) * per_insert // per_sample + early
        return f"{now.sampled} of {allowed} samples that {now.inserted} records allow"

    return Rule(
        f"samples_per_insert({short_number(per_insert / per_sample)}, {early})",
        # One difference, compared with a constant: right also after the products have wrapped around.
        holds=lambda now, last: now.sampled * per_sample - now.inserted * per_insert <= early * per_sample,
        facts=facts,
        hint=hint,
    )


def _as_fraction(ratio: float) -> Fraction:
    exact = Fraction(checked_number("samples_per_insert(ratio)", ratio, least=1 / _MAX_DENOMINATOR, most=1e6))
    near = exact.limit_denominator(_MAX_DENOMINATOR)
    if abs(near - exact) > exact / 10**6:
        expected = f"a fraction with a denominator up to {_MAX_DENOMINATOR}"
        raise InvalidValueError(
            "samples_per_insert(ratio)", ratio, expected, f"the nearest is {short_number(float(near))}"
        )
    return near
