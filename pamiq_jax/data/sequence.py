"""Windows of consecutive records, none of which crosses the border of a segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pamiq_jax.data.buffer import Buffer, Placement, Record
from pamiq_jax.data.ring import RingState, ring_buffer
from pamiq_jax.data.rows import check_batch_size, check_storage, read_rows
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, UnknownNameError
from pamiq_jax.trees import describe_leaf
from pamiq_jax.types import PyTree

type BorderFn = Callable[[Any], ArrayLike]
"""`(data) -> bool []` of one record's data, traced: whether a segment has its border here."""


class SequenceState[X](flax.struct.PyTreeNode):
    """A ring of the newest records, and a queue of the windows within them, oldest first.

    Attributes:
        ring: the records.
        ends: int32 `[capacity - length + 1]`, the slots of the windows' last records: a ring of its own.
        first: int32 `[]`, where in `ends` the oldest window is.
        windows: int32 `[]`, how many there are.
        run: int32 `[]`, records that the newest segment has so far, at most a window's length; 0 if it has ended.
    """

    ring: RingState[X]
    ends: jax.Array
    first: jax.Array
    windows: jax.Array
    run: jax.Array


class _Layout(NamedTuple):
    """What a sequence buffer is built of; all of it is static."""

    ring: Buffer[RingState[Any], Any, Any]
    length: int
    carry: str | None
    starts_segment: BorderFn | None
    ends_segment: BorderFn | None


def sequence_buffer[X](
    capacity: int,
    *,
    window: int,
    burn_in: int = 0,
    carry: str | None = None,
    starts_segment: BorderFn | None = None,
    ends_segment: BorderFn | None = None,
    placement: Placement = "device",
    example: X | None = None,
) -> Buffer[SequenceState[X], X, X]:
    """Return a buffer of the newest records that samples windows of them, leaves `[B, burn_in + window, ...]`.

    Each window that lies within one segment is equally likely. They are listed as their records come, so
    sampling costs what its batch costs, whatever the capacity. As long as there is none, `can_sample` is false and
    a batch is all zeros. `size` and `required` count records.

    A border is seen in a record's data (`Record.data`, or the record itself if it is no `Record`):
    `starts_segment` in the first record after a reset, a pause or a restart, `ends_segment` in an episode's last.
    The Gymnasium adapters' last one is that with `autoreset`: it holds the final observation, and its action
    was ignored. With neither, all records are one segment.

    Args:
        capacity: the number of records, from 1 to `2**30`.
        window: records to learn from, at least 1.
        burn_in: records before them, to warm up a recurrent carry (Kapturowski et al., "Recurrent Experience
            Replay in Distributed Reinforcement Learning", ICLR 2019).
        carry: the entry of the data, a dict, with the recurrent carry that each record began with. A batch has it
            at the windows' first records only, `[B, ...]`.
        starts_segment: whether a record is the first of a segment.
        ends_segment: whether a record is the last of its segment.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range, or a window is longer than the capacity.

    Example:
        >>> buffer = sequence_buffer(capacity=8, window=3, ends_segment=lambda data: data["done"])
        >>> records = {"time": jnp.arange(6), "done": jnp.arange(6) == 1}
        >>> state = buffer.add(buffer.init({"time": 0, "done": False}), records, 6)
        >>> print(state.windows, buffer.can_sample(state))
        2 True
        >>> sorted(set(map(tuple, buffer.sample(state, 32, 0, jax.random.key(0))["time"].tolist())))
        [(2, 3, 4), (3, 4, 5)]
    """
    check_storage("sequence_buffer", capacity, placement)
    for name, value, least in (("window", window, 1), ("burn_in", burn_in, 0)):
        if value < least:
            raise InvalidValueError(f"sequence_buffer({name})", value, f"at least {least}")
    length = burn_in + window
    if length > capacity:
        expected = f"at most {capacity - burn_in}, so that with burn_in={burn_in} it fits the capacity"
        raise InvalidValueError("sequence_buffer(window)", window, expected, "shorten it or raise the capacity")
    ring = ring_buffer(capacity, placement=placement)
    layout = _Layout(ring, length, carry, starts_segment, ends_segment)
    return Buffer(
        init=partial(_init, layout),
        add=partial(_add, layout),
        sample=partial(_sample, layout),
        size=lambda state: state.ring.size,
        required=lambda batch_size: length,
        capacity=capacity,
        stable_in_run=False,
        placement=placement,
        example=example,
        can_sample=lambda state: state.windows > 0,
    )


def _init[X](layout: _Layout, example: X) -> SequenceState[X]:
    data = _data(example)
    if layout.carry is not None and not (isinstance(data, Mapping) and layout.carry in data):
        known: list[str] = list(data) if isinstance(data, Mapping) else []
        raise UnknownNameError("entry of the data", layout.carry, known, "sequence_buffer(carry)")
    ring = layout.ring.init(example)
    ends = jnp.zeros(layout.ring.capacity - layout.length + 1, jnp.int32)
    return SequenceState(ring, ends, *(jnp.zeros((), jnp.int32) for _ in range(3)))


