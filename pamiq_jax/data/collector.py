"""The bounded hand-over of records from the inference thread to the training thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from pamiq_jax.data.chunk import Chunk
from pamiq_jax.data.leaf_rule import LeafRule
from pamiq_jax.data.record import Record, record_spec
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import difference, leaf_names, nbytes

type Overflow = Literal["drop_oldest", "drop_newest"]
"""What a full collector does with one record more: forget its oldest, or refuse the new one."""


class CollectorCounts(NamedTuple):
    """What has happened to the records so far; `seen - dropped - pending` have been drained.

    Attributes:
        seen: valid records offered, dropped ones included.
        dropped: records lost to the overflow policy.
        pending: records waiting to be drained.
    """

    seen: int
    dropped: int
    pending: int


class _Block:
    """`rows` rows of every leaf; those from `start` to `stop` are pending."""

    __slots__ = ("columns", "start", "stop", "versions")

    def __init__(self, rows: int, rules: list[LeafRule]) -> None:
        self.columns = [np.zeros((rows, *rule.shape), rule.dtype) for rule in rules]
        self.versions = np.zeros(rows, np.int32)
        self.start = 0
        self.stop = 0


class Collector[X]:
    """Takes copies of records from one thread and gives them in chunks to another.

    A record is copied into a row of a block that is owned here, so the caller may reuse its arrays.
    A drained block is given away for good; the next record starts a new one.

    Args:
        example: one record's data, without a batch axis.
        capacity: the most records that wait here.
        chunk: the fixed number of rows of what `drain` returns.
        overflow: what to do when `capacity` records wait: "drop_oldest" or "drop_newest".

    Raises:
        InvalidValueError: an argument is outside its range.
        RecordMismatchError: the example has a leaf that cannot be recorded, such as a typed PRNG key.

    Example:
        >>> collector = Collector({"x": 0.0}, capacity=2, chunk=4)
        >>> [collector.collect({"x": value}, version=7) for value in (1.0, 2.0, 3.0)]
        [True, True, True]
        >>> collector.counts
        CollectorCounts(seen=3, dropped=1, pending=2)
        >>> collector.drain().records.data["x"].tolist()
        [2.0, 3.0, 0.0, 0.0]
    """

    def __init__(self, example: X, capacity: int, *, chunk: int = 256, overflow: Overflow = "drop_oldest") -> None:
        if capacity < 1:
            raise InvalidValueError("Collector(capacity)", capacity, "at least 1")
        if chunk < 1:
            raise InvalidValueError("Collector(chunk)", chunk, "at least 1")
        if overflow not in ("drop_oldest", "drop_newest"):
            raise InvalidValueError("Collector(overflow)", overflow, "'drop_oldest' or 'drop_newest'")
        self.capacity = capacity
        self.chunk = chunk
        self.overflow: Overflow = overflow
        self._spec = record_spec(example)
        specs, self._treedef = jax.tree.flatten(self._spec)
        self._rules = [LeafRule.of(name, spec) for name, spec in zip(leaf_names(self._spec), specs, strict=True)]
        self._lock = threading.Lock()
        self._blocks: deque[_Block] = deque()
        self._seen = self._dropped = self._pending = 0
        self._alarm: tuple[int, Callable[[], None]] | None = None

    def collect(self, record: X, version: int) -> bool:
        """Copy the record in and return whether it was kept. Never waits for the training thread's work.

        Called from: inference thread.

        Args:
            record: like the example. float64 for float32 and the like are accepted, as JAX would, and
                Python scalars of the same kind.
            version: of the snapshot that the record was made with.

        Raises:
            RecordMismatchError: another structure, shape or dtype; nothing was inserted or counted.
        """
        leaves = self._checked_leaves(record)
        with self._lock:
            is_kept = self._insert(leaves, version)
            ring = self._take_due_alarm()
        if ring is not None:
            ring()
        return is_kept

    def drain(self) -> Chunk[X] | None:
        """Return the oldest pending records, `chunk` of them or fewer, or None if there is none.

        Called from: training thread. The lock is held for a reference swap only. The leaves are read-only.
        """
        with self._lock:
            if not self._pending:
                return None
            block = self._blocks.popleft()
            self._pending -= block.stop - block.start
        *columns, versions = (_settled(column, block) for column in (*block.columns, block.versions))
        return Chunk(Record(self._treedef.unflatten(columns), versions), block.stop - block.start)

    def alarm(self, pending_at_least: int, ring: Callable[[], None]) -> None:
        """Have `ring` called once as soon as so many records are pending, at once if they are already.

        It replaces an alarm that has not rung yet. No more than `capacity` records can wait, so for a
        larger number it rings when the collector is full.

        Args:
            pending_at_least: the number of pending records to ring at.
            ring: called outside the lock, by whoever collects the record that reaches the number. Must not block.
        """
        with self._lock:
            self._alarm = (min(pending_at_least, self.capacity), ring)
            due = self._take_due_alarm()
        if due is not None:
            due()

    @property
    def counts(self) -> CollectorCounts:
        """How many records were seen and dropped, and are pending, all at one moment."""
        with self._lock:
            return CollectorCounts(self._seen, self._dropped, self._pending)

    @property
    def nbytes(self) -> int:
        """The most bytes that waiting records can take, drained chunks not included."""
        # A record is written before an older one is dropped, and the first block may be nearly used up.
        blocks = (self.capacity + self.chunk - 1) // self.chunk + 1
        row = nbytes(self._spec) + np.dtype(np.int32).itemsize
        return blocks * self.chunk * row

    def _checked_leaves(self, record: X) -> list[Any]:
        leaves, treedef = jax.tree.flatten(record)
        if treedef != self._treedef:
            raise RecordMismatchError(f"{difference(self._spec, record)}; nothing was inserted")
        return [
            leaf if rule.accepts(leaf) else rule.convert(leaf) for rule, leaf in zip(self._rules, leaves, strict=True)
        ]

    def _insert(self, leaves: list[Any], version: int) -> bool:
        if self._pending == self.capacity and self.overflow == "drop_newest":
            self._seen += 1
            self._dropped += 1
            return False
        self._write_row(leaves, version)
        self._seen += 1
        self._pending += 1
        if self._pending > self.capacity:
            self._drop_oldest()
        return True

    def _write_row(self, leaves: list[Any], version: int) -> None:
        if not self._blocks or self._blocks[-1].stop == self.chunk:
            self._blocks.append(_Block(self.chunk, self._rules))
        block = self._blocks[-1]
        row = block.stop
        for column, leaf in zip(block.columns, leaves, strict=True):
            column[row] = leaf
        block.versions[row] = version
        block.stop = row + 1

    def _drop_oldest(self) -> None:
        oldest = self._blocks[0]
        oldest.start += 1
        if oldest.start == oldest.stop:
            self._blocks.popleft()
        self._dropped += 1
        self._pending -= 1

    def _take_due_alarm(self) -> Callable[[], None] | None:
        if self._alarm is None or self._pending < self._alarm[0]:
            return None
        _, ring = self._alarm
        self._alarm = None
        return ring


def _settled(column: np.ndarray[Any, Any], block: _Block) -> np.ndarray[Any, Any]:
    """Return the column with its pending rows first and zeros after them, read-only."""
    if block.start:  # dropped rows are in front
        shifted = np.zeros_like(column)
        shifted[: block.stop - block.start] = column[block.start : block.stop]
        column = shifted
    column.flags.writeable = False
    return column
