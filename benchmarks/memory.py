"""The most that a launched run holds, against what it needs: parameters twice, optimizer state, buffers.

What is held are JAX's live arrays, looked at by a thread all the time. The process's resident memory stands beside it.
"""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from pamiq_jax.trees import nbytes

WIDTH, BATCH = 1024, 32


def _loss(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    values = batch
    for weights in params["model"]:
        values = jnp.tanh(values @ weights)
    return jnp.mean((values - batch) ** 2), {}


def _system(layers: int, capacity: int) -> tuple[pj.System, int]:
    """Return a system, and the bytes that it needs."""
    source = np.random.default_rng(0)
    # On the host: what the user gave is the user's, and the run makes its own of it.
    params = [0.03 * source.standard_normal((WIDTH, WIDTH), np.float32) for _ in range(layers)]
    example = np.zeros(WIDTH, np.float32)
    trainer, buffer = pj.gradient_trainer(_loss, optax.adam(1e-3)), pj.ring_buffer(capacity, example=example)
    system = pj.System(
        models={"model": pj.Model(params)},
        buffers={"x": buffer},
        trainers={
            "t": pj.Schedule(trainer, data="x", batch_size=BATCH, steps=8, steps_per_chunk=4, when=pj.min_size(BATCH))
        },
    )
    optimizer = nbytes(jax.eval_shape(optax.adam(1e-3).init, params))
    return system, 2 * nbytes(params) + optimizer + pj.data.buffer_bytes(buffer, example)


def resident_bytes() -> int:
    """Return the bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class _Watched:
    """Looks at what is alive, in a thread of its own, until it is closed."""

    def __init__(self) -> None:
        self.live, self.resident = 0, 0
        self._before = resident_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.002):
            live = sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())
            self.live = max(self.live, live)
            self.resident = max(self.resident, resident_bytes() - self._before)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def _peaks(layers: int, capacity: int, seconds: float) -> tuple[int, int, int]:
    """Return the peak of live bytes while it runs, that of resident ones, and the bytes needed."""
    system, needed = _system(layers, capacity)
    gc.collect()  # what an earlier run held lives on until Python looks for cycles
    with pj.launch(system) as run:
        run.wait_until_ready()
        watched = _Watched()
        source = np.random.default_rng(1)
        run.collect("x", source.standard_normal(WIDTH, np.float32))
        end = time.perf_counter() + seconds
        while run.snapshot.version < 3 or time.perf_counter() < end:
            for _ in range(64):
                run.collect("x", source.standard_normal(WIDTH, np.float32))
            run.wait(0.02)
        watched.close()
    return watched.live, watched.resident, needed


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row, in MB."""
    layers, capacity, seconds = (4, 4_096, 1.0) if quick else (16, 16_384, 5.0)
    _, _, needed = _peaks(layers, capacity, 0.1)
    seen = [_peaks(layers, capacity, seconds) for _ in range(5)]
    comparison = Comparison([live / 1e6 for live, _, _ in seen], [needed / 1e6 for _, _, needed in seen])
    more: dict[str, object] = {
        "resident_mb_since_ready": max(resident for _, resident, _ in seen) / 1e6,
        "params_mb": layers * WIDTH**2 * 4 / 1e6,
        "buffer_mb": capacity * WIDTH * 4 / 1e6,
        "needed_mb": needed / 1e6,
    }
    name = "params x 2 + optimizer + buffers"
    return [report("memory", comparison, reference_name=name, unit="MB", goal="<= 1.05", more=more)]
