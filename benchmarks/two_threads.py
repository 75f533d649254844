"""What the latency benchmark compares: a system, and a bare JAX program of two threads that does the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.train_throughput import BATCH, FEATURES, HIDDEN, RECORDS, bare_step

ACTIONS = 8
INTERVAL_SECONDS = 0.02
SWING_SECONDS = 0.05
"""How long each side acts before it is measured."""


def params() -> dict[str, jax.Array]:
    """Return the first parameters of the policy."""
    first, second = jax.random.split(jax.random.key(0))
    return {
        "first": 0.1 * jax.random.normal(first, (FEATURES, HIDDEN)),
        "second": 0.1 * jax.random.normal(second, (HIDDEN, ACTIONS)),
    }


def policy(params: Any, observation: jax.Array) -> jax.Array:
    """Return actions `[..., ACTIONS]`."""
    return jnp.tanh(observation @ params["first"]) @ params["second"]


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return how far actions are from a part of the observation."""
    return jnp.mean((policy(params["policy"], batch) - batch[:, :ACTIONS]) ** 2), {}


def python_work() -> float:
    """Hold the interpreter for about 2 ms, as a training step in pure Python does."""
    return sum(number * 0.5 for number in range(30_000))


class World:
    """Shows a random array, and notes the seconds from each observation to its action."""

    spec = pj.EnvironmentSpec(np.zeros(FEATURES, np.float32), np.zeros(ACTIONS, np.float32), {})

    def __init__(self) -> None:
        self._shown = np.random.default_rng(0).standard_normal(FEATURES, np.float32)
        self._asked_at = 0.0
        self.latencies: list[float] = []

    def reset(self, seed: int) -> None:
        """Do nothing: every moment is like the other."""

    def observe(self) -> np.ndarray[Any, Any]:
        """Return float32 `[FEATURES]`."""
        self._asked_at = time.perf_counter()
        return self._shown

    def affect(self, action: Any) -> dict[str, Any]:
        """Note how long the action took."""
        self.latencies.append(time.perf_counter() - self._asked_at)
        return {}

    def close(self) -> None:
        """Do nothing."""


def data() -> np.ndarray[Any, Any]:
    """Return the records, float32 `[RECORDS, FEATURES]`."""
    return np.random.default_rng(1).standard_normal((RECORDS, FEATURES), np.float32)


def _python_trainer() -> pj.Trainer[Any, Any]:
    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        python_work()
        return state, {}

    return pj.custom_trainer(init, step, compiled=False)


def system(world: World, chunk: int, interval_seconds: float | None, *, in_python: bool) -> pj.System:
    """Return a system whose trainer begins, and then always runs, once there are records.

    Args:
        world: what the agent acts in.
        chunk: training steps in a program.
        interval_seconds: between two actions; None runs freely.
        in_python: whether the training step holds the interpreter.
    """

    def act(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
        return carry, policy(params["policy"], observation), {}

    trainer = _python_trainer() if in_python else pj.gradient_trainer(loss_fn, optax.adam(1e-3))
    steps = 1 if in_python else chunk
    return pj.System(
        models={"policy": pj.Model(params())},
        buffers={"x": pj.ring_buffer(RECORDS, example=np.zeros(FEATURES, np.float32))},
        trainers={
            "t": pj.Schedule(
                trainer, data="x", batch_size=BATCH, steps=steps, steps_per_chunk=steps, when=pj.min_size(RECORDS)
            )
        },
        interaction=pj.Interaction(pj.Agent(act), world, interval_seconds, collect={}),
        queues={"x": pj.Queue(capacity=RECORDS)},
    )


class Bare:
    """The reference: one thread trains and puts its parameters into a list of one, another one acts with them."""

    def __init__(self, chunk: int) -> None:
        tx = optax.adam(1e-3)
        step = bare_step(loss_fn, tx, jnp.array(data()))
        self._train = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=chunk)[0])
        self._act = jax.jit(policy)
        first = {"policy": params()}
        self._carry = jax.block_until_ready(self._train((first, tx.init(first), jax.random.key(1))))
        self._newest = [self._carry[0]]
        self.trained = 0
        self.chunks_per_second: list[float] = []
        np.asarray(self._act(self._newest[0]["policy"], World.spec.observation))

    def chunk_seconds(self, chunks: int = 20) -> float:
        """Return how long a chunk takes while nobody acts."""
        started = time.perf_counter()
        for _ in range(chunks):
            self._carry = jax.block_until_ready(self._train(self._carry))
        return (time.perf_counter() - started) / chunks

    def latencies(self, seconds: float, interval_seconds: float | None, training: str) -> list[float]:
        """Act for some seconds, and return the seconds from each observation to its action.

        Args:
            seconds: how long.
            interval_seconds: between two actions; None runs freely.
            training: what the other thread does: "idle", "jax" or "python".
        """
        work: dict[str, Callable[[], object]] = {"jax": self._train_once, "python": python_work}
        is_over = threading.Event()

        def train() -> None:
            while not is_over.is_set():
                work[training]()

        thread = threading.Thread(target=train)
        if training != "idle":
            thread.start()
        try:
            self._acted(SWING_SECONDS, interval_seconds)
            before = self.trained
            values = self._acted(seconds, interval_seconds)
            self.chunks_per_second.append((self.trained - before) / seconds)
            return values
        finally:
            is_over.set()
            if training != "idle":
                thread.join()

    def _train_once(self) -> None:
        self._carry = jax.block_until_ready(self._train(self._carry))
        self._newest[0] = self._carry[0]
        self.trained += 1

    def _acted(self, seconds: float, interval_seconds: float | None) -> list[float]:
        world = World()
        due = time.perf_counter()
        end = due + seconds
        while time.perf_counter() < end:
            if interval_seconds is not None:
                due += interval_seconds
                time.sleep(max(0.0, due - time.perf_counter()))
            observation = world.observe()
            world.affect(np.asarray(self._act(self._newest[0]["policy"], observation)))
        return world.latencies
