"""A ring of the newest records, on the device."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.data.buffer import Buffer, Placement
from pamiq_jax.data.record import record_spec
from pamiq_jax.data.sampling import ORDERS, Order, Sampling
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import difference
from pamiq_jax.types import PyTree

_MAX_CAPACITY = 2**30  # so that twice a slot and an offset still fit in 32 bits


class RingState[X](flax.struct.PyTreeNode):
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
    capacity: int,
    *,
    sampling: Sampling = "uniform",
    placement: Placement = "device",
    example: X | None = None,
) -> Buffer[RingState[X], X, X]:
    """Return a buffer that keeps the newest `capacity` records of any pytree.

    Args:
        capacity: the number of records, from 1 to `2**30`.
        sampling: "uniform" with replacement; "epochs", where each record comes exactly once per shuffled
            epoch and a batch may straddle two; "in_order", oldest first and wrapping around.
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
    if not 1 <= capacity <= _MAX_CAPACITY:
        raise InvalidValueError("ring_buffer(capacity)", capacity, f"1 to {_MAX_CAPACITY}")
    if sampling not in ORDERS:
        raise InvalidValueError("ring_buffer(sampling)", sampling, f"one of {', '.join(map(repr, ORDERS))}")
    if placement not in ("device", "host"):
        raise InvalidValueError("ring_buffer(placement)", placement, "'device' or 'host'")
    order = ORDERS[sampling]
    return Buffer(
        init=functools.partial(_init, capacity),
        add=functools.partial(_add, capacity),
        sample=functools.partial(_sample, capacity, order),
        size=_size,
        required=lambda batch_size: batch_size if order.needs_full_batch else 1,
        capacity=capacity,
        stable_in_run=order.stable_in_run,
        placement=placement,
        example=example,
    )


def _init[X](capacity: int, example: X) -> RingState[X]:
    def storage(spec: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((capacity, *spec.shape), spec.dtype)

    records = jax.tree.map(storage, record_spec(example))
    return RingState(records, head=jnp.zeros((), jnp.int32), size=jnp.zeros((), jnp.int32))


def _add[X](capacity: int, state: RingState[X], records: X, count: jax.typing.ArrayLike) -> RingState[X]:
    chunk = _chunk_length(capacity, state.records, records)
    valid = jnp.clip(jnp.asarray(count).astype(jnp.int32), 0, chunk)
    offsets = jnp.arange(chunk, dtype=jnp.int32)
    # Padding goes to slots past the end, which the scatter drops; distinct ones, to keep the indices unique.
    slots = jnp.where(offsets < valid, (state.head + offsets) % capacity, capacity + offsets)

    def write(stored: jax.Array, new: jax.typing.ArrayLike) -> jax.Array:
        return stored.at[slots].set(jnp.asarray(new, stored.dtype), mode="drop", unique_indices=True)

    return state.replace(
        records=jax.tree.map(write, state.records, records),
        head=(state.head + valid) % capacity,
        size=jnp.minimum(state.size + valid, capacity),
    )


def _chunk_length(capacity: int, stored: PyTree, records: PyTree) -> int:
    leaves = jax.tree.leaves(records)
    chunk = next((np.shape(leaf)[0] for leaf in leaves if np.ndim(leaf)), 0)
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape[1:]), leaf.dtype), stored)
    if mismatch := difference(expected, records):
        raise RecordMismatchError(f"a chunk of records does not fit the buffer: {mismatch}; nothing was inserted")
    if chunk > capacity:
        raise InvalidValueError("add(records)", chunk, f"at most {capacity} rows", "add shorter chunks")
    return chunk


def _sample[X](
    capacity: int,
    order: Order,
    state: RingState[X],
    batch_size: int,
    position: jax.typing.ArrayLike,
    rng_key: jax.Array,
) -> X:
    if batch_size < 1:
        raise InvalidValueError("sample(batch_size)", batch_size, "at least 1")
    size = jnp.maximum(state.size, 1)  # an empty ring gives its zeros
    ages = order.ages(size, batch_size, jnp.asarray(position), rng_key)
    slots = (state.head - state.size + ages) % capacity
    return jax.tree.map(lambda stored: stored.at[slots].get(mode="promise_in_bounds"), state.records)


def _size[X](state: RingState[X]) -> jax.Array:
    return state.size
