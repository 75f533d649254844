"""What the demo notes down about each tick."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pamiq_jax.envs import EpisodeStatistics
from pamiq_jax.runtime import InferReport


class Point(NamedTuple):
    """One finished episode.

    Attributes:
        seconds: since the start, at its end.
        episode_return: its sum of rewards.
        mean_return: over the newest 100 finished episodes, this one included.
    """

    seconds: float
    episode_return: float
    mean_return: float


class Observed(NamedTuple):
    """What was seen so far.

    Attributes:
        statistics: of the episodes.
        ticks: times that the agent acted.
        environment_steps: steps taken in all environments together; resets are none.
        torn_reads: ticks whose snapshot had models of different training steps.
        version: of the newest snapshot that was acted with.
        staleness_seconds: its age then.
        first_action_seconds: since the start, when the agent first acted; None before.
        solved_seconds: since the start, when the task was solved; None before.
    """

    statistics: EpisodeStatistics
    ticks: int = 0
    environment_steps: int = 0
    torn_reads: int = 0
    version: int = 0
    staleness_seconds: float = 0.0
    first_action_seconds: float | None = None
    solved_seconds: float | None = None


class Recorder:
    """Is called after each tick, on the inference thread; others look at what it has left.

    One thread writes: `observed` is replaced by a new value each time, `curve` is only appended to.
    Once the task is solved only torn reads are counted on, so that the numbers are those of that moment.

    Args:
        num_envs: environments that are stepped together.
        solved_return: solved, when the mean over 100 finished episodes reaches it.
        clock: seconds from any origin; the time of creation is the start.

    Example:
        >>> recorder = Recorder(num_envs=1, solved_return=1.0, clock=lambda: 0.0)
        >>> flag = np.zeros(1, bool)
        >>> feedback = {"reward": np.ones(1), "terminated": ~flag, "truncated": flag, "autoreset": flag}
        >>> for tick in range(100):
        ...     recorder(InferReport(3, 0.001, 0.1, None, None, feedback, {"torn": np.bool_(False)}))
        >>> recorder.observed.solved_seconds, recorder.observed.torn_reads, len(recorder.curve)
        (0.0, 0, 100)
    """

    def __init__(self, num_envs: int, solved_return: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.observed = Observed(EpisodeStatistics.empty(num_envs))
        self.curve: list[Point] = []
        self._solved_return = solved_return
        self._clock = clock
        self._start = clock()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._start

    def __call__(self, report: InferReport) -> None:
        """Note one tick down.

        Args:
            report: of the tick.
        """
        before = self.observed
        torn_reads = before.torn_reads + int(report.extras["torn"])
        if before.solved_seconds is not None:
            self.observed = before._replace(torn_reads=torn_reads)
            return
        seconds = self.seconds()
        statistics = before.statistics.add(report.feedback)
        self._extend_curve(before.statistics, statistics, seconds)
        is_solved = statistics.is_full and statistics.mean >= self._solved_return
        autoreset = report.feedback["autoreset"]
        self.observed = Observed(
            statistics=statistics,
            ticks=before.ticks + 1,
            environment_steps=before.environment_steps + autoreset.size - int(np.count_nonzero(autoreset)),
            torn_reads=torn_reads,
            version=report.version,
            staleness_seconds=report.staleness_seconds,
            first_action_seconds=seconds if before.first_action_seconds is None else before.first_action_seconds,
            solved_seconds=seconds if is_solved else None,
        )

    def _extend_curve(self, before: EpisodeStatistics, after: EpisodeStatistics, seconds: float) -> None:
        finished = after.finished - before.finished
        if finished:
            self.curve.extend(Point(seconds, value, after.mean) for value in after.recent[-finished:])
