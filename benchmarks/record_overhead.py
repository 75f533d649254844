"""Training inside `launch` with `record=True`, against the same without, and what it costs an inference tick."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from benchmarks.train_throughput import launched, records, sizes
from pamiq_jax.runtime.recorder import Recorder


def _trained(data: Any, chunk: int, chunks: int, *, record: bool) -> float:
    with tempfile.TemporaryDirectory() as directory:
        return launched(data, chunk, chunks, directory=directory, record=record)


def _inference_us(calls: int) -> float:
    """Return the microseconds of what an inference tick does more, if it gets another version at each tick."""
    compiled = pj.compile_system(pj.System(models={"m": pj.Model(jnp.zeros(3))}), donates=False)
    ready = pj.runtime.programs.Ready(compiled, compiled.cells(), 0.0)
    errors: list[Exception] = []
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), 0, errors.append)
        recorder.begin(ready, compiled.learner, pj.VirtualClock())
        started = time.perf_counter()
        for tick in range(calls):
            recorder.acted("agent", tick, tick)
        seconds = time.perf_counter() - started
        recorder.close({"agent": calls}, timeout=60)
    assert not errors
    return 1e6 * seconds / calls


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row for chunks of about 1 ms and one for about 5 ms on this machine."""
    data = records()
    inference_us = statistics.median(_inference_us(20_000) for _ in range(5))
    rows: list[dict[str, object]] = []
    for milliseconds in (1, 5):
        chunk, chunks = sizes(data, milliseconds, 0.5 if quick else 3)
        comparison = alternate(
            lambda chunk=chunk, chunks=chunks: _trained(data, chunk, chunks, record=True),
            lambda chunk=chunk, chunks=chunks: _trained(data, chunk, chunks, record=False),
            runs=5,
        )
        more: dict[str, object] = {
            "chunk_ms": milliseconds,
            "steps_per_chunk": chunk,
            "inference_tick_us": inference_us,
            "inference_tick_goal": "<= 10 us",
        }
        rows.append(
            report("record_overhead", comparison, reference_name="without", unit="steps/s", goal=">= 0.95", more=more)
        )
    return rows
