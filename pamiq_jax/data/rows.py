"""Rows of records: what the buffers do alike to the arrays that they keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pamiq_jax.arguments import checked_integer
from pamiq_jax.data.buffer import Placement, record_spec
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import difference

MAX_CAPACITY = 2**30
"""The most rows a buffer can have, so that twice a slot and an offset still fit in 32 bits."""


def check_storage(factory: str, capacity: int, placement: Placement) -> None:
    """Raise if a buffer can't have so many rows or can't be kept there.

    Raises:
        InvalidValueError: naming the factory's argument.

    Example:
        >>> check_storage("ring_buffer", 1000, "device")
    """
    checked_integer(f"{factory}(capacity)", capacity, least=1, most=MAX_CAPACITY)
    if placement not in ("device", "host"):
        raise InvalidValueError(f"{factory}(placement)", placement, "'device' or 'host'")


def check_batch_size(batch_size: int) -> None:
    """Raise if a batch would have no row.

    Raises:
        InvalidValueError: it is no integer from 1.

    Example:
        >>> check_batch_size(32)
    """
    checked_integer("sample(batch_size)", batch_size, least=1)


def zero_rows[X](capacity: int, example: X) -> X:
    """Return leaves `[capacity, ...]` of zeros for records like the example.

    Raises:
        RecordMismatchError: the example cannot be recorded.

    Example:
        >>> zero_rows(3, {"done": False})
        {'done': Array([False, False, False], dtype=bool)}
    """
    return jax.tree.map(lambda spec: jnp.zeros((capacity, *spec.shape), spec.dtype), record_spec(example))


def valid_rows[X](stored: X, records: X, count: ArrayLike) -> tuple[int, jax.Array]:
    """Return how many rows the records have, and how many of them are valid, int32 `[]`.

    Args:
        stored: leaves `[capacity, ...]`, or of fewer rows for those of which not all are kept.
        records: leaves `[chunk, ...]`, otherwise alike.
        count: int32 `[]`; outside `0` to `chunk` it counts as the nearer of both.

    Raises:
        RecordMismatchError: the records differ from those stored in more than their number.
        InvalidValueError: there are more rows than are stored.

    Example:
        >>> valid_rows(jnp.zeros(8), jnp.ones(4), 3)
        (4, Array(3, dtype=int32))
    """
    capacity = max(leaf.shape[0] for leaf in jax.tree.leaves(stored))
    chunk = next((np.shape(leaf)[0] for leaf in jax.tree.leaves(records) if np.ndim(leaf)), 0)
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape[1:]), leaf.dtype), stored)
    if mismatch := difference(expected, records):
        raise RecordMismatchError(f"a chunk of records does not fit the buffer: {mismatch}; nothing was inserted")
    if chunk > capacity:
        raise InvalidValueError("add(records)", chunk, f"at most {capacity} rows", "add shorter chunks")
    return chunk, jnp.clip(jnp.asarray(count).astype(jnp.int32), 0, chunk)


def write_rows[X](stored: X, slots: jax.Array, records: X) -> X:
    """Return the stored leaves `[capacity, ...]` with the records `[chunk, ...]` in the given slots.

    The slots, int32 `[chunk]`, must differ; those past the end are not written.

    Example:
        >>> write_rows(jnp.zeros(3), jnp.array([2, 3]), jnp.array([7.0, 8.0])).tolist()
        [0.0, 0.0, 7.0]
    """

    def write(column: jax.Array, new: ArrayLike) -> jax.Array:
        return column.at[slots].set(jnp.asarray(new, column.dtype), mode="drop", unique_indices=True)

    return jax.tree.map(write, stored, records)


def read_rows[X](stored: X, slots: jax.Array) -> X:
    """Return the leaves `[*slots.shape, ...]` of what lies in the slots, which must be in range.

    Example:
        >>> read_rows({"x": jnp.array([5, 6, 7])}, jnp.array([2, 0]))["x"].tolist()
        [7, 5]
    """
    # XLA's CPU backend computes an index anew for each element of a row; without a sign there is less to compute.
    places = slots.astype(jnp.uint32)
    return jax.tree.map(lambda column: column.at[places].get(mode="promise_in_bounds"), stored)


def last_of_each(slots: jax.Array, outside: int) -> jax.Array:
    """Return the slots `[N]`, all different: of equal ones only the last stays, the others go past the end.

    A scatter may take equal slots in any order, a loop over the records would let the last one win.

    Args:
        slots: int32 `[N]`.
        outside: the first slot past the end; slots from there on are kept apart too.

    Example:
        >>> last_of_each(jnp.array([4, 0, 4]), outside=8).tolist()
        [8, 0, 4]
    """
    order = jnp.argsort(slots, stable=True)
    ordered = slots[order]
    is_last = jnp.concatenate([ordered[1:] != ordered[:-1], jnp.ones(1, bool)])
    is_kept = jnp.zeros(slots.shape, bool).at[order].set(is_last, unique_indices=True) & (slots < outside)
    return jnp.where(is_kept, slots, outside + jnp.arange(slots.size, dtype=slots.dtype))
