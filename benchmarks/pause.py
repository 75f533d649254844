"""From the command to pause until all have acknowledged it, inside a long run of chunks of 20 ms."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from benchmarks.train_throughput import BATCH, FEATURES, HIDDEN, RECORDS, records, sizes
from pamiq_jax.runtime import MetricRow, Run

CHUNK_MS = 20


def _system(chunk: int) -> pj.System:
    def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
        hidden = jnp.tanh(batch @ params["model"]["first"])
        return jnp.mean((hidden @ params["model"]["second"] - batch) ** 2), {}

    first, second = jax.random.split(jax.random.key(0))
    params = {
        "first": 0.1 * jax.random.normal(first, (FEATURES, HIDDEN)),
        "second": 0.1 * jax.random.normal(second, (HIDDEN, FEATURES)),
    }
    schedule = pj.Schedule(
        pj.gradient_trainer(loss_fn, optax.adam(1e-3)),
        data="x",
        batch_size=BATCH,
        steps=chunk * 10**6,  # one run without end
        steps_per_chunk=chunk,
        when=pj.min_size(RECORDS),
    )
    return pj.System(
        models={"model": pj.Model(params)},
        buffers={"x": pj.ring_buffer(RECORDS, example=np.zeros(FEATURES, np.float32))},
        trainers={"t": schedule},
        queues={"x": pj.Queue(capacity=RECORDS)},
    )


def _window(run: Run, rows: list[MetricRow], source: np.random.Generator, pauses: int) -> tuple[float, float, float]:
    """Return the p95 and the p50 of some pauses, and the length of a chunk, in milliseconds."""
    first, waits = len(rows), list[float]()
    for _ in range(pauses):
        run.wait(source.uniform(0.04, 0.08))  # somewhere within a chunk
        started = time.perf_counter()
        run.pause()
        waits.append(1e3 * (time.perf_counter() - started))
        run.resume()
    # The clock stands still while the system is paused, so that the distance of two rows is a chunk's length.
    seconds = np.diff([row.seconds for row in rows[first:]])
    return float(np.quantile(waits, 0.95)), float(np.median(waits)), 1e3 * float(np.median(seconds))


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row: the p95 of pauses, of which each window has some, over the median length of a chunk."""
    data, rows = records(), list[MetricRow]()
    chunk, _ = sizes(data, CHUNK_MS, 1)
    with pj.launch(_system(chunk), on_metrics=rows.append) as run:
        for record in data:
            run.collect("x", record)
        source = np.random.default_rng(0)
        windows = [_window(run, rows, source, 20 if quick else 100) for _ in range(6)][1:]
    slow, middle, chunks = (list(column) for column in zip(*windows, strict=True))
    more: dict[str, object] = {"p50_ms": statistics.median(middle), "steps_per_chunk": chunk}
    comparison = Comparison(slow, chunks)
    return [report("pause", comparison, reference_name="a chunk", unit="ms", goal="<= 1.2", more=more)]
