"""The condition that trainers of pamiq-core take, under its names."""

from __future__ import annotations

import functools
import operator
from typing import SupportsIndex, TypedDict

from pamiq_jax.arguments import checked_integer
from pamiq_jax.conditions.base import Condition
from pamiq_jax.conditions.counts import always, min_new, min_size
from pamiq_jax.errors import InvalidValueError


class MigratedArguments(TypedDict):
    """What `migrated` returns: the arguments `data` and `when` of a `Schedule`.

    Example:
        >>> MigratedArguments(data="experience", when=always())
        {'data': 'experience', 'when': always()}
    """

    data: str
    when: Condition


def migrated(
    *, training_condition_data_user: str, min_buffer_size: SupportsIndex = 0, min_new_data_count: SupportsIndex = 0
) -> MigratedArguments:
    """Return the arguments of a `Schedule` that stand for those of a pamiq-core trainer.

    New code says the same with `data="experience", when=min_size(1000) & min_new(100)`. Two things differ, for the
    better: new records are counted, not timed, so that a changed clock loses none; and asking uses nothing up.

    Args:
        training_condition_data_user: name of the buffer. There, a trainer without it always trains; here, that is a
            `Schedule` with `data` and no `when`.
        min_buffer_size: records that the buffer must hold; 0 asks for none.
        min_new_data_count: records that must have come since the last run started; 0 asks for none.

    Raises:
        InvalidValueError: if the name is none, or a number is no integer from 0.

    Example:
        >>> migrated(training_condition_data_user="experience", min_buffer_size=1000, min_new_data_count=100)
        {'data': 'experience', 'when': min_size(1000) & min_new(100)}
    """
    name = training_condition_data_user
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] - None is the old default
        remedy = "a trainer that always trains needs no condition: give Schedule(data=...) and leave `when` out"
        raise InvalidValueError("migrated(training_condition_data_user)", name, "the name of a buffer", remedy)
    size = checked_integer("migrated(min_buffer_size)", min_buffer_size, least=0)
    new = checked_integer("migrated(min_new_data_count)", min_new_data_count, least=0)
    parts = [make(number) for make, number in ((min_size, size), (min_new, new)) if number]
    return MigratedArguments(data=name, when=functools.reduce(operator.and_, parts) if parts else always())
