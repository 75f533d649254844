"""Steps per second inside `launch`, against a bare `jit(lax.scan)` loop on the same data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import alternate, report

RECORDS, FEATURES, HIDDEN, BATCH = 4096, 64, 256, 64


def _loss(params: Any, batch: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    hidden = jnp.tanh(batch @ params["model"]["first"])
    return jnp.mean((hidden @ params["model"]["second"] - batch) ** 2), {}


def _params() -> dict[str, jax.Array]:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "first": 0.1 * jax.random.normal(first, (FEATURES, HIDDEN)),
        "second": 0.1 * jax.random.normal(second, (HIDDEN, FEATURES)),
    }


def bare_step(
    loss_fn: Callable[..., Any], tx: optax.GradientTransformation, values: jax.Array
) -> Callable[[Any, None], tuple[Any, jax.Array]]:
    """Return a step for `lax.scan`, written as without any library: it draws a batch and follows the gradient.

    Args:
        loss_fn: `(params, batch, key) -> (loss, metrics)`.
        tx: the optimizer.
        values: the records, `[RECORDS, ...]`.
    """

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, opt_state, key = carry
        key, sample_key = jax.random.split(key)
        batch = values[jax.random.randint(sample_key, (BATCH,), 0, RECORDS)]
        (loss, _metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, key)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key), loss

    return step


def _bare(data: np.ndarray[Any, Any], chunk: int, chunks: int) -> float:
    """The reference: what a competent person writes without any library."""
    tx = optax.adam(1e-3)
    step = bare_step(_loss, tx, jnp.array(data))

    @jax.jit
    def run(carry: Any) -> tuple[Any, jax.Array]:
        carry, losses = jax.lax.scan(step, carry, None, length=chunk)
        return carry, jnp.mean(losses)

    params = {"model": _params()}
    carry = (params, tx.init(params), jax.random.key(1))
    carry, _ = jax.block_until_ready(run(carry))
    started = time.perf_counter()
    for _ in range(chunks):
        carry, _ = run(carry)
    jax.block_until_ready(carry)
    return chunk * chunks / (time.perf_counter() - started)


def launched(data: np.ndarray[Any, Any], chunk: int, chunks: int, **options: Any) -> float:
    """Return steps per second of the same training inside `launch`.

    Args:
        data: the records, float32 `[RECORDS, FEATURES]`.
        chunk: steps per chunk.
        chunks: how many.
        options: for `launch`.
    """
    trainer = pj.gradient_trainer(_loss, optax.adam(1e-3))
    schedule = pj.Schedule(
        trainer, data="x", batch_size=BATCH, steps=chunk * chunks, steps_per_chunk=chunk, when=pj.min_new(RECORDS)
    )
    system = pj.System(
        models={"model": pj.Model(_params())},
        buffers={"x": pj.ring_buffer(RECORDS, example=data[0])},
        trainers={"t": schedule},
        queues={"x": pj.Queue(capacity=RECORDS)},
    )
    times: list[float] = []
    with pj.launch(system, on_metrics=lambda row: times.append(row.seconds), **options) as run:
        for record in data:
            run.collect("x", record)
        run.wait_for_version(1, timeout=600)
    return chunk * (chunks - 1) / (times[-1] - times[0])


def records() -> np.ndarray[Any, Any]:
    """Return the data, float32 `[RECORDS, FEATURES]`."""
    return np.random.default_rng(0).normal(size=(RECORDS, FEATURES)).astype(np.float32)


def sizes(data: np.ndarray[Any, Any], milliseconds: float, seconds: float) -> tuple[int, int]:
    """Return the steps in a chunk of about so many milliseconds here, and how many chunks take so many seconds."""
    step_seconds = 1 / _bare(data, 64, 8)
    chunk = max(1, round(milliseconds / 1000 / step_seconds))
    return chunk, max(8, round(seconds / (chunk * step_seconds)))


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row for chunks of about 1 ms and one for about 5 ms on this machine."""
    data = records()
    rows: list[dict[str, object]] = []
    for milliseconds, goal in ((1, ">= 0.90"), (5, ">= 0.97")):
        chunk, chunks = sizes(data, milliseconds, 0.5 if quick else 3)
        comparison = alternate(
            lambda chunk=chunk, chunks=chunks: launched(data, chunk, chunks),
            lambda chunk=chunk, chunks=chunks: _bare(data, chunk, chunks),
            runs=5,
        )
        more: dict[str, object] = {"chunk_ms": milliseconds, "steps_per_chunk": chunk}
        row = report(
            "train_throughput", comparison, reference_name="jit(lax.scan)", unit="steps/s", goal=goal, more=more
        )
        rows.append(row)
    return rows
