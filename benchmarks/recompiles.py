"""Programs compiled after READY, in the whole process: growing buffers, changed hyper-parameters, and a restore."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from pamiq_jax.lifecycle import SystemPhase
from pamiq_jax.runtime import InferReport

_COMPILE = "/jax/core/compile/backend_compile_duration"


class _World:
    """Walks, so that records differ."""

    spec = pj.EnvironmentSpec(np.zeros(3, np.float32), np.zeros(3, np.float32), {"reward": np.float32(0)})

    def __init__(self) -> None:
        self._position = np.zeros(3, np.float32)

    def reset(self, seed: int) -> None:
        self._position = np.full(3, seed, np.float32)

    def observe(self) -> np.ndarray[Any, Any]:
        return self._position

    def affect(self, action: Any) -> dict[str, Any]:
        self._position = np.sin(self._position + 0.1 + 0.01 * action)
        return {"reward": np.float32(self._position.sum())}

    def close(self) -> None:
        pass


def _system() -> pj.System:
    def make_trainer(learning_rate: Any, weight: Any) -> pj.Trainer[Any, Any]:
        def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
            errors = jnp.abs(batch.records["observation"] @ params["m"] - batch.records["reward"])
            return weight * jnp.mean(errors * batch.weights), {"priorities": errors + 0.01}

        return pj.gradient_trainer(loss_fn, optax.adam(learning_rate))

    def fit(params: Any, batch: Any, rng_key: Any) -> Any:
        return jnp.mean((batch["observation"] * params["n"] - batch["action"]) ** 2), {}

    def act(params: Any, carry: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
        carry = 0.9 * carry + observation
        return carry, jnp.tanh(carry * params["n"]) + 0.1 * jax.random.normal(rng_key, (3,)), {}

    first = pj.with_hyperparameters(make_trainer, learning_rate=1e-3, weight=1.0)
    second = pj.gradient_trainer(fit, optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3), trains=("n",))
    return pj.System(
        models={"m": pj.Model(jnp.zeros(3), infer=False), "n": pj.Model(jnp.ones(3))},
        buffers={"ranked": pj.prioritized_buffer(2_000), "seen": pj.ring_buffer(500)},
        trainers={
            "value": pj.Schedule(
                first._replace(trains=("m",)), data="ranked", batch_size=16, steps=8, when=pj.min_new(10)
            ),
            "fit": pj.Schedule(second, data="seen", batch_size=16, steps=4, when=pj.min_new(7)),
        },
        interaction=pj.Interaction(pj.Agent(act, lambda rng_key: jnp.zeros(3)), _World(), interval_seconds=0.001),
    )


class _Counter:
    """Counts what any thread compiles while it is on."""

    def __init__(self) -> None:
        self.is_on, self.count, self.count_before = False, 0, 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILE and self.is_on:
            self.count += 1
        elif event == _COMPILE:
            self.count_before += 1

    def close(self) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def _launched(directory: Path, ticks: int, *, resume: bool) -> tuple[int, int, dict[str, int]]:
    """Return what was compiled after READY by any thread, what the status says, and what was done meanwhile."""
    counter, done = _Counter(), threading.Event()
    seen = 0

    def on_interaction(report: InferReport) -> None:
        nonlocal seen
        seen += 1
        if seen >= ticks:
            done.set()

    def on_transition(transition: Any) -> None:
        if transition.after is SystemPhase.READY:
            counter.is_on = True

    try:
        with pj.launch(
            _system(), directory=directory, resume=resume, on_interaction=on_interaction, on_transition=on_transition
        ) as run:
            run.wait_until_ready()
            changes = 0
            while not done.wait(0.1):
                changes += 1
                run.trainers["value"].set(learning_rate=1e-3 / changes, weight=1.0 + changes)
                run.trainers["fit"].set(learning_rate=1e-3 / changes)
                if changes % 3 == 0:
                    run.save()
                    run.pause()
                    run.resume()
            run.save()
            status = run.status
        steps = {f"{name}_steps": trainer.steps for name, trainer in status.trainers.items()}
        done_meanwhile = {"changes": changes, **steps, "compiled_before_ready": counter.count_before}
        return counter.count, status.compiles_after_ready, done_meanwhile
    finally:
        counter.close()


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return one row; half of the launches go on from a saved state."""
    with tempfile.TemporaryDirectory(prefix="recompiles-cache-") as cache:
        return _measure(cache, quick=quick)


def _measure(cache: str, *, quick: bool) -> list[dict[str, object]]:
    ticks, counts, statuses = (500 if quick else 1_000), list[float](), list[int]()
    done: dict[str, int] = {}
    # Launches after the first find their programs on the disk; that counts as compiling all the same.
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="recompiles-") as place:
            for resume in (False, True):
                count, in_status, done = _launched(Path(place), ticks, resume=resume)
                counts.append(float(count))
                statuses.append(in_status)
    more: dict[str, object] = {"ticks": ticks, "in_status": max(statuses), **done}
    comparison = Comparison(counts, [])
    name, goal = "none", "ours == 0"
    return [report("recompiles", comparison, reference_name=name, unit="programs", goal=goal, more=more)]
