"""The contract of buffers."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.data import Buffer
from pamiq_jax.data.buffer import record_spec
from pamiq_jax.errors import ContractError
from pamiq_jax.testing.comparing import bit_difference, frozen, value_difference
from pamiq_jax.testing.functions import check_kept, check_pure, check_traced, promised, require
from pamiq_jax.trainer.compile import own
from pamiq_jax.trees import difference
from pamiq_jax.types import PyTree


def check_buffer(
    buffer: Buffer[Any, Any, Any],
    example: PyTree,
    *,
    batch_size: int = 2,
    chunk: int | None = None,
    rng_key: jax.Array | None = None,
    seed: int = 0,
) -> None:
    """Raise if a buffer breaks the contract that the library builds on.

    Its functions are pure, mean the same under `jit`, `vmap`, `lax.scan` and `eval_shape`, are traced once and
    keep the form of the state, whose memory can be donated. It never holds more than its capacity, ignores
    padding, gives only records that were put in, as soon as it holds `required(batch_size)` of them, and
    the same batch for the same position and key. `can_sample` and `update` are checked if it has them.

    Args:
        buffer: the buffer.
        example: one record, without a batch axis.
        batch_size: records in a batch; at most the capacity.
        chunk: rows that are added at once, at most the capacity; 4 by default, or the capacity if that is less.
        rng_key: `key[]` for sampling; `jax.random.key(0)` by default.
        seed: for the records.

    Raises:
        ContractError: naming the function, the promise and the leaf.

    Example:
        >>> from pamiq_jax.data import ring_buffer
        >>> check_buffer(ring_buffer(capacity=8), {"image": np.zeros((2, 2), np.uint8), "done": False})
    """
    rng_key = jax.random.key(0) if rng_key is None else rng_key
    chunk = min(4, buffer.capacity) if chunk is None else chunk
    empty = check_pure("init", buffer.init, (example,))
    size = int(check_pure("size", buffer.size, (empty,)))
    require("init", "it gives an empty buffer", f"it has {size} records" if size else None)
    records = _records(example, 3 * buffer.capacity + chunk, np.random.default_rng(seed))
    head = _rows(records, 0, chunk)
    _check_add(buffer, empty, head, chunk)
    fast = buffer._replace(  # from here on: it was just shown to be the same
        add=jax.jit(buffer.add), sample=jax.jit(buffer.sample, static_argnums=1)
    )
    full = _check_capacity(fast, empty, records, chunk)
    _check_sample(buffer, full, records, batch_size, rng_key)
    _check_required(fast, empty, records, chunk, batch_size, rng_key)
    _check_scans(fast, full, head, chunk, batch_size, rng_key)
    _check_optional(buffer, full, batch_size)


def _records(example: PyTree, number: int, rng: np.random.Generator) -> PyTree:
    """Return random records `[number, ...]`; arrays of JAX, which nobody can write to."""

    def column(spec: jax.ShapeDtypeStruct) -> jax.Array:
        values = rng.integers(0, 2 if spec.dtype == np.bool_ else 100, (number, *spec.shape))
        noise = rng.random(values.shape) if jnp.issubdtype(spec.dtype, jnp.inexact) else 0
        return jnp.asarray((values + noise).astype(spec.dtype))

    return jax.tree.map(column, record_spec(example))


def _rows(records: PyTree, start: int, number: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[start : start + number], records)


def _check_add(buffer: Buffer[Any, Any, Any], empty: Any, rows: PyTree, chunk: int) -> None:
    count = jnp.int32(max(1, chunk - 1))
    state = check_pure("add", buffer.add, (empty, rows, count))
    check_kept("add", own(empty), own(state))
    check_traced("add", buffer.add, (empty, rows, count), state, later=(state, rows, jnp.int32(0)))
    check_traced("size", buffer.size, (empty,), buffer.size(empty), later=(state,))
    unchanged = buffer.add(state, rows, jnp.int32(0))
    require("add", "a count of 0 changes nothing", bit_difference(frozen(state), frozen(unchanged)))
    inverted = jax.tree.map(lambda leaf: leaf.at[int(count) :].set(leaf[:1]), rows)
    padded = buffer.add(empty, inverted, count)
    require("add", "rows from `count` on are ignored", bit_difference(frozen(state), frozen(padded)))
    mine = own(state)
    with warnings.catch_warnings(), promised("add", "its state can be donated"):
        warnings.simplefilter("error")  # "Some donated buffers were not usable" is only a warning
        jax.block_until_ready(jax.jit(buffer.add, donate_argnums=0)(mine, rows, count))


def _check_required(
    buffer: Buffer[Any, Any, Any], empty: Any, records: PyTree, chunk: int, batch_size: int, rng_key: jax.Array
) -> None:
    required = buffer.required(batch_size)
    can_be = 1 <= required <= buffer.capacity
    problem = None if can_be else f"required({batch_size}) is {required}, the capacity {buffer.capacity}"
    require("required", "the buffer can hold so many records", problem)
    state, inserted = empty, 0
    while int(buffer.size(state)) < required:
        if inserted >= 3 * buffer.capacity:
            raise ContractError("add", "the buffer fills up", f"{inserted} records in, its size is still too small")
        state, inserted = buffer.add(state, _rows(records, inserted, chunk), jnp.int32(1)), inserted + 1
    for position in range(5):
        batch = buffer.sample(state, batch_size, jnp.int32(position), rng_key)
        _check_rows("required", batch, _rows(records, 0, inserted), batch_size)


def _check_capacity(buffer: Buffer[Any, Any, Any], empty: Any, records: PyTree, chunk: int) -> Any:
    state = empty
    for start in range(0, 3 * buffer.capacity, chunk):
        state = buffer.add(state, _rows(records, start, chunk), jnp.int32(chunk))
        size, most = int(buffer.size(state)), min(start + chunk, buffer.capacity)
        detail = f"after {start + chunk} records its size is {size}, the capacity {buffer.capacity}"
        require("size", "it is from 1 to what was added, or the capacity", None if 1 <= size <= most else detail)
    return state


def _check_sample(
    buffer: Buffer[Any, Any, Any], state: Any, records: PyTree, batch_size: int, rng_key: jax.Array
) -> None:
    def sample(state: Any, position: jax.Array, rng_key: jax.Array) -> Any:
        return buffer.sample(state, batch_size, position, rng_key)

    first = check_pure("sample", sample, (state, jnp.int32(0), rng_key))
    _check_rows("sample", first, records, batch_size)
    check_traced("sample", sample, (state, jnp.int32(0), rng_key), first, later=(state, jnp.int32(7), rng_key))


def _check_rows(function: str, batch: PyTree, records: PyTree, batch_size: int) -> None:
    """Check shapes, and where a batch has the form of the records that each row is one of them."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    require(function, f"each leaf has {batch_size} rows", None if lengths == {(batch_size,)} else f"got {lengths}")
    if jax.tree.structure(batch) != jax.tree.structure(records) or _row_shapes(batch) != _row_shapes(records):
        return
    strange = [row for row in _row_bytes(batch) if row not in set(_row_bytes(records))]
    problem = f"{len(strange)} of {batch_size} rows are none of them" if strange else None
    require(function, "a batch has only records that were added", problem)


