"""Time of a step with `guard`, against the same trainer without: an MLP of a million parameters, with Adam."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from pamiq_jax.trainer import guard
from pamiq_jax.trainer.compile import own, scan_chunk

WIDTH, LAYERS, STEPS = 576, 3, 10


def _loss(params: Any, batch: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    hidden = batch
    for weights in params["model"]:
        hidden = jnp.tanh(hidden @ weights)
    return jnp.mean((hidden - batch) ** 2), {}


class _Program(NamedTuple):
    """Chunks of one trainer, parameters kept and the rest donated, and the memory they need beside arguments."""

    seconds_a_step: Callable[[], float]
    temporary_bytes: int


def _program(trainer: pj.Trainer[Any, Any], data: jax.Array) -> _Program:
    layers = [0.04 * jax.random.normal(key, (WIDTH, WIDTH)) for key in jax.random.split(jax.random.key(0), LAYERS)]
    state = own(trainer.init(jax.random.key(1), {"model": layers}))
    chunk = scan_chunk(trainer, lambda data, position, rng_key: data, STEPS)

    def run(params: Any, rest: Any, data: jax.Array) -> Any:
        state, metrics = chunk(trainer.receive(rest, params), data, jnp.int32(0), jax.random.key(2))
        return state.params, trainer.receive(state, {"model": ()}), metrics

    cell = [state.params, trainer.receive(state, {"model": ()})]
    compiled = jax.jit(run, donate_argnums=1).lower(*cell, data).compile()

    def seconds_a_step() -> float:
        started = time.perf_counter()
        cell[0], cell[1], metrics = jax.block_until_ready(compiled(*cell, data))
        seconds = time.perf_counter() - started
        assert float(metrics.get("skipped", 0)) == 0
        return seconds / STEPS

    memory = compiled.memory_analysis()
    return _Program(seconds_a_step, memory.temp_size_in_bytes if memory else 0)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for a small batch, where the optimizer is half of the step, and one for a large batch."""
    trainer = pj.gradient_trainer(_loss, optax.adam(1e-3), trains=("model",))
    rows: list[dict[str, object]] = []
    for batch_size, goal in ((64, "<= 1.50"), (512, "<= 1.15")):
        data = jax.random.normal(jax.random.key(3), (batch_size, WIDTH))
        guarded, bare = _program(guard(trainer), data), _program(trainer, data)
        comparison = alternate(
            lambda guarded=guarded: 1e3 * guarded.seconds_a_step(),
            lambda bare=bare: 1e3 * bare.seconds_a_step(),
            runs=25 if quick else 51,
        )
        more: dict[str, object] = {
            "batch_size": batch_size,
            "parameters": LAYERS * WIDTH**2,
            "ratio_of_fastest": min(comparison.ours) / min(comparison.reference),
            "temporary_bytes": guarded.temporary_bytes,
            "temporary_bytes_without": bare.temporary_bytes,
        }
        name = "the same without guard"
        rows.append(report("guard", comparison, reference_name=name, unit="ms/step", goal=goal, more=more))
    return rows
