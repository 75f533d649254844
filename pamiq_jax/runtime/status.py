"""What a running system says about itself, as one immutable value."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, override

from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from pamiq_jax.metrics import LatencyCounter, LatencyHistogram
from pamiq_jax.runtime.cards import short_metrics, status_html
from pamiq_jax.runtime.interaction import AGENT
from pamiq_jax.runtime.rows import floats
from pamiq_jax.runtime.save_status import SaveStatus
from pamiq_jax.runtime.state import Cells, LearnerState
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.watchdog import Stuck
from pamiq_jax.types import Metrics

if TYPE_CHECKING:
    from pamiq_jax.runtime.recorder import RecordingStatus


class WaitResult(StrEnum):
    """Why `Run.wait` came back."""

    TIMEOUT = "timeout"
    """The time is over; the system goes on."""
    ENDED = "ended"
    """The system was stopped, or has failed; `run.status` says which."""
    INTERRUPTED = "interrupted"
    """Ctrl-C, or a notebook's interrupt: the system has been stopped, the interpreter goes on."""


class TrainerStatus(NamedTuple):
    """A trainer, as of now.

    Attributes:
        phase: of its lifecycle.
        reason: why it runs, or what it waits for.
        runs: runs started.
        steps: steps done in all.
        step_in_run: steps done of the run under way.
        metrics: of the last chunk.
        restarts: failures in a row after which it begins anew.
        rollbacks: the same in all.
        error: the last failure in a row in words.
        steps_per_chunk: steps in one compiled program.
        chunk_reason: why so many.
    """

    phase: TrainerPhase
    reason: str
    runs: int
    steps: int
    step_in_run: int
    metrics: Mapping[str, float]
    restarts: int = 0
    rollbacks: int = 0
    error: str = ""
    steps_per_chunk: int = 0
    chunk_reason: str = ""


class BufferStatus(NamedTuple):
    """A buffer and the collector before it, as of now.

    Attributes:
        size: records in the buffer.
        capacity: the most it holds.
        seen: records collected, dropped ones included.
        dropped: records lost because too many were waiting.
        pending: records waiting to be added.
        inserted: records added to the buffer.
        sampled: records taken out for training by all trainers, repeats included.
    """

    size: int
    capacity: int
    seen: int
    dropped: int
    pending: int
    inserted: int
    sampled: int


_NOTHING = LatencyHistogram.empty()


class Meanwhile(StrEnum):
    """What else a system does while an agent acts; what comes later here goes before what comes earlier."""

    IDLE = "idle"
    TRAINING = "training"
    PUBLISHING = "publishing"
    """A new version came during the tick."""
    SAVING = "saving"


class InferenceStatus(NamedTuple):
    """One interaction, or all together, as of now.

    Attributes:
        ticks: actions taken.
        version: of the snapshot used last.
        latency_while: from observation to action, by what else went on at its end; what never went on is not
            in it. `latency` is all of it together.
        staleness: age of the snapshot that was used.
        deadline_misses: ticks left out because the one before took longer than the interval.
        fallbacks: ticks in which the fallback acted, because the policy was late.
    """

    ticks: int = 0
    version: int = 0
    latency_while: Mapping[Meanwhile, LatencyHistogram] = MappingProxyType({})
    staleness: LatencyHistogram = LatencyHistogram.empty()
    deadline_misses: int = 0
    fallbacks: int = 0

    @property
    def latency(self) -> LatencyHistogram:
        """From observation to action, whatever else went on."""
        return functools.reduce(LatencyHistogram.merge, self.latency_while.values(), LatencyHistogram.empty())

    def merge(self, other: InferenceStatus) -> InferenceStatus:
        """Return both as one; the version is the newer one."""
        return InferenceStatus(
            self.ticks + other.ticks,
            max(self.version, other.version),
            {
                meanwhile: self.latency_while.get(meanwhile, _NOTHING).merge(
                    other.latency_while.get(meanwhile, _NOTHING)
                )
                for meanwhile in Meanwhile
                if meanwhile in self.latency_while or meanwhile in other.latency_while
            },
            self.staleness.merge(other.staleness),
            self.deadline_misses + other.deadline_misses,
            self.fallbacks + other.fallbacks,
        )


class InferenceTally:
    """What an inference thread counts, in place; it alone writes. The status is of the same moment, within a tick.

    Attributes:
        ticks: actions taken.
        version: of the snapshot used last.
        deadline_misses: ticks left out.
        fallbacks: ticks in which the fallback acted.

    Example:
        >>> tally = InferenceTally()
        >>> tally.acted(0.002, 0.1, Meanwhile.TRAINING)
        >>> {meanwhile.value: histogram.total for meanwhile, histogram in tally.status.latency_while.items()}
        {'training': 1}
    """

    def __init__(self) -> None:
        self.ticks = self.version = self.deadline_misses = self.fallbacks = 0
        self._latency_while = {meanwhile: LatencyCounter() for meanwhile in Meanwhile}
        self._staleness = LatencyCounter()

    def acted(self, latency_seconds: float, staleness_seconds: float, meanwhile: Meanwhile) -> None:
        """Count one more tick.

        Args:
            latency_seconds: from its observation to its action.
            staleness_seconds: age of the snapshot that was used.
            meanwhile: what else went on.
        """
        self._latency_while[meanwhile].add(latency_seconds)
        self._staleness.add(staleness_seconds)
        self.ticks += 1

    @property
    def status(self) -> InferenceStatus:
        """What was counted so far. Called from any thread."""
        latencies = {meanwhile: counter.histogram for meanwhile, counter in self._latency_while.items()}
        return InferenceStatus(
            self.ticks,
            self.version,
            {meanwhile: latency for meanwhile, latency in latencies.items() if latency.total},
            self._staleness.histogram,
            self.deadline_misses,
            self.fallbacks,
        )


