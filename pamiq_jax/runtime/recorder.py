"""Records what the training thread of a live run is told, and what it does of it, so that it can be replayed.

A training tick is a function of the state before it, of what its clock and its collectors say, and of nothing else.
So these are tapped, and what they said is written behind the threads' backs by a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, override

import jax
import numpy as np

from pamiq_jax.checkpoint import StateStore
from pamiq_jax.data import Chunk, Collector, CollectorCounts
from pamiq_jax.errors import RecordingError
from pamiq_jax.recording.entries import Batch, Begin, Drain, End, Tick, batch_value, begin_value, checksum_of, end_value
from pamiq_jax.recording.log import LogWriter
from pamiq_jax.recording.reader import LOG, START, new_folder
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.events import Transition
from pamiq_jax.runtime.failures import describe_error
from pamiq_jax.runtime.programs import Ready
from pamiq_jax.runtime.rows import ChunkMetrics
from pamiq_jax.runtime.saved import Cut, collected, stored_value
from pamiq_jax.runtime.state import Cells, LearnerState, TrainReport
from pamiq_jax.trees import leaf_names, nbytes
from pamiq_jax.types import Params

_GATHER_SECONDS = 0.2
_GATHER_BYTES = 2**20
_MOST_BYTES = 2**28
_TICK_BYTES = 1_000
_SMALL_BYTES = 2**16
_SUM_SHARE = 0.02
_LOGGER = logging.getLogger("pamiq_jax")


class RecordingStatus(NamedTuple):
    """What has become of a recording.

    Attributes:
        ticks: training ticks that are in the log.
        bytes: size of the log.
        waiting_bytes: about what is still to be written.
        error: why it has ended before the run; "" if it has not.
    """

    ticks: int = 0
    bytes: int = 0
    waiting_bytes: int = 0
    error: str = ""

    @override
    def __str__(self) -> str:
        line = f"recording: {self.ticks:,} ticks, {self.bytes / 1e6:,.1f} MB"
        return f"{line}; it has ended: {self.error}" if self.error else line


class _Heard:
    """What a tick has been told so far."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.days: list[int] = []
        self.counts: list[CollectorCounts] = []
        self.drained: list[tuple[str, Chunk[Any]]] = []


class _TappedClock:
    """A clock that notes what it says."""

    def __init__(self, clock: Clock, heard: Callable[[], _Heard]) -> None:
        self.scale = clock.scale
        self._clock, self._heard = clock, heard

    def now(self) -> float:
        seconds = self._clock.now()
        self._heard().times.append(seconds)
        return seconds

    def second_of_day(self) -> int:
        second = self._clock.second_of_day()
        self._heard().days.append(second)
        return second


class _TappedCollector:
    """The side of a collector that the training thread sees, which notes what it says."""

    def __init__(self, name: str, collector: Collector[Any], heard: Callable[[], _Heard]) -> None:
        self._name, self._collector, self._heard = name, collector, heard

    @property
    def counts(self) -> CollectorCounts:
        counts = self._collector.counts
        self._heard().counts.append(counts)
        return counts

    def drain(self) -> Chunk[Any] | None:
        chunk = self._collector.drain()
        if chunk is not None:
            self._heard().drained.append((self._name, chunk))
        return chunk


class _Ticked(NamedTuple):
    """What the training thread leaves of a tick; the writer makes a `Tick` of it."""

    heard: _Heard
    report: TrainReport
    metrics: ChunkMetrics
    reasons: dict[str, str]
    is_frozen: bool
    size: int


class _Waiting(NamedTuple):
    """What is still to be written."""

    ticks: list[_Ticked]
    changes: list[tuple[int, str, Mapping[str, Any]]]
    transitions: list[tuple[int, Transition]]
    acted: list[tuple[str, int, int]]


def _size(drained: list[tuple[str, Chunk[Any]]]) -> int:
    """Return about how many bytes a tick takes while it waits."""
    return _TICK_BYTES + sum(leaf.nbytes for _, chunk in drained for leaf in jax.tree.leaves(chunk.records))


