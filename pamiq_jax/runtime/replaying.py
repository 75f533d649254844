"""Do again, in one thread, what the training thread of a recorded run did."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, override

import jax
import numpy as np

from pamiq_jax.arguments import checked_integer
from pamiq_jax.checkpoint import match
from pamiq_jax.data import Chunk, CollectorCounts, Record
from pamiq_jax.errors import InvalidValueError, RecordingError
from pamiq_jax.publishing import Snapshot
from pamiq_jax.recording import Recording, TickEntry
from pamiq_jax.recording.entries import Drain, Tick, checksum_of
from pamiq_jax.recording.reader import START, recorded_numbers
from pamiq_jax.runtime.clock import VirtualClock
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.failures import describe_error
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
from pamiq_jax.runtime.origin import Origin, begin
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.rollback import with_changed_good
from pamiq_jax.runtime.rows import floats
from pamiq_jax.runtime.state import Cells, LearnerState, TrainReport
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.train import train_tick
from pamiq_jax.runtime.tuning import with_chunks
from pamiq_jax.trainer import set_hyperparameters
from pamiq_jax.trees import zeros_of
from pamiq_jax.types import Metrics

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")


class Difference(NamedTuple):
    """Where a replay first did something else than the run that was recorded.

    Attributes:
        tick: number of the training tick in the recording.
        seconds: on the run's clock.
        what: what differs.
        recorded: what the live run did.
        replayed: what the replay did.
    """

    tick: int
    seconds: float
    what: str
    recorded: Any
    replayed: Any

    @override
    def __str__(self) -> str:
        return (
            f"tick {self.tick}, {self.seconds:.3f} s: {self.what} was {self.recorded!r} in the recorded run, and is "
            f"{self.replayed!r} in the replay"
        )


class ReplayResult(NamedTuple):
    """What a recorded run was, as far as it was replayed.

    Attributes:
        learner: the training side's last state.
        snapshot: the newest one.
        metrics: `(trainer, metrics)` of each chunk, in order.
        ticks: how many training ticks were done.
        difference: where it first did something else than the live run; None if it never did.
        checked_version: the newest version whose parameters were compared with the live run's, by their checksum; what
            came after it agrees in all that is compared at each tick. -1 if there was none.
        damage: where the recording is cut off, as it is after a kill, or damaged; "" if it is whole so far.
        is_complete: whether the replay has come to the end of a run that was stopped, and not killed.
        remarks: what was not the same and need not be, a line each: the address of an object in an error's message.
    """

    learner: LearnerState
    snapshot: Snapshot
    metrics: tuple[tuple[str, Metrics], ...]
    ticks: int
    difference: Difference | None
    checked_version: int
    damage: str
    is_complete: bool
    remarks: tuple[str, ...] = ()


def replay(
    directory: str | os.PathLike[str],
    system: System,
    *,
    number: int | None = None,
    until: int | None = None,
    faults: FaultPolicy = FAIL_FAST,
) -> ReplayResult:
    """Return what a live run was that was launched with `record=True`, computed again from its recording.

    On the same kind of device, with the same versions of JAX and of the trainers' code, states and metrics are those of
    the live run, bit for bit. Where something differs the replay stops and says so: the trainers' code or its
    randomness has changed, or draws on something else than state, batch and key. Nobody acts: agents and
    environments are not called. Functions cannot be stored, so the system must be built again.

    Args:
        directory: of the run.
        system: what was launched; its chunks have the lengths that were recorded.
        number: which launch, of a run that was resumed; None for the newest, or the newest that can have published
            `until`. One that was killed before it had begun is passed over.
        until: stop as soon as this version is published; None goes to the end.
        faults: as it was given to `launch`.

    Raises:
        RecordingError: there is no recording, or it ends before `until`.
        StateMismatchError: the system is another than the one that was recorded.
        InvalidValueError: `until` is before the recording, or `faults` is another policy than it was recorded under.

    Example:
        >>> import tempfile, jax.numpy as jnp, optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(100, example=0.0)},
        ...     trainers={"t": pj.Schedule(trainer, data="x", batch_size=4, when=pj.min_new(2))},
        ... )
        >>> directory = tempfile.mkdtemp()
        >>> with pj.launch(system, directory=directory, record=True) as run:
        ...     kept = [run.collect("x", value) for value in (1.0, 3.0)]
        ...     snapshot = run.wait_for_version(1, timeout=60)
        >>> replayed = replay(directory, system)
        >>> replayed.difference, bool(replayed.snapshot.params["m"] == snapshot.params["m"])
        (None, True)
    """
    if until is not None:
        checked_integer("replay(until)", until, 0)
    if not isinstance(cast(Any, faults), FaultPolicy):
        raise InvalidValueError("replay(faults)", faults, "a FaultPolicy", "pass the `faults=` that `launch` was given")
    recording = _find(directory, number, until)
    if (policy := faults.describe()) != recording.begin.faults:
        recorded = f"{recording.begin.faults}, as it was launched"
        raise InvalidValueError("replay(faults)", policy, recorded, "pass the `faults=` that `launch` was given")
    lengths = recording.begin.chunk_steps
    fitting = {name for name, schedule in system.trainers.items() if schedule.steps % lengths.get(name, 1) == 0}
    system = with_chunks(system, {name: lengths[name] for name in lengths if name in fitting})
    compiled = compile_system(system, seed=recording.begin.seed, donates=False, faults=faults)
    clock = VirtualClock()
    begun = begin(compiled, Origin(recording.directory / START), clock)
    replayed = _Replay(begun.ready.compiled, begun.ready.cells)
    if until is not None and until < recording.begin.version:
        raise InvalidValueError("replay(until)", until, f"at least {recording.begin.version}, where it begins")
    is_there = until == recording.begin.version
    for entry in () if is_there else recording.ticks():
        replayed.do(entry)
        if replayed.difference is not None or (until is not None and replayed.version >= until):
            is_there = True
            break
    if not is_there:
        replayed.change(recording.last_changes)
    if until is not None and not is_there:
        ends = f"{recording.directory} ends at version {replayed.version}"
        raise RecordingError(f"{ends}, expected version {until} in it; {recording.damage or 'the run ended there'}")
    return ReplayResult(
        replayed.learner,
        replayed.cells.store.latest,
        tuple(replayed.metrics),
        replayed.ticks,
        replayed.difference,
        replayed.checked_version,
        recording.damage,
        recording.is_complete and not is_there,
        tuple(replayed.remarks),
    )


def _find(directory: str | os.PathLike[str], number: int | None, until: int | None) -> Recording:
    recording = Recording(directory, number)
    if number is not None or until is None:
        return recording
    for older in reversed([each for each in recorded_numbers(Path(directory)) if each < recording.number]):
        if recording.begin.version <= until:
            break
        with contextlib.suppress(RecordingError):  # killed before it had begun
            recording = Recording(directory, older)
    return recording


class _Told:
    """Clock and collectors that say again what they said."""

    scale = 1.0

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self.problem = ""
        self._times: Iterator[float] = iter(())
        self._days: Iterator[int] = iter(())
        self._counts: Iterator[tuple[int, int, int]] = iter(())
        self._drains: Iterator[Drain] = iter(())
        self.seconds = 0.0

    def begin(self, tick: Tick) -> None:
        self._times, self._days = iter(tick.times), iter(tick.days)
        self._counts, self._drains = iter(tick.counts), iter(tick.drains)
        self.problem = ""

    def end(self) -> str:
        """Return what the tick has asked for and the live one had not, or the other way round; "" if nothing."""
        left = {"the time": self._times, "the time of day": self._days, "counts": self._counts, "records": self._drains}
        for name, values in left.items():
            if not self.problem and next(values, None) is not None:
                self.problem = f"{name}, less often"
        return self.problem

    def now(self) -> float:
        self.seconds = self._next(self._times, "the time", self.seconds)
        return self.seconds

    def second_of_day(self) -> int:
        return self._next(self._days, "the time of day", 0)

    def counts(self) -> CollectorCounts:
        return CollectorCounts(*self._next(self._counts, "counts", (0, 0, 0)))

    def drain(self, buffer: str) -> Chunk[Any] | None:
        drain = self._next(self._drains, "records", None)
        if drain is None:
            return None
        rows = self._compiled.programs.system.rows(buffer)
        form = zeros_of(self._compiled.record_form(drain.buffer), drain.rows)
        records: Record[Any] = match(form, drain.leaves)[0]

        def padded(leaf: Any) -> np.ndarray[Any, Any]:
            result = np.zeros((rows, *leaf.shape[1:]), leaf.dtype)
            result[: drain.rows] = leaf
            return result

        return Chunk(jax.tree.map(padded, records), drain.rows)

    def _next[T](self, values: Iterator[T], name: str, otherwise: T) -> T:
        # It is no exception: within a trainer's run that would count as the trainer's own.
        for value in values:
            return value
        self.problem = self.problem or f"{name}, more often"
        return otherwise


class _ToldCollector(NamedTuple):
    """One buffer's collector."""

    told: _Told
    buffer: str

    @property
    def counts(self) -> CollectorCounts:
        return self.told.counts()

    def drain(self) -> Chunk[Any] | None:
        return self.told.drain(self.buffer)