class Status(NamedTuple):
    """A launched system, as of now. Print it to read it.

    Attributes:
        phase: of the system.
        interactions: by name; `inference` is all of them together.
        compiles_after_ready: programs compiled by the threads although all should have been before.
        wakeups: how often each thread's sleep was ended.
        metrics_dropped: metric rows lost because the writer was slower than the trainers, or the disk took none.
        errors: what went wrong so far.
        saves: what has become of the saves.
        seconds: since it became ready, pauses not counted.
        version: the newest published version.
        trainers: by name.
        buffers: by name.
        stuck: the threads that are in one thing for too long, see `Deadlines`.
        recording: what has become of the recording; None if there is none.
    """

    phase: SystemPhase
    interactions: Mapping[str, InferenceStatus]
    compiles_after_ready: int
    wakeups: Mapping[str, int]
    metrics_dropped: int
    errors: tuple[str, ...]
    saves: SaveStatus = SaveStatus()
    seconds: float = 0.0
    version: int = 0
    trainers: Mapping[str, TrainerStatus] = MappingProxyType({})
    buffers: Mapping[str, BufferStatus] = MappingProxyType({})
    stuck: tuple[Stuck, ...] = ()
    recording: RecordingStatus | None = None

    def _repr_html_(self) -> str:
        return status_html(self)

    @property
    def inference(self) -> InferenceStatus:
        """All interactions together."""
        return functools.reduce(InferenceStatus.merge, self.interactions.values(), InferenceStatus())

    @override
    def __str__(self) -> str:
        lines = [f"{self.phase}, {self.seconds:.1f} s since ready, version {self.version}"]
        for name, inference in self.interactions.items():
            if inference.ticks:
                lines += _inference_lines("inference" if name == AGENT else f"inference {name}", inference)
        for name, trainer in self.trainers.items():
            metrics = short_metrics(trainer.metrics)
            steps = f"{trainer.steps:,} steps"
            if trainer.rollbacks:
                steps += f", {trainer.rollbacks:,} rollback{'s' * (trainer.rollbacks > 1)}"
            lines.append(f"trainer {name}: {trainer.phase}, {steps} ({trainer.reason}) {metrics}".rstrip())
        for name, buffer in self.buffers.items():
            lines.append(
                f"buffer {name}: {buffer.size:,} of {buffer.capacity:,}, "
                f"{buffer.seen:,} seen, {buffer.dropped:,} dropped"
            )
        if self.saves != SaveStatus():
            lines.append(_saves_line(self.saves))
        if self.recording is not None:
            lines.append(str(self.recording))
        lines += [f"stuck: {stuck}" for stuck in self.stuck]
        return "\n".join([*lines, *(f"error: {error}" for error in self.errors)])


def _inference_lines(name: str, inference: InferenceStatus) -> list[str]:
    """Return a line for all ticks, and one for what else went on meanwhile, if that was not always the same."""
    line = f"{name}: {inference.ticks:,} ticks, latency {_percentiles(inference.latency)}"
    counts = {"left out": inference.deadline_misses, "by the fallback": inference.fallbacks}
    line += "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    if len(inference.latency_while) < 2:
        return [line]
    return [
        line,
        *(
            f"  while {meanwhile}: {inference.latency_while[meanwhile].total:,} ticks, "
            f"{_percentiles(inference.latency_while[meanwhile])}"
            for meanwhile in Meanwhile
            if meanwhile in inference.latency_while
        ),
    ]


def _percentiles(latency: LatencyHistogram) -> str:
    p50, p99, p999 = latency.percentiles_ms
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {p999:.2f} ms"


def _saves_line(saves: SaveStatus) -> str:
    line = f"saves: {saves.written:,} written"
    if saves.newest is not None:
        line += f", the newest is number {saves.newest.number} of version {saves.newest.facts.get('version')}"
    counts = {"failed": saves.failed, "skipped": saves.skipped}
    line += "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    return f"{line}; the last failed: {saves.error}" if saves.error else line


def trainer_statuses(
    system: System, learner: LearnerState, phases: Mapping[str, TrainerPhase], metrics: Mapping[str, Metrics]
) -> dict[str, TrainerStatus]:
    """Return where the trainers are, by name.

    Args:
        system: the system.
        learner: the training side's state.
        phases: of the trainers, which may be newer than the state.
        metrics: of each trainer's last chunk.
    """
    return {
        name: TrainerStatus(
            phase=phases[name],
            reason=run.reason,
            runs=run.runs,
            steps=run.steps,
            step_in_run=run.chunk * system.trainers[name].chunk,
            steps_per_chunk=system.trainers[name].chunk,
            chunk_reason=system.trainers[name].why_chunk,
            metrics=floats(metrics[name]),
            restarts=run.faults.restarts,
            rollbacks=run.faults.rollbacks,
            error=run.faults.error,
        )
        for name, run in learner.trainers.items()
    }


def buffer_statuses(system: System, cells: Cells, learner: LearnerState) -> dict[str, BufferStatus]:
    """Return what has become of the records, by buffer name.

    Args:
        system: the system.
        cells: for what was collected.
        learner: the training side's state, for what was added and drawn.
    """
    statuses: dict[str, BufferStatus] = {}
    for name, collector in cells.collectors.items():
        seen, dropped, pending = collector.counts
        capacity, inserted = system.buffers[name].capacity, learner.buffers[name].inserted
        sampled = sum(
            source.batch_size * learner.trainers[trainer].steps
            for trainer, schedule in system.trainers.items()
            for source in schedule.sources.values()
            if source.buffer == name
        )
        size = learner.buffers[name].size
        statuses[name] = BufferStatus(size, capacity, seen, dropped, pending, inserted, sampled)
    return statuses
