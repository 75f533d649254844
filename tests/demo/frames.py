"""Moments of the demo for the tests of what shows them."""

from __future__ import annotations

import math

import numpy as np

from pamiq_jax.demo.frame import Frame
from pamiq_jax.demo.recorder import Observed, Point
from pamiq_jax.envs import EpisodeStatistics
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from pamiq_jax.metrics import LatencyHistogram
from pamiq_jax.runtime import BufferStatus, InferenceStatus, Meanwhile, Status, TrainerStatus

NOT_STARTED = Frame(
    seed=0,
    seconds=0.5,
    limit_seconds=60.0,
    status=Status(SystemPhase.COMPILING, {}, 0, {}, 0, ()),
    observed=Observed(EpisodeStatistics.empty(8)),
    curve=(),
    environment_rate=0.0,
    train_rate=0.0,
)


def running(phase: TrainerPhase = TrainerPhase.WAITING, reason: str = "12 of 64 new records") -> Frame:
    """Return the middle of a run in which 99 episodes are finished."""
    latency, staleness = LatencyHistogram.empty().add(0.0005), LatencyHistogram.empty().add(0.04)
    status = Status(
        phase=SystemPhase.RUNNING,
        interactions={"agent": InferenceStatus(1000, 42, {Meanwhile.TRAINING: latency}, staleness)},
        compiles_after_ready=0,
        wakeups={},
        metrics_dropped=0,
        errors=(),
        seconds=9.0,
        version=43,
        trainers={"ppo": TrainerStatus(phase, reason, 43, 43, 0, {})},
        buffers={"rollout": BufferStatus(65, 65, 1000, 2, 7, 991, 2795)},
    )
    statistics = EpisodeStatistics(np.zeros(8), (123.4,) * 99, 99, math.nan)
    observed = Observed(statistics, 1000, 7_950, 0, 42, 0.05, first_action_seconds=3.0)
    curve = [Point(3.0 + index / 10, 2.0 * index, 1.2 * index) for index in range(99)]
    return Frame(5, 13.0, 60.0, status, observed, curve, environment_rate=9_876.0, train_rate=12.3)


def solved() -> Frame:
    """Return the end of a run that solved the task after 12.5 seconds."""
    frame = running()
    statistics = frame.observed.statistics._replace(recent=(480.0,) * 100, finished=200, best_mean=480.0)
    return frame._replace(observed=frame.observed._replace(statistics=statistics, solved_seconds=12.5))
