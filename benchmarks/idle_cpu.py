"""CPU time of a launched system with nothing to do, as a share of one core."""

from __future__ import annotations

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from benchmarks.peers import peer
from pamiq_jax.runtime import Run


class _World:
    """Waits for an action every minute."""

    spec = pj.EnvironmentSpec(np.zeros(3, np.float32), np.zeros(3, np.float32), {})

    def reset(self, seed: int) -> None:
        pass

    def observe(self) -> np.ndarray[Any, Any]:
        return np.zeros(3, np.float32)

    def affect(self, action: Any) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def _system() -> pj.System:
    def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
        return jnp.mean((params["m"] - batch["observation"]) ** 2), {}

    def act(params: Any, carry: Any, observation: Any, rng_key: Any) -> Any:
        return carry, observation, {}

    schedule = pj.Schedule(
        pj.gradient_trainer(loss_fn, optax.adam(1e-3)), data="x", batch_size=32, when=pj.min_size(1000)
    )
    return pj.System(
        models={"m": pj.Model(jnp.zeros(3))},
        buffers={"x": pj.ring_buffer(1000)},
        trainers={"t": schedule},
        interaction=pj.Interaction(pj.Agent(act), _World(), interval_seconds=60.0),
    )


def _share(run: Run, seconds: float) -> float:
    """Return the process's CPU time, of all its threads, in one second."""
    started, used = time.perf_counter(), time.process_time()
    run.wait(seconds)
    return (time.process_time() - used) / (time.perf_counter() - started)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for an agent that waits for its time, and a trainer that waits for data; paused is beside it."""
    seconds, runs = (1.0, 5) if quick else (5.0, 10)
    with pj.launch(_system()) as run:
        run.wait_until_ready()
        _share(run, 1.0)  # the first tick, and what JAX does after its first programs
        waiting = [_share(run, seconds) for _ in range(runs)]
        run.pause()
        paused = [_share(run, seconds / 2) for _ in range(5)]
    with peer("pamiq_core", "idle", seconds) as pamiq_core:
        theirs = [] if pamiq_core is None else [pamiq_core.measure() for _ in range(5)]
    more: dict[str, object] = {"paused": sorted(paused)[2], "pamiq_core_measured_elsewhere": 0.61}
    if theirs:
        more["pamiq_core"] = sorted(theirs)[2]
    name = "pamiq-core" if theirs else "none: pamiq-core is not installed"
    comparison = Comparison(waiting, theirs)
    goal = "ours <= 0.01"
    return [report("idle_cpu", comparison, reference_name=name, unit="cores", goal=goal, more=more)]
