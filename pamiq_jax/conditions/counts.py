"""Train when there are enough records, or always."""

from __future__ import annotations

import math
from typing import SupportsIndex

from pamiq_jax.arguments import checked_integer
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.function import Rule
from pamiq_jax.conditions.progress import Wake


def always() -> Condition:
    """Return the condition that always holds: the trainer's next run starts as soon as it can.

    Example:
        >>> from pamiq_jax.conditions import Progress
        >>> always()(Progress(), Progress()).go
        True
    """
    return Rule(
        "always()",
        holds=lambda now, last: True,
        facts=lambda now, last: "always",
        hint=lambda now, last: Wake(),
        why_always="always() always holds",
        asks={},
    )


def min_size(minimum: SupportsIndex) -> Condition:
    """Return the condition that the buffer holds at least `minimum` records.

    A system whose buffer is smaller than that is refused when it is built.

    Args:
        minimum: number of records, at least 1.

    Raises:
        InvalidValueError: if `minimum` is not such a number.

    Example:
        >>> from pamiq_jax.conditions import Progress
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
        asks={"records": ((least, math.inf),)},
    )


def every_versions(number: SupportsIndex) -> Condition:
    """Return the condition that `number` further snapshots were published; made for saving by `launch(save=)`.

    Args:
        number: at least 1.

    Raises:
        InvalidValueError: if `number` is not such a number.

    Example:
        >>> from pamiq_jax.conditions import Progress
        >>> every_versions(100)(Progress(versions=240), last=Progress(versions=200)).reason
        '40 of 100 further versions'
    """
    least = checked_integer("every_versions(number)", number, least=1)
    return Rule(
        f"every_versions({least})",
        holds=lambda now, last: now.versions - last.versions >= least,
        facts=lambda now, last: f"{now.versions - last.versions} of {least} further versions",
        hint=lambda now, last: Wake(),  # who publishes asks again
        asks={"further versions": ((least, math.inf),)},
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
        >>> from pamiq_jax.conditions import Progress
        >>> min_new(100)(Progress(inserted=240), last=Progress(inserted=200)).reason
        '40 of 100 new records'
    """
    least = checked_integer("min_new(minimum)", minimum, least=1)
    return Rule(
        f"min_new({least})",
        holds=lambda now, last: now.inserted - last.inserted >= least,
        facts=lambda now, last: f"{now.inserted - last.inserted} of {least} new records",
        hint=lambda now, last: Wake(records=max(1, least - int(now.inserted - last.inserted))),
        asks={"new records": ((least, math.inf),)},
    )
