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

from pamiq_jax.arguments import checked_function, checked_integer
from pamiq_jax.data.buffer import Buffer, Placement, Record, record_spec
from pamiq_jax.data.ring import RingState
from pamiq_jax.data.rows import check_batch_size, check_storage, read_rows, valid_rows, write_rows, zero_rows
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, UnknownNameError
from pamiq_jax.trees import describe_leaf
from pamiq_jax.types import PyTree

type BorderFn = Callable[[Any], ArrayLike]
"""`(data) -> bool []` of one record's data, traced: whether a segment has its border here."""


class SequenceState[X](Shown, flax.struct.PyTreeNode):
    """A ring of the newest records, and a queue of the windows within them, oldest first.

    Attributes:
        ring: the records; what is carried has leaves `[capacity // stride, ...]`, that of slot 0 first.
        ends: int32 `[(capacity - length) // stride + 1]`, the slots of the windows' last records: a ring of its own.
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

    capacity: int
    length: int
    stride: int
    carry: str | None
    starts_segment: BorderFn | None
    ends_segment: BorderFn | None


def sequence_buffer[X](
    capacity: int,
    *,
    window: int,
    burn_in: int = 0,
    stride: int = 1,
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

    A segment starts at each record whose `Record.is_first` is set: after a pause, a restore or a loss. Further borders
    are seen in a record's data (`Record.data`, or the record itself if it is no `Record`, which has no such mark):
    `starts_segment` in the first record after a reset, `ends_segment` in an episode's last.
    The Gymnasium adapters' last one is that with `autoreset`: it holds the final observation, and its action
    was ignored.

    With a `stride` windows begin at every so many slots only, and the carry is stored for those alone, which saves
    most of the memory where it is large. The slots are counted through, whatever the segments: of each, up to
    `stride - 1` records at either side are in no window, and one of fewer than `burn_in + window + stride - 1` records
    may have no window at all. With a stride of at most `window`, burn-in not counted, long segments lose none inside.

    Args:
        capacity: the number of records, from 1 to `2**30`.
        window: records to learn from, at least 1.
        burn_in: records before them, to warm up a recurrent carry (Kapturowski et al., "Recurrent Experience
            Replay in Distributed Reinforcement Learning", ICLR 2019).
        stride: records from the beginning of one window to that of the next, a divisor of the capacity.
        carry: the entry of the data, a dict, with the recurrent carry that each record began with. A batch has it
            at the windows' first records only, `[B, ...]`.
        starts_segment: whether a record is the first of a segment.
        ends_segment: whether a record is the last of its segment.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range, a window is longer than the capacity, or the stride
            does not divide it.
        UnknownNameError: records have no entry `carry`; from `init` if there is no example.

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
        checked_integer(f"sequence_buffer({name})", value, least)
    length = burn_in + window
    if length > capacity:
        expected = f"at most {capacity - burn_in}, so that with burn_in={burn_in} it fits the capacity"
        raise InvalidValueError("sequence_buffer(window)", window, expected, "shorten it or raise the capacity")
    if capacity % checked_integer("sequence_buffer(stride)", stride, least=1):
        remedy = f"raise the capacity to {-(-capacity // stride) * stride}"
        raise InvalidValueError("sequence_buffer(stride)", stride, f"a divisor of the capacity {capacity}", remedy)
    for name, border in (("starts_segment", starts_segment), ("ends_segment", ends_segment)):
        remedy = f"write lambda data: data[{border!r}]" if isinstance(border, str) else ""
        checked_function(f"sequence_buffer({name})", border, "(data) -> bool", remedy, is_optional=True)
    layout = _Layout(capacity, length, stride, carry, starts_segment, ends_segment)
    if example is not None:
        _check_carry(layout, example)
    return Buffer(
        keeps_all=True,
        kind="sequence_buffer",
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
        is_ordered=True,
    )


def _init[X](layout: _Layout, example: X) -> SequenceState[X]:
    _check_carry(layout, example)
    records = _map_records(
        layout,
        partial(zero_rows, layout.capacity),
        partial(zero_rows, layout.capacity // layout.stride),
        record_spec(example),
    )
    ring = RingState(records, head=jnp.zeros((), jnp.int32), size=jnp.zeros((), jnp.int32))
    ends = jnp.zeros((layout.capacity - layout.length) // layout.stride + 1, jnp.int32)
    return SequenceState(ring, ends, *(jnp.zeros((), jnp.int32) for _ in range(3)))


def _check_carry(layout: _Layout, example: PyTree) -> None:
    data = _data(example)
    if layout.carry is not None and not (isinstance(data, Mapping) and layout.carry in data):
        known: list[str] = list(data) if isinstance(data, Mapping) else []
        raise UnknownNameError("entry of the data", layout.carry, known, "sequence_buffer(carry)")


def _data(records: PyTree) -> PyTree:
    return records.data if isinstance(records, Record) else records


def _add[X](layout: _Layout, state: SequenceState[X], records: X, count: ArrayLike) -> SequenceState[X]:
    chunk, valid = valid_rows(state.ring.records, records, count)
    ring = _store(layout, state.ring, records, chunk, valid)
    runs, run_after = _runs(layout, state.run, records, chunk)
    state = state.replace(run=jnp.where(valid > 0, run_after[valid - 1], state.run))
    state = _append_windows(layout, _drop_windows(layout, state, chunk, valid), runs, valid)
    return state.replace(ring=ring)


def _map_records(
    layout: _Layout, function: Callable[..., Any], carry_function: Callable[..., Any], *trees: PyTree
) -> PyTree:
    """Return what `function` makes of the leaves of trees like records, and `carry_function` of the carry's."""
    depth = 1 if isinstance(trees[0], Record) else 0  # of the data's entries

    def apply(path: tuple[Any, ...], *leaves: Any) -> Any:
        is_carry = layout.carry is not None and len(path) > depth and getattr(path[depth], "key", None) == layout.carry
        return (carry_function if is_carry else function)(*leaves)

    return jax.tree_util.tree_map_with_path(apply, *trees)