class _Replay:
    """The values of a replay, from tick to tick."""

    def __init__(self, compiled: Compiled, cells: Cells) -> None:
        self._told = _Told(compiled)
        self._programs = compiled.programs
        collectors = {name: _ToldCollector(self._told, name) for name in cells.collectors}
        self.cells = Cells(cells.store, cast(Any, collectors))
        self.learner = compiled.learner
        self.metrics: list[tuple[str, Metrics]] = []
        self.ticks = 0
        self.difference: Difference | None = None
        self._reasons: dict[str, str] = {}
        self._sums: dict[int, int] = {}
        self.checked_version = -1
        self.remarks: list[str] = []

    @property
    def version(self) -> int:
        return self.cells.store.latest.version

    def change(self, changes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Change hyper-parameters, as the live run did before the next tick or its end."""
        for trainer, values in changes:
            run = self.learner.trainers[trainer]
            state = set_hyperparameters(run.state, **values)
            self.learner = self.learner.with_trainer(trainer, with_changed_good(run, state, values))

    def do(self, entry: TickEntry) -> None:
        self.change(entry.changes)
        self._told.begin(entry.tick)
        self.learner, report = train_tick(
            self._programs,
            self.learner,
            self.cells,
            cast(Any, self._told),
            is_frozen=entry.tick.is_frozen,
            linger=lambda trainer, metrics: None,  # so a failure is found out in the same tick as in the live run
        )
        self.ticks += 1
        if report.trainer is not None and report.error is None:
            self.metrics.append((report.trainer, report.metrics))
        self._sums.update(entry.sums)
        for what, recorded, replayed in self._compared(entry.tick, report):
            if recorded != replayed and self._differs_by_addresses(recorded, replayed):
                self.remarks.append(f"tick {entry.number}: {what} names another address: {replayed!r}")
            elif recorded != replayed:
                self.difference = Difference(entry.number, self._told.seconds, what, recorded, replayed)
                return

    @staticmethod
    def _differs_by_addresses(recorded: Any, replayed: Any) -> bool:
        """Return whether two errors, or reasons, are the same but for where an object that they name lay in memory."""
        was, is_now = str(recorded), str(replayed)
        return _ADDRESS.search(was) is not None and _ADDRESS.sub("", was) == _ADDRESS.sub("", is_now)

    def _compared(self, tick: Tick, report: TrainReport) -> Iterator[tuple[str, Any, Any]]:
        """Yield what must be equal: its name, what it was and what it is."""
        yield "the trainer", tick.trainer, report.trainer or ""
        yield "what it asked for", "", self._told.end()
        error = "" if report.error is None else describe_error(report.error)
        yield "the error", tick.error, error
        metrics = floats(report.metrics)
        if _bits(tick.metrics) != _bits(metrics):  # NaN is not equal to itself
            yield "the metrics", dict(tick.metrics), metrics
        yield "the version", tick.version, -1 if report.version is None else report.version
        reasons = {name: run.reason for name, run in self.learner.trainers.items()}
        changed = {name: reason for name, reason in reasons.items() if self._reasons.get(name) != reason}
        self._reasons = reasons
        yield "why trainers run or wait", dict(tick.reasons), changed
        if report.version is not None and (recorded := self._sums.pop(report.version, None)) is not None:
            self.checked_version = report.version
            yield f"the checksum of version {report.version}", recorded, checksum_of(self.cells.store.latest.params)


def _bits(metrics: Mapping[str, Any]) -> tuple[Sequence[str], bytes]:
    return tuple(metrics), np.array(list(metrics.values()), np.float64).tobytes()
