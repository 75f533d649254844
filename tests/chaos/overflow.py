"""A trainer, a disk or a reader of metrics is too slow: what waits is bounded, what is lost is counted."""

from __future__ import annotations

import functools
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.runtime import engine
from pamiq_jax.runtime.rows import MetricRow, MetricRows
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import saving_with
from tests.chaos.usage import can_measure, usage
from tests.checkpoint.disk import files_that
from tests.runtime.fakes import PATIENCE, fed_system, python_trainer

RECORD_NUMBERS = 10_000
WAITING = 64
STATE_NUMBERS = 4_000_000
GROWTH_MB = 200.0
"""What may be added while far more than that goes by; the rest of it is the allocator's."""


def _rss_mb() -> float:
    return usage().rss_mb if can_measure() else 0.0


def slow_trainer(form: Form) -> list[Row]:
    """Let a trainer stand still while records of 40 kB come in."""
    losses, times, go, stands = Losses(), form.times(12_000, 200_000), threading.Event(), threading.Event()

    def on_step(number: int) -> None:
        stands.set()
        go.wait(PATIENCE)

    record = np.zeros(RECORD_NUMBERS, np.float32)
    system = fed_system(
        pj.Schedule(python_trainer(on_step), data="x", batch_size=1),
        buffers={"x": pj.ring_buffer(100, example=record)},
        queues={"x": pj.Queue(capacity=WAITING, chunk=16)},
    )
    with pj.launch(system) as run:
        run.collect("x", record)
        losses.check(stands.wait(PATIENCE), "the trainer did not begin")
        before = _rss_mb()
        for _ in range(times):
            run.collect("x", record)
        grown, buffer = _rss_mb() - before, run.status.buffers["x"]
        losses.check(buffer.pending <= WAITING and buffer.dropped >= times - WAITING, f"the queue holds {buffer}")
        losses.check(grown < GROWTH_MB, f"memory grew by {grown:.0f} MB")
        go.set()
    after = run.status.buffers["x"]
    counts = (after.seen, after.inserted + after.dropped + after.pending)
    losses.check(counts == (times + 1, times + 1), f"{counts[0]} seen, {counts[1]} accounted for")
    brought = times * record.nbytes / 1e6
    happened = (
        f"{brought:,.0f} MB came, {buffer.dropped:,} records dropped and counted, {buffer.pending} wait; "
        f"memory grew by {grown:.1f} MB"
    )
    return [Row("records of 40 kB for a trainer that stands still", times, happened, losses.found)]


def _growing_trainer() -> pj.Trainer[Any, Any]:
    """Return a trainer whose model is new after each step."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState({"policy": params["policy"]}, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        params = jax.tree.map(lambda leaf: leaf + 1.0, state.params)
        return state.replace(params=params, step=state.step + 1), {"one": jnp.float32(1)}

    return pj.custom_trainer(init, step, trains=("policy",))


def slow_disk(form: Form) -> list[Row]:
    """Let a disk stand still in a write, while versions of 16 MB are to be saved."""
    losses, times = Losses(), form.times(40, 400)
    go, stands, is_slow = threading.Event(), threading.Event(), threading.Event()

    def act(name: str, number: int) -> None:
        if name == "write" and is_slow.is_set():
            stands.set()
            go.wait(PATIENCE)

    system = fed_system(
        pj.Schedule(_growing_trainer(), data="x", batch_size=1), models={"policy": pj.Model(jnp.zeros(STATE_NUMBERS))}
    )
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        place = Path(name)
        with saving_with(files_that(act)):
            run = pj.launch(system, directory=place, save=pj.every_versions(1), keep=latest_n(1))
        with run:
            run.wait_until_ready()
            is_slow.set()
            run.collect("x", 0.0)  # from here on it trains
            losses.check(stands.wait(PATIENCE), "no save began")
            first = run.wait_for_version(run.status.version + 2, PATIENCE).version
            before = _rss_mb()
            last = run.wait_for_version(first + times, PATIENCE).version
            grown, saves = _rss_mb() - before, run.status.saves
            losses.check(saves.skipped >= times - 2, f"{saves.skipped} saves counted as skipped")
            losses.check(grown < GROWTH_MB, f"memory grew by {grown:.0f} MB")
            is_slow.clear()
            go.set()
            info = run.save(PATIENCE)
            losses.check(info.facts["version"] >= last, "the next save is of an older version")
            losses.check(run.status.saves.failed == 0, "a save failed")
        losses.check(all(report.is_sound for report in StateStore(place).verify()), "a state is damaged")
    passed = (last - first) * 4 * STATE_NUMBERS / 1e6
    happened = (
        f"training went on for {last - first} versions, {passed:,.0f} MB; {saves.skipped} saves skipped and counted; "
        f"memory grew by {grown:.1f} MB; then the next save was of the newest version"
    )
    return [Row("versions of 16 MB for a disk that stands still", times, happened, losses.found)]


def slow_metrics(form: Form) -> list[Row]:
    """Let whoever looks at the metrics stand still while chunks are done."""
    losses, times, go, stands = Losses(), form.times(200, 20_000), threading.Event(), threading.Event()
    capacity = form.times(64, 4096)

    def on_metrics(row: MetricRow) -> None:
        stands.set()
        go.wait(PATIENCE)

    system = fed_system(pj.Schedule(_growing_trainer(), data="x", batch_size=1))
    with mock.patch.object(engine, "MetricRows", functools.partial(MetricRows, capacity=capacity)):
        run = pj.launch(system, on_metrics=on_metrics)
    with run:
        run.collect("x", 0.0)
        losses.check(stands.wait(PATIENCE), "no metrics came")
        before = _rss_mb()
        version = run.wait_for_version(capacity + times, 10 * PATIENCE).version  # each version is a row
        dropped, grown = run.status.metrics_dropped, _rss_mb() - before
        kept = 2 * capacity + 1  # that wait, and that the reader has been given together
        losses.check(dropped >= version - kept, f"{dropped} rows of {version} counted as dropped")
        losses.check(grown < GROWTH_MB, f"memory grew by {grown:.0f} MB")
        go.set()
    happened = f"training went on; {dropped:,} rows dropped and counted; memory grew by {grown:.1f} MB"
    return [Row("metrics for a reader that stands still", times, happened, losses.found)]
