"""Host time of `infer_tick` and `train_tick` without a model's work, over sizes of buffers and numbers of parts."""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from benchmarks.memory import resident_bytes
from pamiq_jax.data import Chunk, record_of

BATCH, FEATURES = 16, 8


class _World:
    """Always shows the same."""

    spec = pj.EnvironmentSpec(np.zeros(FEATURES, np.float32), np.zeros(FEATURES, np.float32), {})

    def reset(self, seed: int) -> None:
        pass

    def observe(self) -> np.ndarray[Any, Any]:
        return self.spec.observation

    def affect(self, action: Any) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def _trainer(model: str) -> pj.Trainer[Any, Any]:
    """Return a trainer whose step only counts."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        return state.replace(step=state.step + 1), {}

    return pj.custom_trainer(init, step, trains=(model,), publishes=(model,))


class _Ticks:
    """A system whose ticks are called by hand, its buffer full."""

    def __init__(self, *, size: int = 1_000, models: int = 1, trainers: int = 1) -> None:
        names = [f"model{index}" for index in range(max(models, trainers))]
        system = pj.System(
            models={name: pj.Model(jnp.zeros(FEATURES)) for name in names},
            buffers={"x": pj.ring_buffer(size)},
            trainers={
                f"t{index}": pj.Schedule(_trainer(names[index]), data="x", batch_size=BATCH, when=pj.min_size(size))
                for index in range(trainers)
            },
            interaction=pj.Interaction(
                pj.Agent(lambda params, carry, observation, rng_key: (carry, observation, {})),
                _World(),
                collect={"x": lambda record: record["observation"]},
            ),
            queues={"x": pj.Queue(capacity=64, chunk=32)},
        )
        compiled = pj.compile_system(system)
        self._programs, self._cells, self._clock = compiled.programs, compiled.cells(), pj.VirtualClock()
        self._actor, self._learner = compiled.actor, self._filled(compiled.learner, size)
        for _ in range(100):
            self.infer(), self.train()

    def _filled(self, learner: Any, size: int) -> Any:
        row = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (32, *np.shape(leaf))).copy(), self._row())
        buffer = learner.buffers["x"]
        state = buffer.state
        for _ in range(-(-size // 32)):
            state = self._programs.add["x"](state, Chunk(row, 32))
        return learner.with_buffer("x", buffer._replace(state=jax.block_until_ready(state), inserted=size))

    def _row(self) -> Any:
        return record_of(np.zeros(FEATURES, np.float32))

    def infer(self) -> None:
        """One tick that acts and collects a record."""
        self._actor, _ = pj.infer_tick(self._programs, self._actor, self._cells, self._clock)

    def train(self) -> None:
        """One tick that drains what waits, does a chunk, and publishes."""
        self._learner, tick = pj.train_tick(self._programs, self._learner, self._cells, self._clock)
        assert tick.trainer is not None, "every tick has something to do"

    def both(self) -> None:
        """One of each."""
        self.infer(), self.train()


def _us(tick: Callable[[], None], ticks: int) -> float:
    started = time.perf_counter()
    for _ in range(ticks):
        tick()
    return 1e6 * (time.perf_counter() - started) / ticks


def _medians(cases: dict[int, _Ticks], ticks: int, runs: int) -> dict[str, dict[int, list[float]]]:
    """Return microseconds a tick by kind and case, cases by turns."""
    found: dict[str, dict[int, list[float]]] = {"infer": {}, "train": {}}
    for _, (kind, key) in itertools.product(range(runs), itertools.product(found, cases)):
        found[kind].setdefault(key, []).append(_us(getattr(cases[key], kind), ticks))
    return found


def _growth(ticks: int) -> dict[str, object]:
    """Return what a long run leaves behind: blocks of the interpreter's memory, JAX's arrays, resident memory."""
    system = _Ticks()
    for _ in range(1_000):
        system.both()
    before = _held()
    for _ in range(ticks):
        system.both()
    return {"ticks": ticks, **{name: held - before[name] for name, held in _held().items()}}


def _held() -> dict[str, int]:
    gc.collect()
    return {"blocks": sys.getallocatedblocks(), "arrays": len(jax.live_arrays()), "resident_bytes": resident_bytes()}


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row: the slowest over the fastest size of buffer, for the slower kind of tick in that respect."""
    sizes = (10**3, 10**4, 10**5, 10**6)
    ticks, runs = (100, 5) if quick else (2_000, 9)
    by_size = _medians({size: _Ticks(size=size) for size in sizes}, ticks, runs)
    by_models = _medians({count: _Ticks(models=count) for count in ((1, 20) if quick else (1, 5, 20, 50))}, ticks, runs)
    by_trainers = _medians({count: _Ticks(trainers=count) for count in ((1, 5) if quick else (1, 5, 20))}, ticks, runs)

    def medians(found: dict[str, dict[int, list[float]]]) -> dict[str, dict[str, float]]:
        return {kind: {str(key): float(np.median(us)) for key, us in cases.items()} for kind, cases in found.items()}

    ratios = {kind: max(values.values()) / min(values.values()) for kind, values in medians(by_size).items()}
    kind = max(ratios, key=lambda kind: ratios[kind])
    values = {size: float(np.median(us)) for size, us in by_size[kind].items()}
    slowest, fastest = max(values, key=lambda size: values[size]), min(values, key=lambda size: values[size])
    more: dict[str, object] = {
        "us_by_buffer_size": medians(by_size),
        "us_by_models": medians(by_models),
        "us_by_trainers": medians(by_trainers),
        "left_behind": _growth(2_000 if quick else 1_000_000),
    }
    comparison = Comparison(by_size[kind][slowest], by_size[kind][fastest])
    name = f"{kind}_tick with a buffer of {fastest:,} (ours: {slowest:,})"
    return [report("tick_overhead", comparison, reference_name=name, unit="us", goal="<= 1.2", more=more)]
