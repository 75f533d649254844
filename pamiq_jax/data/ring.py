"""A ring of the newest records, on the device."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pamiq_jax.data.buffer import Buffer, Placement
from pamiq_jax.data.permutation import epoch_keys, round_keys, walk
from pamiq_jax.data.rows import check_batch_size, check_storage, read_rows, valid_rows, write_rows, zero_rows
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError

type Sampling = Literal["uniform", "epochs", "in_order"]
"""With replacement; every record once per shuffled epoch; oldest first, again and again; each run begins anew."""


class RingState[X](Shown, flax.struct.PyTreeNode):
    """The stored records and where the next one goes. The counters never exceed the capacity.

    Attributes:
        records: leaves `[capacity, ...]`; slots that were never written are zero.
        head: int32 `[]`, the slot of the next record.
        size: int32 `[]`, how many records are stored.
    """

    records: X
    head: jax.Array
    size: jax.Array


def ring_buffer[X](
    capacity: int, *, sampling: Sampling = "uniform", placement: Placement = "device", example: X | None = None
) -> Buffer[RingState[X], X, X]:
    """Return a buffer that keeps the newest `capacity` records of any pytree.

    Args:
        capacity: the number of records, from 1 to `2**30`.
        sampling: "uniform", with replacement; "epochs", each record once per shuffled epoch; "in_order", oldest first.
            Each run of a trainer begins anew, with another epoch or the oldest record, since records came meanwhile:
            for whole epochs a run takes a multiple of what is stored, or the data is an `array_source`.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range.

    Example:
        >>> buffer = ring_buffer(capacity=3, sampling="in_order")
        >>> state = buffer.init(jnp.int32(0))
        >>> state = buffer.add(state, jnp.arange(2), 2)
        >>> state = buffer.add(state, jnp.array([2, 3]), 2)
        >>> buffer.sample(state, 3, 0, jax.random.key(0)).tolist()
        [1, 2, 3]
    """
    check_storage("ring_buffer", capacity, placement)
    if sampling not in (names := get_args(Sampling.__value__)):
        raise InvalidValueError("ring_buffer(sampling)", sampling, f"one of {', '.join(map(repr, names))}")
    goes_by_position = sampling != "uniform"  # then the places must not move within a run
    return Buffer(
        keeps_all=True,
        kind="ring_buffer",
        init=partial(_init, capacity),
        add=partial(_add, capacity),
        sample=partial(_sample, capacity, sampling),
        size=lambda state: state.size,
        required=lambda batch_size: batch_size if goes_by_position else 1,
        capacity=capacity,
        stable_in_run=goes_by_position,
        placement=placement,
        example=example,
    )


def _init[X](capacity: int, example: X) -> RingState[X]:
    return RingState(zero_rows(capacity, example), head=jnp.zeros((), jnp.int32), size=jnp.zeros((), jnp.int32))


def _add[X](capacity: int, state: RingState[X], records: X, count: ArrayLike) -> RingState[X]:
    chunk, valid = valid_rows(state.records, records, count)
    offsets = jnp.arange(chunk, dtype=jnp.int32)
    # Padding goes to slots past the end, which the scatter drops; distinct ones, to keep the indices unique.
    slots = jnp.where(offsets < valid, (state.head + offsets) % capacity, capacity + offsets)
    return RingState(
        records=write_rows(state.records, slots, records),
        head=(state.head + valid) % capacity,
        size=jnp.minimum(state.size + valid, capacity),
    )


def _sample[X](
    capacity: int, sampling: Sampling, state: RingState[X], batch_size: int, position: ArrayLike, rng_key: jax.Array
) -> X:
    check_batch_size(batch_size)
    size = jnp.maximum(state.size, 1)  # an empty ring gives its zeros
    ages = _ages(sampling, capacity, size, batch_size, jnp.asarray(position), rng_key)
    slots = (state.head - state.size) % capacity + ages  # below twice the capacity: a remainder of each costs more
    return read_rows(state.records, jnp.where(slots >= capacity, slots - capacity, slots))


def _ages(
    sampling: Sampling, capacity: int, size: jax.Array, batch_size: int, position: jax.Array, rng_key: jax.Array
) -> jax.Array:
    """Return the batch's indices into `range(size)`, 0 being the oldest record, int32 `[batch_size]`."""
    if sampling == "uniform":
        return jax.random.randint(jax.random.fold_in(rng_key, position), (batch_size,), 0, size, jnp.int32)
    epochs, indices = _epochs_and_indices(capacity, size, batch_size, position)
    if sampling == "in_order":
        return indices.astype(jnp.int32)
    # A run's keys are the same at each step, so XLA moves them out of a chunk's loop; only the walk remains in it.
    keys = epoch_keys(round_keys(rng_key), epochs)
    return jax.vmap(walk, in_axes=(0, 0, None))(keys, indices, size)


def _epochs_and_indices(
    capacity: int, size: jax.Array, batch_size: int, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return `divmod(position * batch_size + arange(batch_size), size)`, uint32 `[batch_size]` each.

    The product would pass 32 bits after some days of training. It is formed digit by digit of the batch size, as many
    bits at once as leave room for a size, with the remainder taken in between: nearly always there is one digit.
    The epochs are right modulo `2**32`, which is enough to choose a shuffle.
    """
    divisor, bits = size.astype(jnp.uint32), 31 - (capacity - 1).bit_length()
    whole, rest = jnp.divmod(position.astype(jnp.uint32), divisor)
    carried = index = jnp.zeros((), jnp.uint32)
    for shift in reversed(range(0, batch_size.bit_length(), bits)):
        digit = jnp.uint32((batch_size >> shift) & ((1 << bits) - 1))
        over, index = jnp.divmod((index << bits) + digit * rest, divisor)
        carried = (carried << bits) + over
    over, indices = jnp.divmod(index + jnp.arange(batch_size, dtype=jnp.uint32), divisor)
    return whole * jnp.uint32(batch_size) + carried + over, indices
