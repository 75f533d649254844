"""What the tests of the runtime share: a deterministic world, and trainers that can be held, watched or broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.lifecycle import SystemPhase

PATIENCE = 60.0
"""Seconds after which an event that should have come counts as never coming."""


class World:
    """Deterministic; shows its state in one array that it keeps writing to, and logs copies of what was seen.

    The observation is `[ticks, last action, seed]`.
    """

    spec = pj.EnvironmentSpec(np.zeros(3, np.float32), np.float32(0), {"reward": np.float32(0)})

    def __init__(self) -> None:
        self._observation = np.zeros(3, np.float32)
        self._reward = np.zeros((), np.float32)
        self.shown: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.resets = 0
        self.closed = threading.Event()

    def reset(self, seed: int) -> None:
        self._observation[:] = (0, 0, seed)
        self.shown.clear()
        self.rewards.clear()
        self.resets += 1

    def observe(self) -> np.ndarray:
        self.shown.append(self._observation.copy())
        return self._observation

    def affect(self, action: Any) -> dict[str, Any]:
        self._reward[...] = float(self._observation[0]) - float(action)
        self.rewards.append(float(self._reward))
        self._observation[0] += 1
        self._observation[1] = action
        return {"reward": self._reward}

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


class SavedWorld(World):
    """A world that can be saved: all its state is in what it shows."""

    def save_state(self) -> Any:
        return {"observation": self._observation.copy()}

    def load_state(self, state: Any) -> None:
        self._observation[:] = state["observation"]


class HeldWorld(World):
    """Shows nothing until it is let go: the inference thread sleeps in `observe`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = threading.Event()
        self.go = threading.Event()

    def observe(self) -> np.ndarray:
        self.is_held.set()
        assert self.go.wait(PATIENCE)
        return super().observe()


def _act(params: Any, carry: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
    noise = jax.random.uniform(rng_key)
    action = jnp.vdot(params["policy"], jnp.tanh(observation)) + 0.1 * noise
    return carry + 1, action, {"noise": noise, "carry": carry}


AGENT = pj.Agent(_act, lambda rng_key: jnp.zeros((), jnp.int32))
"""Acts by its parameters and by chance, counts its ticks in its carry, and records both noise and carry."""


def mean_loss(model: str, noise: float) -> Callable[..., Any]:
    """Return the loss that draws a model `float32[3]` to the mean observation, or number, give or take some noise."""

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        values = batch["observation"] if isinstance(batch, Mapping) else batch[:, None]
        target = jnp.mean(jnp.tanh(values), axis=0)
        if noise:  # what draws no random number compiles much faster
            target = target + noise * jax.random.uniform(rng_key)
        return jnp.mean((params[model] - target) ** 2), {}

    return loss_fn


def learner(model: str = "policy", *, noise: float = 0.0) -> pj.Trainer[Any, Any]:
    return pj.gradient_trainer(mean_loss(model, noise), optax.adam(0.05), trains=(model,))


def learning_system(environment: Any | None = None, **changes: Any) -> pj.System:
    """Return a system whose runs are two chunks of two steps, one for every three records."""
    schedule = pj.Schedule(learner(), data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    parts: dict[str, Any] = {
        "models": {"policy": pj.Model(jnp.zeros(3), jnp.vdot)},
        "buffers": {"seen": pj.ring_buffer(1000, sampling="in_order")},
        "trainers": {"fit": schedule},
        "interaction": pj.Interaction(AGENT, World() if environment is None else environment),
    }
    return pj.System(**{**parts, **changes})


def fed_system(schedule: pj.Schedule | None = None, **changes: Any) -> pj.System:
    """Return a system without an agent: its buffer "x" of float32 scalars is fed by `run.collect`."""
    parts: dict[str, Any] = {
        "models": {"policy": pj.Model(jnp.zeros(3), jnp.vdot)},
        "buffers": {"x": pj.ring_buffer(100, sampling="in_order", example=0.0)},
        "trainers": {} if schedule is None else {"fit": schedule},
    }
    return pj.System(**{**parts, **changes})


def python_trainer(on_step: Callable[[int], None], *, model: str = "policy") -> pj.Trainer[Any, Any]:
    """Return a trainer that is not compiled: it calls `on_step(number from 1)` on the training thread."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState({model: params[model]}, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        number = int(state.step) + 1
        on_step(number)
        return state.replace(step=jnp.int32(number)), {"number": jnp.float32(number)}

    return pj.custom_trainer(init, step, trains=(model,), compiled=False)


def nan_trainer(at_step: int, *, model: str = "policy") -> pj.Trainer[Any, Any]:
    """Return a compiled trainer that adds 1 to its model at each step, and NaN from `at_step` on."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState({model: params[model]}, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        count = state.step + 1
        change = jnp.where(count >= at_step, jnp.nan, 1.0)
        params = jax.tree.map(lambda leaf: leaf + change, state.params)
        return state.replace(params=params, step=count), {"change": change}

    return pj.custom_trainer(init, step, trains=(model,))


def wait_for_phase(run: pj.Run, *phases: SystemPhase) -> None:
    """Sleep until a launched system is in one of these phases. Works on any thread, its own included."""
    control = run._control
    with control._lock:
        reached = control._changed.wait_for(lambda: control.phase in phases, PATIENCE)
    assert reached, f"still {control.phase}"


def assert_equal_trees(first: Any, second: Any) -> None:
    """Fail unless two trees are equal bit for bit; typed keys and read-only mappings included."""
    first, second = jax.tree.map(_plain, first), jax.tree.map(_plain, second)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, Mapping):
        return {key: jax.tree.map(_plain, value) for key, value in leaf.items()}
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf)) if is_key else np.asarray(leaf)
