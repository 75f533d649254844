"""What a running system says about itself, as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, override

from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from pamiq_jax.metrics import LatencyHistogram


class TrainerStatus(NamedTuple):
    """A trainer, as of now.

    Attributes:
        phase: of its lifecycle.
        reason: why it runs, or what it waits for.
        runs: runs started.
        steps: steps done in all.
        step_in_run: steps done of the run under way.
        metrics: of the last chunk.
    """

    phase: TrainerPhase
    reason: str
    runs: int
    steps: int
    step_in_run: int
    metrics: Mapping[str, float]


class BufferStatus(NamedTuple):
    """A buffer and the collector before it, as of now.

    Attributes:
        size: records in the buffer.
        capacity: the most it holds.
        seen: records collected, dropped ones included.
        dropped: records lost because too many were waiting.
        pending: records waiting to be added.
    """

    size: int
    capacity: int
    seen: int
    dropped: int
    pending: int


class InferenceStatus(NamedTuple):
    """The acting side, as of now.

    Attributes:
        ticks: actions taken.
        version: of the snapshot used last.
        latency: from observation to action.
        staleness: age of the snapshot that was used.
        deadline_misses: ticks left out because the one before took longer than the interval.
    """

    ticks: int = 0
    version: int = 0
    latency: LatencyHistogram = LatencyHistogram.empty()
    staleness: LatencyHistogram = LatencyHistogram.empty()
    deadline_misses: int = 0


class Status(NamedTuple):
    """A launched system, as of now. Print it to read it.

    Attributes:
        phase: of the system.
        inference: the acting side.
        compiles_after_ready: programs compiled by the threads although all should have been before.
        wakeups: how often each thread's sleep was ended.
        metrics_dropped: metric rows lost because the writer was slower than the trainers.
        errors: what went wrong so far.
        seconds: since it became ready, pauses not counted.
        version: the newest published version.
        trainers: by name.
        buffers: by name.
    """

    phase: SystemPhase
    inference: InferenceStatus
    compiles_after_ready: int
    wakeups: Mapping[str, int]
    metrics_dropped: int
    errors: tuple[str, ...]
    seconds: float = 0.0
    version: int = 0
    trainers: Mapping[str, TrainerStatus] = MappingProxyType({})
    buffers: Mapping[str, BufferStatus] = MappingProxyType({})

    @override
    def __str__(self) -> str:
        inference = self.inference
        lines = [f"{self.phase}, {self.seconds:.1f} s since ready, version {self.version}"]
        if inference.ticks:
            p50, p99 = (inference.latency.percentile(percent) * 1000 for percent in (50, 99))
            lines.append(f"inference: {inference.ticks:,} ticks, latency p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        for name, trainer in self.trainers.items():
            metrics = ", ".join(f"{key} {value:.4g}" for key, value in trainer.metrics.items())
            lines.append(
                f"trainer {name}: {trainer.phase}, {trainer.steps:,} steps ({trainer.reason}) {metrics}".rstrip()
            )
        for name, buffer in self.buffers.items():
            lines.append(
                f"buffer {name}: {buffer.size:,} of {buffer.capacity:,}, "
                f"{buffer.seen:,} seen, {buffer.dropped:,} dropped"
            )
        return "\n".join([*lines, *(f"error: {error}" for error in self.errors)])
