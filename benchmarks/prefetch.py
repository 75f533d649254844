"""Time of a chunk on data in the host's memory, its batches gathered ahead, against gathered when it begins."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from pamiq_jax.data import Chunk
from pamiq_jax.trainer import TrainerPrograms

FEATURES, HIDDEN, BATCH = 1024, 64, 512


def _loss(params: Any, batch: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    hidden = jnp.tanh(batch @ params["model"]["first"])
    return jnp.mean((hidden @ params["model"]["second"] - batch) ** 2), {}


def _compiled(records: int, chunk: int) -> Any:
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "first": 0.1 * jax.random.normal(first, (FEATURES, HIDDEN)),
        "second": 0.1 * jax.random.normal(second, (HIDDEN, FEATURES)),
    }
    example = np.zeros(FEATURES, np.float32)
    system = pj.System(
        models={"model": pj.Model(params)},
        buffers={"x": pj.ring_buffer(records, placement="host", example=example)},
        trainers={
            "t": pj.Schedule(
                pj.gradient_trainer(_loss, optax.adam(1e-3)),
                data="x",
                batch_size=BATCH,
                steps=chunk * 10**6,  # one run without end
                steps_per_chunk=chunk,
            )
        },
        queues={"x": pj.Queue(capacity=records, chunk=records)},
    )
    compiled = pj.compile_system(system)
    values = np.random.default_rng(0).normal(size=(records, FEATURES)).astype(np.float32)
    data = pj.Record(values, np.zeros(records, np.int32), np.zeros(records, np.bool_))
    buffer = compiled.learner.buffers["x"]
    filled = buffer._replace(state=compiled.programs.add["x"](buffer.state, Chunk(data, records)), inserted=records)
    return compiled._replace(learner=compiled.learner.with_buffer("x", filled))


def _gathered_when_it_begins(trainer: TrainerPrograms[Any]) -> TrainerPrograms[Any]:
    gather = trainer.gather
    assert gather is not None

    def chunk(state: Any, buffers: Any, position: Any, rng_key: jax.Array, /) -> Any:
        return trainer.chunk(state, gather(buffers, position, rng_key), position, rng_key)

    return trainer._replace(chunk=chunk, gather=None)


class _Side:
    """A system's training side that goes on with its run."""

    def __init__(self, compiled: Any) -> None:
        self._programs, self._learner, self._cells = compiled.programs, compiled.learner, compiled.cells()
        self._clock = pj.VirtualClock()

    def milliseconds(self, chunks: int) -> float:
        """Return the time of a chunk, the mean over some."""
        started = time.perf_counter()
        for _ in range(chunks):
            self._learner, tick = pj.train_tick(self._programs, self._learner, self._cells, self._clock)
            assert tick.error is None
        return (time.perf_counter() - started) / chunks * 1000


def _part_milliseconds(compiled: Any, chunks: int) -> float:
    """Return the time of gathering and moving one chunk's batches alone."""
    learner, gather = compiled.learner, compiled.programs.trainers["t"].gather
    buffers = {"": learner.buffers["x"].state}
    jax.block_until_ready(gather(buffers, 0, learner.trainers["t"].data_key))
    started = time.perf_counter()
    for number in range(chunks):
        jax.block_until_ready(gather(buffers, number, learner.trainers["t"].data_key))
    return (time.perf_counter() - started) / chunks * 1000


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for a trainer on the default device, and data of which a chunk takes 16 batches of 2 MB."""
    records, chunk, chunks = (16_384 if quick else 65_536), 16, (10 if quick else 40)
    compiled = _compiled(records, chunk)
    alone = _part_milliseconds(compiled, chunks)
    programs = compiled.programs
    late = programs._replace(trainers={"t": _gathered_when_it_begins(programs.trainers["t"])})
    # Each side donates its own state.
    ours, reference = _Side(compiled), _Side(_compiled(records, chunk)._replace(programs=late))
    comparison = alternate(lambda: ours.milliseconds(chunks), lambda: reference.milliseconds(chunks), runs=5)
    more: dict[str, object] = {"gather_alone_ms": round(alone, 3), "steps_per_chunk": chunk, "records": records}
    name = "gathered when the chunk begins"
    return [report("prefetch", comparison, reference_name=name, unit="ms/chunk", goal="< 1", more=more)]