class Recorder:
    """Records one run. What is not written in time ends the recording, and nothing else.

    Args:
        directory: the run's.
        seed: of all randomness.
        on_error: told why a recording has ended before the run.
    """

    def __init__(self, directory: Path, seed: int, on_error: Callable[[Exception], None]) -> None:
        self.status = RecordingStatus()
        self._directory, self._seed, self._on_error = directory, seed, on_error
        self._heard = _Heard()
        self._changed = threading.Condition()
        self._waiting = _Waiting([], [], [], [])
        self._unsummed: list[tuple[int, Mapping[str, Params]]] = []
        self._bytes = 0
        self._tick = 0
        self._reasons: dict[str, str] = {}
        self._is_on = self._is_closed = False
        self._acted: dict[str, int] = {}
        self._sum_after = 0.0
        self._names: dict[str, list[str]] = {}
        self._collectors: Mapping[str, Collector[Any]] = {}
        self._rest: list[Drain] = []
        self._thread: threading.Thread | None = None

    # Called from the training thread.

    def begin(self, ready: Ready, learner: LearnerState, clock: Clock) -> tuple[Cells, Clock]:
        """Write where the run begins, and return the cells and the clock that the training ticks must use.

        Args:
            ready: the system.
            learner: the training side's first state.
            clock: the system's.

        Raises:
            RecordingError: it could not be written.
        """
        actors, now = ready.compiled.actors, clock.now()
        snapshot = ready.cells.store.latest
        cut = Cut(learner, actors, snapshot, collected(ready.cells.collectors), {}, dict.fromkeys(actors, now), now)
        system = ready.compiled.programs.system
        begin = Begin(
            self._seed,
            snapshot.version,
            tuple(system.trainers),
            tuple(system.buffers),
            tuple(system.interactions),
            time.time(),
            str(jax.devices()[0].device_kind),
            jax.__version__,
            ready.compiled.programs.faults.describe(),
            {name: schedule.chunk for name, schedule in system.trainers.items()},
        )
        try:
            folder = new_folder(self._directory)
            StateStore(folder / START).write(
                stored_value(cut), facts={"version": snapshot.version}, created_at=begin.created_at
            )
            log = LogWriter(folder / LOG)
            log.append(begin_value(begin))
        except OSError as error:
            raise RecordingError(f"{self._directory} can't be recorded to: {error}") from error
        self._is_on, self._collectors = True, ready.cells.collectors
        self._thread = threading.Thread(target=self._work, args=(log,), name="pamiq-recorder", daemon=True)
        self._thread.start()

        def heard() -> _Heard:
            return self._heard

        collectors = {
            name: _TappedCollector(name, collector, heard) for name, collector in ready.cells.collectors.items()
        }
        # The training ticks use no more of either than is tapped.
        return Cells(ready.cells.store, cast(Any, collectors)), cast(Any, _TappedClock(clock, heard))

    def ticked(
        self, cells: Cells, learner: LearnerState, report: TrainReport, metrics: ChunkMetrics, *, is_frozen: bool
    ) -> None:
        """Note a training tick.

        Args:
            cells: for the snapshot that it has published.
            learner: the state after it.
            report: what it did.
            metrics: those of the report, for whoever fetches them first.
            is_frozen: as given to it.
        """
        heard, self._heard = self._heard, _Heard()
        if not self._is_on:
            return
        reasons = {name: run.reason for name, run in learner.trainers.items() if self._reasons.get(name) != run.reason}
        self._reasons.update(reasons)
        ticked = _Ticked(heard, report, metrics, reasons, is_frozen, _size(heard.drained))
        with self._changed:
            if report.version is not None:
                params = cells.store.latest.params
                if self._unsummed and nbytes(dict(params)) > _SMALL_BYTES:
                    self._unsummed.pop()  # of several large ones only the newest: older ones can go
                self._unsummed.append((report.version, params))
            self._waiting.ticks.append(ticked)
            self._tick += 1
            self._bytes += ticked.size
            is_too_much = self._bytes > _MOST_BYTES
            if len(self._waiting.ticks) == 1 or self._bytes > _GATHER_BYTES:
                self._changed.notify()
        if is_too_much:
            self._stop_recording(f"more than {_MOST_BYTES >> 20} MiB wait to be written; the disk is too slow")

    def changed(self, trainer: str, values: Mapping[str, Any]) -> None:
        """Note that hyper-parameters were changed before the next tick."""
        plain = {
            name: value if type(value) in (int, float, bool) else np.array(value) for name, value in values.items()
        }
        with self._changed:
            if self._is_on:
                self._waiting.changes.append((self._tick, trainer, plain))

    # Called from the inference threads, and from those that make transitions.

    def acted(self, interaction: str, tick: int, version: int) -> None:
        """Note that an interaction acts with another version from a tick on."""
        with self._changed:
            if self._is_on:
                self._waiting.acted.append((interaction, tick, version))

    def noted(self, transition: Transition) -> None:
        """Note a transition."""
        with self._changed:
            if self._is_on:
                self._waiting.transitions.append((self._tick, transition))

    # Called by whoever ends the run.

    def close(self, acted: Mapping[str, int], timeout: float) -> bool:
        """Write what waits and the end, and return whether that was done in time. The workers' threads have ended.

        Called again, it only waits.

        Args:
            acted: how often each interaction has ticked.
            timeout: seconds.
        """
        if self._thread is None:
            return True
        if not self._is_closed:
            self._end(acted)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _end(self, acted: Mapping[str, int]) -> None:
        rest = [
            self._drain(name, Chunk(pending.records, counts.pending))
            for name, (pending, counts) in collected(self._collectors).items()
            if counts.pending
        ]
        with self._changed:
            self._acted, self._rest, self._is_closed = dict(acted), rest, True
            self._changed.notify()

    # The writer's own thread.

    def _work(self, log: LogWriter) -> None:
        first = 0
        try:
            while (waiting := self._next()) is not None:
                first = self._write(log, waiting, first)
            if self._is_on:
                log.append(end_value(End(first, self._acted, self._rest)))
                log.sync()
        except Exception as error:  # a full disk must stop nobody
            self._stop_recording(describe_error(error))
        finally:
            log.close()

    def _next(self) -> _Waiting | None:
        def is_urgent() -> bool:
            return self._is_closed or self._bytes > _GATHER_BYTES

        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or any(self._waiting))
            self._changed.wait_for(is_urgent, _GATHER_SECONDS)
            waiting, self._waiting = self._waiting, _Waiting([], [], [], [])
            return waiting if any(waiting) else None

    def _write(self, log: LogWriter, waiting: _Waiting, first: int) -> int:
        for ticked in waiting.ticks:
            ticked.metrics.start()
        ticks = [self._tick_of(ticked) for ticked in waiting.ticks]
        transitions = [
            (tick, made.machine, str(made.before), str(made.event), str(made.after))
            for tick, made in waiting.transitions
        ]
        batch = Batch(first, ticks, waiting.changes, transitions, waiting.acted, self._sums())
        written = log.append(batch_value(batch))
        size = sum(ticked.size for ticked in waiting.ticks)
        with self._changed:
            self._bytes -= size
            status = self.status
            self.status = status._replace(
                ticks=first + len(ticks), bytes=status.bytes + written, waiting_bytes=self._bytes
            )
        return first + len(ticks)

    def _tick_of(self, ticked: _Ticked) -> Tick:
        heard, report, error = ticked.heard, ticked.report, ticked.report.error
        return Tick(
            heard.times,
            heard.days,
            heard.counts,
            [self._drain(name, chunk) for name, chunk in heard.drained],
            ticked.is_frozen,
            report.trainer or "",
            -1 if report.version is None else report.version,
            "" if error is None else describe_error(error),
            ticked.reasons,
            ticked.metrics.numbers(),
        )

    def _drain(self, name: str, chunk: Chunk[Any]) -> Drain:
        names = self._names.setdefault(name, leaf_names(chunk.records))
        leaves = [leaf[: chunk.count] for leaf in jax.tree.leaves(chunk.records)]
        return Drain(name, chunk.count, dict(zip(names, leaves, strict=True)))

    def _sums(self) -> list[tuple[int, int]]:
        """Return checksums of published parameters, of large ones as often as that takes a small share of the time."""
        started = time.monotonic()
        with self._changed:
            unsummed, self._unsummed = self._unsummed, []
        is_large = any(nbytes(dict(params)) > _SMALL_BYTES for _, params in unsummed[:1])
        if is_large and started < self._sum_after and not self._is_closed:
            return []
        sums = [(version, checksum_of(params)) for version, params in unsummed]
        ended = time.monotonic()
        self._sum_after = ended + (ended - started) / _SUM_SHARE
        return sums

    def _stop_recording(self, reason: str) -> None:
        with self._changed:
            if not self._is_on:
                return
            self._is_on = False
            self._waiting, self._unsummed, self._bytes = _Waiting([], [], [], []), [], 0
            self._is_closed = True
            self._changed.notify()
        self.status = self.status._replace(error=reason, waiting_bytes=0)
        _LOGGER.error("the recording has ended before the run: %s", reason)
        self._on_error(RecordingError(f"the recording has ended before the run: {reason}"))
