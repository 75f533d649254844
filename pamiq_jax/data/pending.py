"""What waits in a collector, as a checkpoint keeps it: cut out of the collector's blocks, and put back into some."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from pamiq_jax.data.buffer import Record
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import difference
from pamiq_jax.types import PyTree

type Block = list[np.ndarray[Any, Any]]
"""Columns `[chunk, ...]`, one for each leaf of a record."""

_ALIGNMENT = 64


class PendingRecords[X](NamedTuple):
    """Records that wait in a collector, and what else decides how they will be drained and marked.

    Attributes:
        records: leaves `[n, ...]`, oldest first.
        start: int32 `[]`, rows in front of them in their first block, from 0 to `chunk - 1`. Those records are lost
            already; they make the first chunk that much shorter.
        has_gap: bool `[]`, whether the next record will be marked as `is_first`.

    Example:
        >>> from pamiq_jax.data import Collector
        >>> collector = Collector(0.0, capacity=2, chunk=4)
        >>> _ = [collector.collect(value, version=7) for value in (1.0, 2.0, 3.0)]
        >>> pending = collector.pending_records()
        >>> pending.records.data.tolist(), int(pending.start), bool(pending.has_gap)
        ([2.0, 3.0], 1, False)
    """

    records: Record[X]
    start: Any  # a scalar array, or a Python int
    has_gap: ArrayLike


def new_block(specs: Sequence[jax.ShapeDtypeStruct], rows: int) -> Block:
    """Return columns of zeros that begin at multiples of 64 bytes: those XLA on the CPU reads where they lie.

    Others it copies first, which takes longer than all else that is done with them.

    Example:
        >>> [column] = new_block([jax.ShapeDtypeStruct((2,), np.float32)], rows=3)
        >>> column.shape, column.dtype, column.ctypes.data % 64
        ((3, 2), dtype('float32'), 0)
    """
    return [_aligned_zeros((rows, *spec.shape), np.dtype(spec.dtype)) for spec in specs]


def _aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def join_blocks(blocks: Sequence[Block], specs: Sequence[jax.ShapeDtypeStruct], start: int, count: int) -> Block:
    """Return copies `[count, ...]` of the columns of several blocks, from row `start` of the first on.

    Example:
        >>> spec = jax.ShapeDtypeStruct((), np.int32)
        >>> join_blocks([[np.array([1, 2], np.int32)], [np.array([3, 0], np.int32)]], [spec], start=1, count=2)
        [array([2, 3], dtype=int32)]
    """
    nothing = [[np.zeros((0, *spec.shape), spec.dtype) for spec in specs]]
    return [np.concatenate(columns)[start : start + count] for columns in zip(*nothing, *blocks, strict=True)]


def part_blocks(columns: Block, specs: Sequence[jax.ShapeDtypeStruct], start: int, chunk: int) -> deque[Block]:
    """Return new blocks that hold the columns `[n, ...]`, the first from its row `start` on, and zeros elsewhere.

    Example:
        >>> spec = jax.ShapeDtypeStruct((), np.int32)
        >>> part_blocks([np.array([2, 3])], [spec], start=1, chunk=2)
        deque([[array([0, 2], dtype=int32)], [array([3, 0], dtype=int32)]])
    """
    blocks: deque[Block] = deque()
    count = len(columns[0])
    for first in range(-start, count, chunk) if count else ():  # the number of the record in the block's row 0
        block = new_block(specs, chunk)
        rows = slice(max(first, 0), min(first + chunk, count))
        for column, new in zip(block, columns, strict=True):
            column[rows.start - first : rows.stop - first] = new[rows]
        blocks.append(block)
    return blocks


def check_pending(pending: PendingRecords[Any], spec: PyTree, counts: tuple[int, int, int], capacity: int) -> Block:
    """Return the columns `[n, ...]` of pending records, after checking that a collector can go on from them.

    Args:
        pending: from another collector.
        spec: the spec of one record.
        counts: seen, dropped and pending, from that collector.
        capacity: of this collector.

    Raises:
        RecordMismatchError: the records are unlike the spec.
        InvalidValueError: there are others than counted, or too many.

    Example:
        >>> pending = PendingRecords(Record(np.zeros(2), np.zeros(2, np.int32), np.zeros(2, bool)), 0, False)
        >>> spec = Record(*(jax.ShapeDtypeStruct((), dtype) for dtype in (np.float32, np.int32, np.bool_)))
        >>> len(check_pending(pending, spec, (2, 0, 2), capacity=4))
        3
    """
    seen, dropped, count = map(int, counts)
    if min(seen, dropped, count) < 0 or seen < dropped + count:
        possible = "none below 0, and no fewer seen than dropped and pending"
        raise InvalidValueError("Collector.restore(counts)", (seen, dropped, count), possible)
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), spec)
    if mismatch := difference(expected, pending.records):
        remedy = "give both as they were at one moment, with the same example"
        raise RecordMismatchError(f"{count} pending records can't be restored: {mismatch}; {remedy}")
    if count > capacity:
        remedy = "restore a collector of the same capacity"
        raise InvalidValueError("Collector.restore(counts.pending)", count, f"at most {capacity}", remedy)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(pending.records)]
