"""How the training thread waits for a chunk: not quite to its end, so that the device gets the next one in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import jax

from pamiq_jax.types import Metrics

MOST_SECONDS = 0.012
LEAD_SECONDS = 0.002
"""The next chunk is handed over so long before the end: a pause waits so much longer."""
_LATE = 0.9


def longest_chunk(budget_seconds: float) -> float:
    """Return how long a chunk may take so that whoever waits for the device waits no longer than a budget.

    It may have to wait for a chunk that has just been handed over, and for the rest of the one before it.

    Args:
        budget_seconds: how long it may wait.

    Example:
        >>> [round(longest_chunk(milliseconds / 1000) * 1000, 2) for milliseconds in (1, 5, 20, 100)]
        [0.5, 3.0, 20.0, 100.0]
    """
    if budget_seconds > MOST_SECONDS + LEAD_SECONDS:
        return budget_seconds
    return max(budget_seconds / 2, budget_seconds - LEAD_SECONDS)


class Lingering:
    """Waits within a training tick until its chunk is nearly computed, or a command comes.

    Between two chunks the host has some work, for which the device would stand still. So the next chunk is handed over
    shortly before the present one ends; how long that takes is known from those before. Chunks that are long beside
    such work are waited for to their end. One thread's: the training thread's.

    Args:
        doze: sleeps so many seconds, less if a command comes.
        now: seconds.

    Example:
        >>> import jax.numpy as jnp
        >>> lingering, dozed = Lingering(lambda seconds: dozed.append(round(seconds, 4)), now=lambda: next(times)), []
        >>> times = iter([0.0, 0.010, 0.011, 0.021])  # the first chunk is waited for: it takes 10 ms
        >>> for _ in range(3):
        ...     lingering("t", {"loss": jnp.ones(())})
        >>> dozed  # it was over already each time, which the next one reckons with
        [0.0081, 0.0071]
    """

    def __init__(self, doze: Callable[[float], Any], now: Callable[[], float] = time.perf_counter) -> None:
        self._doze, self._now = doze, now
        self._seconds: dict[str, float] = {}
        self._last = ("", 0.0)
        self._was_late = False
        self._metrics: Metrics = {}

    def __call__(self, trainer: str, metrics: Metrics) -> None:
        """Wait for a chunk that has just begun, the one before being computed.

        Args:
            trainer: whose.
            metrics: the chunk's, maybe not computed yet.
        """
        began, (last, last_began) = self._now(), self._last
        self._last, self._metrics = (trainer, began), metrics
        known = self._seconds.get(trainer)
        if known is not None and last == trainer:
            self._seconds[trainer] = known = self._learned(known, began - last_began)
        self._was_late = False
        if known is None or known > MOST_SECONDS:
            self.finish()
            self._seconds[trainer] = self._now() - began
        elif (seconds := known - LEAD_SECONDS) > 0:
            self._doze(seconds)
            self._was_late = all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))

    def _learned(self, known: float, taken: float) -> float:
        """Return how long a chunk takes, now that there was one more: what takes longer was perhaps disturbed."""
        if self._was_late:  # it has taken less than there was between the two
            return known * _LATE
        return known + (0.3 if taken < known else 0.1) * (taken - known)

    def finish(self) -> None:
        """Wait for the last chunk to its end. If it has failed, the next tick finds that out too, and says so."""
        with contextlib.suppress(Exception):
            jax.block_until_ready(self._metrics)
        self._metrics = {}
