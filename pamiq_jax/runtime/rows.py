"""Metrics on their way from the training thread to a file, or to whoever looks at them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import jax

_GATHER_SECONDS = 0.1


class MetricRow(NamedTuple):
    """The metrics of one chunk.

    Attributes:
        trainer: whose.
        seconds: on the system's clock, at the end of the chunk.
        step: the trainer's steps so far.
        version: the version that was published after it; None within a run.
        metrics: means over the chunk.
    """

    trainer: str
    seconds: float
    step: int
    version: int | None
    metrics: Mapping[str, float]


type OnMetrics = Callable[[MetricRow], Any]
"""Called with each row, on the metrics thread."""


class ChunkMetrics:
    """The metrics of one chunk on their way from the device: fetched once, however many want them as numbers.

    Args:
        metrics: arrays `[]` or numbers, by name.

    Example:
        >>> import jax.numpy as jnp
        >>> ChunkMetrics({"loss": jnp.float32(0.5)}).numbers()
        {'loss': 0.5}
    """

    __slots__ = ("_metrics", "_numbers")

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self._metrics = metrics
        self._numbers: dict[str, float] | None = None

    def start(self) -> None:
        """Start the transfers, so that those of many chunks are waited for together. Called from any thread."""
        if self._numbers is None:
            for value in self._metrics.values():
                if isinstance(value, jax.Array):
                    value.copy_to_host_async()

    def numbers(self) -> Mapping[str, float]:
        """Return them as `floats` does. Called from any thread: two at once do it twice."""
        if self._numbers is None:
            self._numbers = floats(self._metrics)
        return self._numbers


class MetricRows:
    """Writes metrics on a thread of its own, so that training waits for no file.

    Rows wait in a bounded queue; when it is full the oldest is dropped and counted. So are rows that the disk does not
    take; those after them are tried again. The thread takes what has come together in a tenth of a second at once:
    for each chunk alone it would take the interpreter from the training thread between any two.

    Args:
        path: of a JSON lines file to append to; None writes none.
        on_metrics: called with each row.
        on_error: called with an exception of `on_metrics`, which gets no more rows then, and with the first of writing
            since a row was written.
        capacity: rows that may wait; as many more may be on their way to the file.
        gather_seconds: how long rows come together before they are taken; not that long when half of them wait.
    """

    def __init__(
        self,
        path: Path | None,
        on_metrics: OnMetrics | None,
        on_error: Callable[[Exception], None],
        *,
        capacity: int = 4096,
        gather_seconds: float = _GATHER_SECONDS,
    ) -> None:
        self._path, self._on_metrics, self._on_error = path, on_metrics, on_error
        self._waiting: deque[tuple[MetricRow, ChunkMetrics]] = deque(maxlen=capacity)
        self._many, self._gather_seconds = max(1, capacity // 2), gather_seconds
        self._changed = threading.Condition()
        self._is_closed = False
        self.dropped = 0
        self.thread = threading.Thread(target=self._work, name="pamiq-metrics", daemon=True)
        self.thread.start()

    def put(self, row: MetricRow, metrics: ChunkMetrics) -> None:
        """Hand over a row whose metrics are arrays yet. Called from the training thread; never waits."""
        with self._changed:
            if len(self._waiting) == self._waiting.maxlen:
                self.dropped += 1
            self._waiting.append((row, metrics))
            if len(self._waiting) in (1, self._many):
                self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Write what is waiting, end the thread, and return whether it has ended in time.

        Args:
            timeout: seconds.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _work(self) -> None:
        try:
            if self._path is None:
                self._pass_on(None)
            else:
                with self._path.open("a+b", buffering=0) as file:
                    self._pass_on(_Lines(file, self._not_written))
        except Exception as error:  # logging must stop nobody: it is reported, and rows are dropped from here
            self._on_error(error)

    def _pass_on(self, lines: _Lines | None) -> None:
        while waiting := self._next():
            for _, metrics in waiting:
                metrics.start()
            rows = [row._replace(metrics=metrics.numbers()) for row, metrics in waiting]
            if lines is not None:
                lines.append(rows)
            for row in rows:
                self._tell(row)

    def _tell(self, row: MetricRow) -> None:
        if self._on_metrics is None:
            return
        try:
            self._on_metrics(row)
        except Exception as error:  # it is reported and told nothing more; the file goes on
            self._on_metrics = None
            error.add_note("in on_metrics")
            self._on_error(error)

    def _not_written(self, error: OSError, rows: int, *, is_first: bool) -> None:
        with self._changed:
            self.dropped += rows
        if is_first:
            self._on_error(error)

    def _next(self) -> list[tuple[MetricRow, ChunkMetrics]]:
        """Return what has come together; nothing once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            self._changed.wait_for(lambda: len(self._waiting) >= self._many or self._is_closed, self._gather_seconds)
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting


class _Lines:
    """Appends rows to a file whose lines are all whole, whatever becomes of the disk or came of the process before.

    Args:
        file: open for reading and appending, without a buffer.
        on_error: told how many rows could not be written, and whether those before them could.
    """

    _TAIL = 2**16

    def __init__(self, file: FileIO, on_error: Callable[..., None]) -> None:
        self._file, self._on_error, self._is_failing = file, on_error, False
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - self._TAIL))
        tail = file.read()
        if not tail.endswith(b"\n"):  # the process before was killed within a line
            file.truncate(start + tail.rfind(b"\n") + 1)

    def append(self, rows: Sequence[MetricRow]) -> None:
        """Append rows, or nothing of them."""
        text, end = "".join(map(_json_line, rows)).encode(), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file.name))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            self._on_error(error, len(rows), is_first=not self._is_failing)
            self._is_failing = True
        else:
            self._is_failing = False


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as Python floats; waits for the arrays. None of a chunk that has failed.

    Example:
        >>> import jax.numpy as jnp
        >>> floats({"loss": jnp.float32(0.5)})
        {'loss': 0.5}
    """
    try:
        return {name: float(value) for name, value in metrics.items()}
    except jax.errors.JaxRuntimeError:  # it is the trainer's error, and told as such
        return {}


def _json_line(row: MetricRow) -> str:
    # Numbers that JSON does not have would make the file unreadable.
    finite = {name: value if value - value == 0 else None for name, value in row.metrics.items()}
    return json.dumps({**row._asdict(), "metrics": finite}) + "\n"
