"""Rollouts: stretches of consecutive records, each learned from once."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pamiq_jax.arguments import checked_integer
from pamiq_jax.data.buffer import Buffer, Placement, Record
from pamiq_jax.data.ring import RingState, ring_buffer
from pamiq_jax.data.rows import check_storage
from pamiq_jax.errors import InvalidValueError


def rollout_buffer[X](
    length: int, *, bootstrap: int = 1, placement: Placement = "device", example: X | None = None
) -> Buffer[RingState[X], X, X]:
    """Return a buffer of the newest rollout, whose only batch is all of it in order, `[length + bootstrap, ...]`.

    The last `bootstrap` records say what came after those that are learned from, for example to bootstrap a
    return from the last value; they come back as the first of the next rollout. A schedule with

        `data=..., batch_size=length + bootstrap, steps=1`

    consumes each record once: no run starts before `length` new records have come (`fresh`), so rollouts overlap in
    `bootstrap` records and nothing else. If more than `length` records come before a run starts, the surplus is lost,
    not learned from late. More steps learn from the same rollout again; nothing is added in the meantime.

    A rollout never goes across a gap, since no return can: `can_sample` is false while another than its first record
    has `Record.is_first` set, after a pause, a restore or a loss. The unfinished rollout before the gap is not learned
    from, and the next run waits for `length + bootstrap` records after it. Give the buffer a `Queue` of at least so
    many, so that what is lost during a long run leaves a whole rollout. Records that are no `Record` have no gaps. Ends
    of episodes are in the data, and for the step to handle.

    Args:
        length: records that a rollout is learned from, at least 1.
        bootstrap: records after them, at least 0.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range; when traced or a system is built, also if the
            batch size is another one.

    Example:
        >>> import jax.numpy as jnp
        >>> buffer = rollout_buffer(length=2)
        >>> state = buffer.add(buffer.init(0), jnp.arange(3), 3)
        >>> buffer.sample(state, 3, 0, jax.random.key(0)).tolist()
        [0, 1, 2]
        >>> state = buffer.add(state, jnp.arange(3, 5), 2)
        >>> buffer.sample(state, 3, 0, jax.random.key(0)).tolist()
        [2, 3, 4]
    """
    for name, value, least in (("length", length, 1), ("bootstrap", bootstrap, 0)):
        checked_integer(f"rollout_buffer({name})", value, least)
    rows = length + bootstrap
    check_storage("rollout_buffer", rows, placement)
    ring = ring_buffer(rows, sampling="in_order", placement=placement, example=example)

    def required(batch_size: int) -> int:
        if batch_size != rows:
            expected = f"{rows}, length={length} and bootstrap={bootstrap}"
            raise InvalidValueError("batch_size of a rollout_buffer", batch_size, expected)
        return rows

    def sample(state: RingState[X], batch_size: int, position: ArrayLike, rng_key: jax.Array) -> X:
        return ring.sample(state, required(batch_size), position, rng_key)

    return ring._replace(
        kind="rollout_buffer",
        sample=sample,
        required=required,
        can_sample=partial(_has_no_gap, rows),
        is_ordered=True,
        fresh=length,
    )


def _has_no_gap(rows: int, state: RingState[Any]) -> jax.Array:
    if not isinstance(state.records, Record):
        return jnp.ones((), bool)
    oldest = (state.head - state.size) % rows
    return ~jnp.any(jnp.asarray(state.records.is_first) & (jnp.arange(rows, dtype=jnp.int32) != oldest))
