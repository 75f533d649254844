"""The returns of finished episodes, counted as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class EpisodeStatistics(NamedTuple):
    """What an agent has reached so far, in one or several environments at once.

    Adding a tick's feedback returns new statistics; nothing is changed in place.

    Attributes:
        running: `float64[N]`, the returns of the episodes under way; read only.
        recent: returns of the newest finished episodes, at most `window`, oldest first.
        finished: episodes finished so far.
        best_mean: the highest mean over a full window so far; NaN before the window is full once.
        window: how many finished episodes a mean is over.

    Example:
        >>> statistics = EpisodeStatistics.empty(num_envs=2, window=2)
        >>> for terminated in ([False, False], [True, False], [False, True]):
        ...     feedback = {"reward": np.ones(2), "terminated": np.array(terminated), "truncated": np.zeros(2, bool)}
        ...     statistics = statistics.add(feedback)
        >>> statistics.recent, statistics.mean, statistics.running.tolist()
        ((2.0, 3.0), 2.5, [1.0, 0.0])
    """

    running: np.ndarray[Any, np.dtype[np.float64]]
    recent: tuple[float, ...] = ()
    finished: int = 0
    best_mean: float = math.nan
    window: int = 100

    @staticmethod
    def empty(num_envs: int = 1, window: int = 100) -> EpisodeStatistics:
        """Return statistics of nothing.

        Args:
            num_envs: environments that are stepped together.
            window: how many finished episodes a mean is over.
        """
        return EpisodeStatistics(np.zeros(num_envs), window=window)

    @property
    def mean(self) -> float:
        """The mean return over the newest finished episodes, however few; NaN if there are none."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    @property
    def is_full(self) -> bool:
        """Whether as many episodes are finished as the window holds."""
        return len(self.recent) == self.window

    def add(self, feedback: Mapping[str, Any]) -> EpisodeStatistics:
        """Return the statistics after one more tick.

        Args:
            feedback: with "reward", "terminated" and "truncated", `[]` or `[N]` each.
        """
        running = self.running + np.asarray(feedback["reward"])
        ended = np.atleast_1d(np.logical_or(feedback["terminated"], feedback["truncated"]))
        if not ended.any():
            return self._replace(running=running)
        statistics = self
        for episode_return in running[ended].tolist():
            statistics = statistics._finish(episode_return)
        return statistics._replace(running=np.where(ended, 0.0, running))

    def _finish(self, episode_return: float) -> EpisodeStatistics:
        recent = (*self.recent, episode_return)[-self.window :]
        statistics = self._replace(recent=recent, finished=self.finished + 1)
        if not statistics.is_full:
            return statistics
        return statistics._replace(best_mean=float(np.fmax(self.best_mean, statistics.mean)))
