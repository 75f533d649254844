"""Train in proportion to what was collected."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import SupportsIndex, override

from pamiq_jax.conditions.arguments import INT32_MAX, checked_integer, checked_number, short_number
from pamiq_jax.conditions.base import Condition, Progress, Truth, Wake
from pamiq_jax.errors import InvalidValueError

_MAX_DENOMINATOR = 1000


def samples_per_insert(ratio: float, tolerance: SupportsIndex = 0) -> Condition:
    """Return the condition that the trainer is not ahead of what was collected.

    A run may start while `sampled - ratio * inserted <= tolerance`. Both counters go from the start of the
    system, so a trainer that fell behind catches up, and in the long run each inserted record is drawn `ratio` times.

    The limit is checked when a run starts. The run itself then draws its samples, so the trainer is ahead by at
    most `tolerance` plus the samples of one run (batch size times steps). For a run to start only when all of it
    is paid for, let `tolerance` be minus that number.

    This is the lower limit of Reverb's SampleToInsertRatio, checked once a run instead of for each sample. There,
    `n` samples may be drawn while `sampled + n <= ratio * (inserted - min_size_to_sample) + error_buffer`, so
    `tolerance = error_buffer - ratio * min_size_to_sample - n` is the same limit for runs of `n` samples. Reverb's
    upper limit, which makes the actor wait for the trainer, has no counterpart: nothing here makes the actor wait.

    The test is exact integer arithmetic modulo 2**32: int32 counters may wrap around, as long as the trainer is
    not ahead or behind by more than `2**31 / denominator(ratio)` samples.

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
    exact = _as_fraction(ratio)
    most = INT32_MAX // exact.denominator
    return _SamplesPerInsert(
        exact.numerator,
        exact.denominator,
        checked_integer("samples_per_insert(tolerance)", tolerance, least=-most, most=most),
    )


def _as_fraction(ratio: float) -> Fraction:
    checked = checked_number("samples_per_insert(ratio)", ratio, least=1 / _MAX_DENOMINATOR, most=1e6)
    exact = Fraction(checked).limit_denominator(_MAX_DENOMINATOR)
    if abs(exact - Fraction(checked)) > Fraction(checked) / 10**6:
        raise InvalidValueError(
            "samples_per_insert(ratio)",
            ratio,
            f"a fraction with a denominator up to {_MAX_DENOMINATOR}",
            f"the nearest is {short_number(float(exact))}",
        )
    return exact


@dataclass(frozen=True, repr=False)
class _SamplesPerInsert(Condition):
    numerator: int
    denominator: int
    tolerance: int

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        # One difference, compared with a constant: right also after the products have wrapped around.
        ahead = now.sampled * self.denominator - now.inserted * self.numerator
        return ahead <= self.tolerance * self.denominator

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        allowed = int(now.inserted) * self.numerator // self.denominator + self.tolerance
        return f"{now.sampled} of {allowed} samples that {now.inserted} records allow"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        excess = (int(now.sampled) - self.tolerance) * self.denominator - int(now.inserted) * self.numerator
        return Wake(records=max(1, -(-excess // self.numerator)))

    @override
    def __repr__(self) -> str:
        return f"samples_per_insert({short_number(self.numerator / self.denominator)}, {self.tolerance})"
