"""Train in proportion to the records that came."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import SupportsIndex, override

from pamiq_jax.arguments import INT32_MAX, checked_fraction, checked_integer, short_number
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.progress import Count, Progress, Spans, Truth, Wake, larger


def samples_per_insert(
    ratio: float, tolerance: SupportsIndex = 0, *, max_debt: SupportsIndex | None = None
) -> Condition:
    """Return the condition that the trainer is not ahead of what was collected.

    A run may start while `sampled - ratio * inserted <= tolerance`. Both counters go from the start of the
    system, so a trainer that fell behind catches up, and in the long run each inserted record is drawn `ratio` times.
    A run that has started draws all of its samples, and so gets ahead by up to `tolerance` plus these (batch size
    times steps); for a run to start only when all of it is paid for, let `tolerance` be minus that number.

    To catch up is a burst of training: after a night in which records came and no run was allowed, all that is owed is
    drawn at once. `max_debt` bounds it. When a run starts, what is owed beyond `max_debt` samples is let go for good,
    and counted as `Progress.forgiven`. So between any two moments the trainer draws at most `max_debt` samples, `ratio`
    for each record that came between them, and one run's. Choose at least one run's samples plus what may come in
    during one: with less, the trainer stays below `ratio`.

    This is the lower limit of Reverb's SampleToInsertRatio, checked once a run instead of for each sample: for runs of
    `n` samples, `tolerance = error_buffer - ratio * min_size_to_sample - n`. Nothing here makes the actor wait.

    int32 counters may wrap around, as long as the trainer is not ahead or behind by more than
    `2**31 / denominator(ratio)` samples.

    Args:
        ratio: samples per inserted record, from 0.001 to 1,000,000: a fraction with a denominator up to 1000.
        tolerance: samples by which a run may start early; negative to make it start later.
        max_debt: whole samples that the trainer is owed at most when a run starts, its own included, from 0. By
            default nothing is let go.

    Raises:
        InvalidValueError: if `ratio` is out of range or no such fraction, or `tolerance` or `max_debt` no such integer.

    References:
        Cassirer et al., "Reverb: A Framework For Experience Replay", 2021, https://arxiv.org/abs/2102.04736

    Example:
        >>> condition = samples_per_insert(4, tolerance=64)
        >>> condition(Progress(inserted=100, sampled=512), Progress())
        Decision(go=False, reason='512 of 464 samples that 100 records allow', wake=Wake(records=12, milliseconds=None))
        >>> capped = samples_per_insert(4, max_debt=256)
        >>> capped.settle(Progress(inserted=1000, sampled=512), Progress()).forgiven
        3232
    """
    per_insert, per_sample = checked_fraction(
        "samples_per_insert(ratio)", ratio, least=0.001, most=1e6
    ).as_integer_ratio()
    most = INT32_MAX // per_sample
    early = checked_integer("samples_per_insert(tolerance)", tolerance, least=-most, most=most)
    if max_debt is not None:
        max_debt = checked_integer("samples_per_insert(max_debt)", max_debt, least=0, most=most)
    return _SamplesPerInsert(per_insert, per_sample, early, max_debt)


@dataclass(frozen=True, repr=False)
class _SamplesPerInsert(Condition):
    """Counts in parts of a sample, `per_sample` of them to one: so the ratio is `per_insert / per_sample`, exactly."""

    per_insert: int
    per_sample: int
    early: int
    max_debt: int | None

    def _ahead(self, now: Progress, last: Progress) -> Count:
        # One difference, only ever compared with constants: right also after the products have wrapped around.
        return (now.sampled + last.forgiven) * self.per_sample - now.inserted * self.per_insert

    @override
    def test(self, now: Progress, last: Progress) -> Truth:
        return self._ahead(now, last) <= self.early * self.per_sample

    @override
    def spans(self) -> Spans:
        quantity = f"parts of a sample ahead of {self.per_insert}/{self.per_sample} per record"
        return {quantity: ((-math.inf, self.early * self.per_sample + 1),)}

    @override
    def explain(self, now: Progress, last: Progress) -> str:
        forgiven = int(last.forgiven) + int(self.forgive(now, last))
        allowed = int(now.inserted) * self.per_insert // self.per_sample + self.early - forgiven
        capped = "" if self.max_debt is None else f", {forgiven} forgiven"
        return f"{now.sampled} of {allowed} samples that {now.inserted} records allow{capped}"

    @override
    def wake(self, now: Progress, last: Progress) -> Wake:
        excess = int(self._ahead(now, last)) - self.early * self.per_sample
        return Wake(records=max(1, -(-excess // self.per_insert)))

    @override
    def forgive(self, now: Progress, last: Progress) -> Count:
        if self.max_debt is None:
            return 0
        owed = -self._ahead(now, last) // self.per_sample + self.early
        return larger(owed - self.max_debt, 0)

    @override
    def __repr__(self) -> str:
        capped = "" if self.max_debt is None else f", max_debt={self.max_debt}"
        return f"samples_per_insert({short_number(self.per_insert / self.per_sample)}, {self.early}{capped})"
