"""A system that has nothing to do uses no CPU: its threads are not even woken."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import pamiq_jax as pj
from pamiq_jax.runtime import Run
from tests.runtime.fakes import AGENT, PATIENCE, HeldWorld, World, fed_system, learner, learning_system

IDLE_SECONDS = 0.3


def switches() -> dict[str, int]:
    """Return how often the kernel has put each of the library's threads to sleep, which it does after each wake-up."""
    counts: dict[str, int] = {}
    for thread in threading.enumerate():
        if thread.name.startswith("pamiq-"):
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            lines = dict(line.split(":", 1) for line in status.splitlines())
            counts[thread.name] = int(lines["voluntary_ctxt_switches"])
    return counts


def assert_idle(run: Run, threads: set[str]) -> None:
    assert set(switches()) == threads
    before = run.status.wakeups, run.status.inference.ticks, switches()
    assert run.wait(seconds=IDLE_SECONDS) is pj.WaitResult.TIMEOUT
    assert (run.status.wakeups, run.status.inference.ticks, switches()) == before


def settle(run: Run) -> None:
    """Let every thread come to its rest; what is measured begins after that."""
    run.wait(seconds=IDLE_SECONDS)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux_only
def test_waiting_for_data() -> None:
    schedule = pj.Schedule(learner(), data="x", batch_size=2, when=pj.min_size(10))
    with pj.launch(fed_system(schedule)) as run:
        run.wait_until_ready()
        run.collect("x", 0.0)  # one is not enough, and wakes nobody
        settle(run)
        assert_idle(run, {"pamiq-training", "pamiq-metrics", "pamiq-watchdog"})
        for value in range(9):
            run.collect("x", float(value))
        assert run.wait_for_version(1, PATIENCE).version >= 1


@linux_only
def test_waiting_for_the_environment() -> None:
    world = HeldWorld()
    with pj.launch(learning_system(world)) as run:
        assert world.is_held.wait(PATIENCE)
        settle(run)
        assert_idle(run, {"pamiq-training", "pamiq-inference", "pamiq-metrics", "pamiq-watchdog"})
        world.go.set()
        run.wait_for_version(1, PATIENCE)


@linux_only
def test_paused() -> None:
    interaction = pj.Interaction(AGENT, World(), interval_seconds=0.001)
    with pj.launch(learning_system(interaction=interaction)) as run:
        run.wait_for_version(1, PATIENCE)
        run.pause()
        settle(run)
        assert_idle(run, {"pamiq-training", "pamiq-inference", "pamiq-metrics", "pamiq-watchdog"})


def test_a_condition_of_time_sleeps_until_then() -> None:
    schedule = pj.Schedule(learner(), data="x", batch_size=1, when=pj.every_seconds(0.2))
    with pj.launch(fed_system(schedule)) as run:
        run.collect("x", 0.0)
        run.wait_for_version(1, PATIENCE)
        runs = run.status.trainers["fit"].runs
        assert run.status.wakeups.get("pamiq-training", 0) <= 20 + 2 * runs


@linux_only
def test_a_watchdog_with_nobody_to_watch_sleeps_without_a_limit() -> None:
    deadlines = pj.Deadlines(training=0.01, environment=0.01)
    schedule = pj.Schedule(learner(), data="x", batch_size=2, when=pj.min_size(10))
    with pj.launch(fed_system(schedule), deadlines=deadlines) as run:
        run.wait_until_ready()
        settle(run)
        assert run._control.heartbeats.alarm.is_off
        assert_idle(run, {"pamiq-training", "pamiq-metrics", "pamiq-watchdog"})