def _row_shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [np.shape(leaf)[1:] for leaf in jax.tree.leaves(tree)]


def _row_bytes(tree: PyTree) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [b"".join(leaf[row].tobytes() for leaf in leaves) for row in range(len(leaves[0]))]


def _check_scans(
    buffer: Buffer[Any, Any, Any], state: Any, rows: PyTree, chunk: int, batch_size: int, rng_key: jax.Array
) -> None:
    counts = jnp.array([chunk, 1], jnp.int32)
    with promised("add", "it works under jax.lax.scan"):
        scanned = jax.lax.scan(lambda state, count: (buffer.add(state, rows, count), None), own(state), counts)[0]
    by_hand = buffer.add(buffer.add(state, rows, counts[0]), rows, counts[1])
    require("add", "lax.scan(f) == f, f", bit_difference(frozen(by_hand), frozen(scanned)))

    def body(_: None, position: jax.Array) -> tuple[None, Any]:
        return None, buffer.sample(state, batch_size, position, rng_key)

    with promised("sample", "it works under jax.lax.scan"):
        batches = jax.lax.scan(body, None, jnp.arange(3, dtype=jnp.int32))[1]
    last = buffer.sample(state, batch_size, jnp.int32(2), rng_key)
    row = jax.tree.map(lambda leaf: leaf[2], batches)
    require("sample", "lax.scan(f) == f, f, f", value_difference(last, row, 1e-5))


def _check_optional(buffer: Buffer[Any, Any, Any], state: Any, batch_size: int) -> None:
    if buffer.can_sample is not None:
        can = check_pure("can_sample", buffer.can_sample, (state,))
        require("can_sample", "it gives a bool", difference(jax.ShapeDtypeStruct((), np.bool_), can))
        check_traced("can_sample", buffer.can_sample, (state,), can)
    if buffer.update is not None:
        arguments = state, jnp.arange(batch_size, dtype=jnp.int32), jnp.linspace(1.0, 2.0, batch_size)
        updated = check_pure("update", buffer.update, arguments)
        check_kept("update", own(state), own(updated))
        check_traced("update", buffer.update, arguments, updated)
