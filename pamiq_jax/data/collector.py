"""The bounded hand-over of records from the inference thread to the training thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple, cast

import jax
import numpy as np

from pamiq_jax.arguments import checked_integer
from pamiq_jax.data.buffer import Chunk, Record, record_spec
from pamiq_jax.data.pending import Block, PendingRecords, check_pending, join_blocks, new_block, part_blocks
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import describe_leaf, difference, leaf_names, nbytes

type Overflow = Literal["drop_oldest", "drop_newest"]
"""What a full collector does with one record more: forget its oldest, or refuse the new one."""

_WIDE_DTYPES = tuple(map(np.dtype, ("int64", "uint64", "float64", "complex128")))
_ARRAY_TYPES = (np.ndarray, np.generic, jax.Array)


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


class Collector[X]:
    """Takes copies of records from one thread and gives them in chunks to another.

    A record is copied into a row of a block that is owned here, so the caller may reuse its arrays.
    A drained block is given away for good; the next record starts a new one. `Record.is_first` is set in the
    first record of all, in the first after `mark_gap`, and in the first that is left after lost ones.

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
        >>> records = collector.drain().records
        >>> records.data["x"].tolist(), records.is_first.tolist()
        ([2.0, 3.0, 0.0, 0.0], [True, False, False, False])
    """

    def __init__(self, example: X, capacity: int, *, chunk: int = 256, overflow: Overflow = "drop_oldest") -> None:
        for name, value in (("capacity", capacity), ("chunk", chunk)):
            checked_integer(f"Collector({name})", value, least=1)
        if overflow not in ("drop_oldest", "drop_newest"):
            raise InvalidValueError("Collector(overflow)", overflow, "'drop_oldest' or 'drop_newest'")
        self.capacity, self.chunk = capacity, chunk
        self.overflow: Overflow = overflow
        self._spec = record_spec(example)
        specs, self._treedef = jax.tree.flatten(self._spec)
        self._readers = [*map(_leaf_reader, leaf_names(self._spec), specs)]
        self._types, self._dtypes = [np.ndarray] * len(specs), [np.dtype(spec.dtype) for spec in specs]
        self._shapes = [spec.shape for spec in specs]
        self._values = _values_of(self._spec)
        self._specs = [*specs, jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.bool_)]
        self._lock = threading.Lock()
        # Columns like the leaves of a Record; rows are pending from `start` of the first block to `stop` of the last.
        self._blocks: deque[Block] = deque()
        self._start = self._stop = 0
        self._seen = self._dropped = self._pending = 0
        self._has_gap = True  # in front of the next record
        self._alarm: tuple[int, Callable[[], None]] | None = None
        self._held: set[str] = set()
        self._aside: deque[list[Any]] = deque()
        self._lost_aside = 0

    def collect(self, record: X, version: int, source: str = "") -> bool:
        """Copy the record in and return whether it was kept. Never waits for the training thread's work.

        Called from: inference thread. Where JAX would, float64 is taken for float32 and the like, and a Python
        scalar for a leaf of its kind. The version is that of the snapshot that acted. `source` says who brings the
        record, where several do, for `hold`; a record that is held counts as kept.

        Raises:
            RecordMismatchError: another structure, shape or dtype; nothing was inserted or counted.
        """
        row = self._row(record)
        row.append(version)
        with self._lock:
            if self._held and source in self._held:
                return self._lay_aside(row)
            is_kept = self._insert(row)
            ring = self._take_due_alarm() if self._alarm is not None else None
        if ring is not None:
            ring()
        return is_kept

    def hold(self, source: str) -> None:
        """Lay aside what a source brings from here on, until `release`: copies, at most `capacity` of all sources.

        So what waits here can be saved as of a moment that sources reach one after the other. Called from: the source's
        thread.
        """
        with self._lock:
            self._held.add(source)

    def release(self) -> None:
        """Take in what was laid aside, in the order it came. Called from any thread."""
        with self._lock:
            rows, lost = self._aside, self._lost_aside
            self._aside, self._lost_aside = deque(), 0
            self._held.clear()
            self._seen += lost
            self._dropped += lost
            self._has_gap = self._has_gap or lost > 0
            for row in rows:
                self._insert(row)
            ring = self._take_due_alarm()
        if ring is not None:
            ring()

    def mark_gap(self) -> None:
        """Have the next record marked as `is_first`. Called from: inference thread, when it goes on after a pause."""
        with self._lock:
            self._has_gap = True

    def drain(self) -> Chunk[X] | None:
        """Return the oldest pending records, `chunk` of them or fewer, or None if there is none.

        Called from: training thread. The lock is held for a reference swap only. The leaves are read-only.
        """
        with self._lock:
            if not self._pending:
                return None
            block, start = self._blocks.popleft(), self._start
            count = (self.chunk if self._blocks else self._stop) - start
            self._start = 0
            self._pending -= count
        for column in block:
            if start:  # dropped rows are in front
                column[:count] = column[start : start + count]
                column[count:] = 0
            column.flags.writeable = False
        return Chunk(self._record(block), count)

    def pending_records(self) -> PendingRecords[X]:
        """Return a copy of what waits, for a checkpoint, and leave it here. Nobody may drain meanwhile.

        It is of the same moment as `counts` if nothing is collected between the two.
        """
        with self._lock:
            # The rows that wait are not written again, except for their marks in the last column.
            blocks = [[*columns, marks.copy()] for *columns, marks in self._blocks]
            start, pending, has_gap = self._start, self._pending, self._has_gap
        columns = join_blocks(blocks, self._specs, start, pending)
        return PendingRecords(self._record(columns), np.int32(start), np.bool_(has_gap))

    def restore(self, pending: PendingRecords[X], counts: CollectorCounts) -> None:
        """Bring a new collector to where another one was, from its `pending_records()` and `counts`.

        All that follows is then the same, bit for bit. Unless the environment goes on exactly where it was too,
        call `mark_gap` afterwards.

        Raises:
            RecordMismatchError: the records are unlike the example.
            InvalidValueError: this collector is not new, or records, counts and capacity do not fit together.
        """
        columns = check_pending(pending, self._record(self._specs), counts, self.capacity)
        start = int(pending.start) % self.chunk
        blocks = part_blocks(columns, self._specs, start, self.chunk)
        with self._lock:
            if self._seen:
                remedy = "restore a new collector, before it collects"
                raise InvalidValueError("Collector.counts.seen before restore()", self._seen, "0", remedy)
            self._blocks, self._start, self._has_gap = blocks, start, bool(pending.has_gap)
            self._stop = start + int(counts.pending) - (len(blocks) - 1) * self.chunk
            self._seen, self._dropped, self._pending = map(int, counts)
            due = self._take_due_alarm()
        if due is not None:
            due()

    def alarm(self, pending_at_least: int, ring: Callable[[], None]) -> None:
        """Have `ring` called once as soon as so many records are pending, at once if they are already.

        It replaces an alarm that has not rung yet. For a number above the capacity it rings when the collector
        is full. `ring` is called outside the lock, by whoever collects the record, and must not block.
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
        return (-(-self.capacity // self.chunk) + 1) * self.chunk * nbytes(self._specs)

    def _record(self, columns: list[Any]) -> Record[X]:
        *leaves, versions, marks = columns
        return Record(self._treedef.unflatten(leaves), versions, marks)

    def _row(self, record: Any) -> list[Any]:
        """Return a record's leaves as numpy arrays, and refuse another record."""
        if self._values is not None and type(record) is dict and len(record) == len(self._shapes):
            try:
                return self._read(self._values(record))
            except (KeyError, RecordMismatchError):
                pass  # told below, by what is wrong with the record as a whole
        leaves, treedef = jax.tree.flatten(record)
        if treedef != self._treedef:
            raise RecordMismatchError(f"{difference(self._spec, record)}; nothing was inserted")
        return self._read(leaves)

    def _read(self, leaves: Sequence[Any]) -> list[Any]:
        if (  # nearly always; lists are compared by identity first, which is far cheaper than equality of dtypes
            [type(leaf) for leaf in leaves] == self._types
            and [leaf.dtype for leaf in leaves] == self._dtypes
            and [leaf.shape for leaf in leaves] == self._shapes
        ):
            return list(leaves)
        return [read(leaf) for read, leaf in zip(self._readers, leaves, strict=True)]

    def _insert(self, row: list[Any]) -> bool:
        is_full = self._pending == self.capacity
        if is_full and self.overflow == "drop_newest":
            self._seen += 1
            self._dropped += 1
            self._has_gap = True
            return False
        if not self._blocks or self._stop == self.chunk:
            self._blocks.append(new_block(self._specs, self.chunk))
            self._stop = 0
        block, stop = self._blocks[-1], self._stop
        for column, leaf in zip(block, row, strict=False):  # all but the marks, which are False
            column[stop] = leaf  # may fail, so nothing has been counted, marked or dropped yet
        if self._has_gap:
            block[-1][stop] = True
            self._has_gap = False
        self._stop = stop + 1
        self._seen += 1
        if is_full:
            self._dropped += 1
            self._start += 1
            if self._start == self.chunk:
                self._blocks.popleft()
                self._start = 0
            self._blocks[0][-1][self._start] = True
        else:
            self._pending += 1
        return True

    def _lay_aside(self, row: list[Any]) -> bool:
        if len(self._aside) == self.capacity:
            self._lost_aside += 1  # counted with the others on release
            if self.overflow == "drop_newest":
                return False
            self._aside.popleft()
        self._aside.append([np.array(leaf) for leaf in row])
        return True

    def _take_due_alarm(self) -> Callable[[], None] | None:
        if self._alarm is None or self._pending < self._alarm[0]:
            return None
        (_, ring), self._alarm = self._alarm, None
        return ring


def _values_of(spec: Any) -> Callable[[Any], Sequence[Any]] | None:
    """Return what gives the leaves of a flat dict, in JAX's order and faster than JAX; None for any other record."""
    if type(spec) is not dict or len(spec) < 2:  # of one key, `itemgetter` gives no tuple
        return None
    fields = cast(dict[str, Any], spec)
    is_flat = all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in fields.values())
    return itemgetter(*sorted(fields)) if is_flat else None


def _leaf_reader(name: str, spec: jax.ShapeDtypeStruct) -> Callable[[Any], Any]:
    """Return the function that gives a leaf like the spec as a numpy array, and refuses others by name."""
    shape, dtype = spec.shape, np.dtype(spec.dtype)
    dtypes = (dtype, *(wide for wide in _WIDE_DTYPES if jax.dtypes.canonicalize_dtype(wide) == dtype))
    scalar_type = type(np.zeros((), dtype).item())

    def read(leaf: Any) -> Any:
        is_array = isinstance(leaf, _ARRAY_TYPES)
        if is_array and leaf.shape == shape and leaf.dtype in dtypes:
            return np.asarray(leaf)  # waits for a JAX array, here and not under the lock
        if shape == () and type(leaf) is scalar_type:
            try:
                return np.asarray(leaf, dtype)
            except OverflowError:
                pass  # refused below
        actual = describe_leaf(leaf) if is_array else f"the Python {type(leaf).__name__} {leaf!r:.60}"
        raise RecordMismatchError(f"leaf {name}: expected {describe_leaf(spec)}, got {actual}; nothing was inserted")

    return read