def _store[X](layout: _Layout, ring: RingState[X], records: X, chunk: int, valid: jax.Array) -> RingState[X]:
    """Put the records into the ring, of the carry only what lies where a window may begin."""
    offsets = jnp.arange(chunk, dtype=jnp.int32)
    slots = (ring.head + offsets) % layout.capacity
    outside = layout.capacity + offsets  # dropped by the scatter, and all different
    all_slots = jnp.where(offsets < valid, slots, outside)
    carry_slots = jnp.where((offsets < valid) & (slots % layout.stride == 0), slots // layout.stride, outside)

    def write(slots: jax.Array) -> Callable[..., Any]:
        return lambda stored, new: write_rows(stored, slots, new)

    return RingState(
        records=_map_records(layout, write(all_slots), write(carry_slots), ring.records, records),
        head=(ring.head + valid) % layout.capacity,
        size=jnp.minimum(ring.size + valid, layout.capacity),
    )


def _runs(layout: _Layout, run: jax.Array, records: PyTree, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Return how long the segment is with each record, at most the length, and what of it the next continues.

    Both are int32 `[chunk]`; the second differs where a segment ends.
    """
    starts = _borders("starts_segment", layout.starts_segment, records, chunk)
    ends = _borders("ends_segment", layout.ends_segment, records, chunk)
    if isinstance(records, Record):
        starts = starts | records.is_first
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
    ages = (state.ring.head - 1 - ends) % layout.capacity
    is_lost = (offsets < state.windows) & (ages > layout.capacity - layout.length - valid)
    lost = jnp.sum(is_lost, dtype=jnp.int32)
    return state.replace(first=(state.first + lost) % state.ends.size, windows=state.windows - lost)


def _append_windows[X](layout: _Layout, state: SequenceState[X], runs: jax.Array, valid: jax.Array) -> SequenceState[X]:
    offsets = jnp.arange(runs.size, dtype=jnp.int32)
    slots = (state.ring.head + offsets) % layout.capacity
    # Of a chunk nearly as long as the ring, the last records may overwrite the start of the first windows.
    is_kept = (offsets < valid) & (valid - offsets <= layout.capacity - layout.length + 1)
    begins = (slots - (layout.length - 1)) % layout.capacity
    is_whole = (runs >= layout.length) & is_kept & (begins % layout.stride == 0)
    places = (state.first + state.windows) % state.ends.size + jnp.cumsum(is_whole, dtype=jnp.int32) - 1
    places = jnp.where(is_whole, places % state.ends.size, state.ends.size + offsets)
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
    slots = (starts[:, None] + offsets[None]) % layout.capacity
    windows = _map_records(
        layout,
        lambda column: read_rows(column, slots),
        lambda column: read_rows(column, slots[:, 0] // layout.stride),
        state.ring.records,
    )
    return jax.tree.map(lambda leaf: jnp.where(state.windows > 0, leaf, jnp.zeros_like(leaf)), windows)
