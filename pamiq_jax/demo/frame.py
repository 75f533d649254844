"""What the demo shows at one moment, as a value, and as one line of text."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from pamiq_jax.demo.cartpole import BUFFER, TRAINER
from pamiq_jax.demo.recorder import Observed, Point
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from pamiq_jax.runtime import Status, TrainerStatus

_RATE_WINDOW_SECONDS = 2.0


class Frame(NamedTuple):
    """One moment of the demo.

    Attributes:
        seed: of the run.
        seconds: since launch.
        limit_seconds: when it ends at the latest.
        status: of the system.
        observed: of the episodes.
        curve: finished episodes.
        environment_rate: steps per second, lately.
        train_rate: training steps per second, lately.
    """

    seed: int
    seconds: float
    limit_seconds: float
    status: Status
    observed: Observed
    curve: Sequence[Point]
    environment_rate: float
    train_rate: float

    @property
    def trainer(self) -> TrainerStatus | None:
        """The trainer, once there is one."""
        return self.status.trainers.get(TRAINER)

    @property
    def dropped(self) -> int:
        """Records lost between the threads."""
        return sum(buffer.dropped for buffer in self.status.buffers.values())

    @property
    def is_training(self) -> bool:
        """Whether the trainer is in a run."""
        return self.trainer is not None and self.trainer.phase not in (TrainerPhase.WAITING, TrainerPhase.STOPPED)


class Rates:
    """Counts per second over the last two seconds.

    Example:
        >>> rates = Rates()
        >>> rates.add(0.0, 0, 0)
        (0.0, 0.0)
        >>> rates.add(0.5, 600, 5)
        (1200.0, 10.0)
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def add(self, seconds: float, environment_steps: int, train_steps: int) -> tuple[float, float]:
        """Return both rates as of now.

        Args:
            seconds: now.
            environment_steps: in all.
            train_steps: in all.
        """
        self._samples.append((seconds, environment_steps, train_steps))
        while len(self._samples) > 2 and self._samples[1][0] < seconds - _RATE_WINDOW_SECONDS:
            self._samples.popleft()
        before, environment_before, train_before = self._samples[0]
        passed = seconds - before
        if passed <= 0:
            return 0.0, 0.0
        return (environment_steps - environment_before) / passed, (train_steps - train_before) / passed


def training_reason(frame: Frame) -> str:
    """Return what the trainer does or waits for, in words.

    The trainer sleeps until enough records are on their way, so those count as well as the ones it has seen.

    Args:
        frame: the moment.
    """
    trainer = frame.trainer
    if trainer is None:
        return "until everything is compiled"
    if trainer.phase is TrainerPhase.STOPPED:
        return f"after {trainer.runs} runs"
    if trainer.phase is not TrainerPhase.WAITING:
        return trainer.reason
    pending = frame.status.buffers[BUFFER].pending
    return f"{trainer.reason}, {pending} more on their way"


def plain_line(frame: Frame) -> str:
    """Return the moment as one line of text.

    Args:
        frame: the moment.
    """
    status, statistics = frame.status, frame.observed.statistics
    start = f"{frame.seconds:5.1f} s  {status.phase:<9}"
    if frame.trainer is None or not frame.observed.ticks:
        waiting_for = status.errors[-1] if status.phase is SystemPhase.FAILED and status.errors else "not acting yet"
        return f"{start}  {waiting_for}"
    latency = status.inference.latency
    parts = (
        f"return {statistics.mean:5.1f} of {statistics.finished} episodes",
        f"environment {frame.environment_rate:6,.0f} steps/s",
        f"training {frame.train_rate:4.1f} steps/s",
        f"version {status.version} ({frame.observed.staleness_seconds:.2f} s old)",
        f"inference p50 {latency.percentile(50) * 1000:.2f} p99 {latency.percentile(99) * 1000:.2f} ms",
        f"{frame.dropped} dropped",
        f"trainer {frame.trainer.phase}: {training_reason(frame)}",
    )
    return "  ".join((start, *parts))