def _data(records: PyTree) -> PyTree:
    return records.data if isinstance(records, Record) else records


def _add[X](layout: _Layout, state: SequenceState[X], records: X, count: ArrayLike) -> SequenceState[X]:
    ring = layout.ring.add(state.ring, records, count)
    chunk = jax.tree.leaves(records)[0].shape[0]
    valid = jnp.clip(jnp.asarray(count).astype(jnp.int32), 0, chunk)
    runs, run_after = _runs(layout, state.run, records, chunk)
    state = state.replace(run=jnp.where(valid > 0, run_after[valid - 1], state.run))
    state = _append_windows(layout, _drop_windows(layout, state, chunk, valid), runs, valid)
    return state.replace(ring=ring)


def _runs(layout: _Layout, run: jax.Array, records: PyTree, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Return how long the segment is with each record, at most the length, and what of it the next continues.

    Both are int32 `[chunk]`; the second differs where a segment ends.
    """
    starts = _borders("starts_segment", layout.starts_segment, records, chunk)
    ends = _borders("ends_segment", layout.ends_segment, records, chunk)
    starts = starts | jnp.concatenate([jnp.zeros(1, bool), ends[:-1]])
    offsets = jnp.arange(chunk, dtype=jnp.int32)
    origins = jax.lax.cummax(jnp.where(starts, offsets, -run))
    runs = jnp.minimum(offsets - origins + 1, layout.length)
    return runs, jnp.where(ends, 0, runs)


def _borders(name: str, function: BorderFn | None, records: PyTree, chunk: int) -> jax.Array:
    if function is None:
        return jnp.zeros(chunk, bool)
    borders = jnp.asarray(jax.vmap(function)(_data(records)))
    if borders.shape != (chunk,) or borders.dtype != np.bool_:
        actual = describe_leaf(jax.ShapeDtypeStruct(borders.shape[1:], borders.dtype))
        raise RecordMismatchError(f"{name} returned {actual} for a record, expected bool[]; reduce it with jnp.any")
    return borders


def _drop_windows[X](layout: _Layout, state: SequenceState[X], chunk: int, valid: jax.Array) -> SequenceState[X]:
    """Forget the windows whose first record `valid` new ones will overwrite: some of the oldest `chunk`."""
    offsets = jnp.arange(min(chunk, state.ends.size), dtype=jnp.int32)
    ends = state.ends[(state.first + offsets) % state.ends.size]
    ages = (state.ring.head - 1 - ends) % layout.ring.capacity
    is_lost = (offsets < state.windows) & (ages > layout.ring.capacity - layout.length - valid)
    lost = jnp.sum(is_lost, dtype=jnp.int32)
    return state.replace(first=(state.first + lost) % state.ends.size, windows=state.windows - lost)


def _append_windows[X](layout: _Layout, state: SequenceState[X], runs: jax.Array, valid: jax.Array) -> SequenceState[X]:
    offsets = jnp.arange(runs.size, dtype=jnp.int32)
    # Of a chunk nearly as long as the ring, the last records may overwrite the start of the first windows.
    is_whole = (runs >= layout.length) & (offsets < valid) & (valid - offsets <= state.ends.size)
    places = (state.first + state.windows) % state.ends.size + jnp.cumsum(is_whole, dtype=jnp.int32) - 1
    places = jnp.where(is_whole, places % state.ends.size, state.ends.size + offsets)
    slots = (state.ring.head + offsets) % layout.ring.capacity
    return state.replace(
        ends=state.ends.at[places].set(slots, mode="drop", unique_indices=True),
        windows=state.windows + jnp.sum(is_whole, dtype=jnp.int32),
    )


def _sample[X](layout: _Layout, state: SequenceState[X], batch_size: int, position: ArrayLike, rng_key: jax.Array) -> X:
    check_batch_size(batch_size)
    batch_key = jax.random.fold_in(rng_key, position)
    chosen = jax.random.randint(batch_key, (batch_size,), 0, jnp.maximum(state.windows, 1), jnp.int32)
    starts = state.ends[(state.first + chosen) % state.ends.size] - (layout.length - 1)
    offsets = jnp.arange(layout.length, dtype=jnp.int32)
    windows = _read_windows(layout, state.ring.records, (starts[:, None] + offsets[None]) % layout.ring.capacity)
    return jax.tree.map(lambda leaf: jnp.where(state.windows > 0, leaf, jnp.zeros_like(leaf)), windows)


def _read_windows(layout: _Layout, records: PyTree, slots: jax.Array) -> PyTree:
    """Return leaves `[B, length, ...]` of the slots int32 `[B, length]`, those of the carry `[B, ...]`."""
    if layout.carry is None:
        return read_rows(records, slots)
    data = dict(_data(records))
    carry = data.pop(layout.carry)
    rest = records._replace(data=data) if isinstance(records, Record) else data
    windows = read_rows(rest, slots)
    _data(windows)[layout.carry] = read_rows(carry, slots[:, 0])
    return windows
