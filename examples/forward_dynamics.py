"""A recurrent model of a world, learned from windows of the stream in which it was met.

Gymnasium's Pendulum-v1 lives one life without episodes, pushed at random. The model sees the pendulum's angle and the
torque, never the speed: that is for its carry to find out. A record keeps the carry that the acting model had, so that
learning can begin in the middle of a life: windows of 256 out of the newest 1,000 steps. In each, the model predicts
every next angle, and also imagines 16 steps at a time from nothing but its own predictions.

GRU: Cho et al. 2014, arXiv:1406.1078. Stored carry: Kapturowski et al. 2019 (R2D2). Learning inside imagination: Ha and
Schmidhuber 2018, arXiv:1803.10122. Run: `python -m examples.forward_dynamics`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures
from examples.drawings.forward_dynamics import draw
from pamiq_jax.data import sequence_buffer
from pamiq_jax.envs import GymnasiumEnvironment

CAPACITY, WINDOW, IMAGINED, HIDDEN = 1_000, 256, 16, 32

# --- The model and its loss.


class Dynamics(nn.Module):
    """One step of the world: `(hidden [..., H], seen [..., 2], action [..., 1]) -> (hidden, seen one step later)`."""

    @nn.compact
    def __call__(self, hidden: jax.Array, seen: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the carry after the step, and what will be seen."""
        hidden, _ = nn.GRUCell(HIDDEN)(hidden, jnp.concatenate([seen, action], axis=-1))
        return hidden, seen + nn.Dense(2)(nn.silu(nn.Dense(64)(hidden)))


dynamics = Dynamics()


def follow(params: Any, hidden: jax.Array, seen: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the carry after each step `[T, ..., H]` and what it expects next `[T, ..., 2]`, given what was seen.

    Args:
        params: of the dynamics.
        hidden: `[..., H]`, before the first step.
        seen: `[T, ..., 2]`.
        actions: `[T, ..., 1]`.
    """

    def step(hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Any:
        hidden, expected = dynamics.apply(params, hidden, *inputs)
        return hidden, (hidden, expected)

    return jax.lax.scan(step, hidden, (seen, actions))[1]


def imagine(params: Any, hidden: jax.Array, seen: jax.Array, actions: jax.Array) -> jax.Array:
    """Return what would be seen `[K, ..., 2]` if the actions were done; each step starts from the last expectation.

    Args:
        params: of the dynamics.
        hidden: `[..., H]`, now.
        seen: `[..., 2]`, now.
        actions: `[K, ..., 1]`.
    """

    def step(state: Any, action: jax.Array) -> Any:
        state = dynamics.apply(params, *state, action)
        return state, state[1]

    return jax.lax.scan(step, (hidden, seen), actions)[1]


def imagine_within(params: Any, batch: Mapping[str, jax.Array], steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `(expected [T, B, 2], imagined, real [steps, N, B, 2])` of windows: each next step, and many at a time.

    Every `steps` steps of a window it imagines the following ones, and first after as many: its carry has seen them.

    Args:
        params: of the dynamics.
        batch: "seen" `[B, T, 2]`, "action" `[B, T, 1]`, "hidden" `[B, H]` before the windows.
        steps: how far to imagine.
    """
    seen, actions = (jnp.moveaxis(batch[name], 0, 1) for name in ("seen", "action"))
    hiddens, expected = follow(params, batch["hidden"], seen, actions)
    moments = np.arange(steps, seen.shape[0] - steps, steps)
    ahead = moments[None] + np.arange(steps)[:, None]
    imagined = imagine(params, hiddens[moments - 1], seen[moments], actions[ahead])
    return expected, imagined, seen[ahead + 1]


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the squared error of expecting the next step and of imagining `IMAGINED` steps."""
    expected, imagined, real = imagine_within(params["dynamics"], batch, IMAGINED)
    one_step = jnp.mean((expected[:-1] - jnp.moveaxis(batch["seen"], 0, 1)[1:]) ** 2)
    many_steps = jnp.mean((imagined - real) ** 2)
    return one_step + many_steps, {"one_step": one_step, "many_steps": many_steps}


# --- The system.


def explore(params: Mapping[str, Any], carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    """Push at random, smoothly enough for the pendulum to come round, while the model follows what happens."""
    hidden, torque = carry
    seen = observation[:2]  # cosine and sine of the angle; the speed comes after them
    torque = jnp.clip(0.9 * torque + 0.6 * jax.random.normal(rng_key, (1,)), -2.0, 2.0)
    following, _ = dynamics.apply(params["dynamics"], hidden, seen, torque)
    return (following, torque), torque, {"seen": seen, "hidden": hidden}


explorer = pj.Agent(explore, init=lambda rng_key: (jnp.zeros(HIDDEN), jnp.zeros(1)))


def pendulum() -> GymnasiumEnvironment:
    """Return a pendulum that lives one life: no episodes, no resets."""
    return GymnasiumEnvironment(gymnasium.make("Pendulum-v1").unwrapped)


def init_dynamics(seed: int) -> Any:
    """Return first parameters of the dynamics."""
    return jax.jit(dynamics.init)(jax.random.key(seed), jnp.zeros(HIDDEN), jnp.zeros(2), jnp.zeros(1))


def learn_dynamics(learning_rate: float = 2e-3, **options: Any) -> pj.Schedule:
    """Return how dynamics are learned from a buffer "life": a few steps whenever a few records more are there."""
    trainer = pj.clip_gradients(pj.gradient_trainer(loss_fn, optax.adam(learning_rate), trains=("dynamics",)), 1.0)
    defaults: dict[str, Any] = {"batch_size": 8, "steps": 8, "when": pj.min_size(2 * WINDOW) & pj.min_new(16)}
    return pj.Schedule(trainer, data="life", **(defaults | options))


def make_system(seed: int = 0) -> pj.System:
    """Return a system that learns how a pendulum moves while it is pushed at random."""
    return pj.System(
        models={"dynamics": pj.Model(init_dynamics(seed), imagine)},
        buffers={"life": sequence_buffer(CAPACITY, window=WINDOW, carry="hidden")},
        trainers={"dynamics": learn_dynamics()},
        interaction=pj.Interaction(explorer, pendulum()),
    )


# --- What it has learned.


def live(agent: pj.Agent[Any], params: Mapping[str, Any], steps: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return a pendulum's life that nobody learns from, by name `[steps, ...]`.

    Args:
        agent: who acts.
        params: of the models it needs, by name.
        steps: how long it lives.
        seed: of the world and the agent.
    """
    system = pj.System(
        models={name: pj.Model(value) for name, value in params.items()},
        buffers={"life": pj.ring_buffer(steps, sampling="in_order")},
        interaction=pj.Interaction(agent, pendulum()),
    )
    result = pj.run_lockstep(system, steps, seed=seed)
    return jax.device_get(result.learner.buffers["life"].state.records.data)


def imagined_ahead(params: Any, life: Mapping[str, Any], moments: Any, steps: int, remembers: bool = True) -> Any:
    """Return what the model imagines from some moments of a life, and what came, both `[steps, N, 2]`.

    Args:
        params: of the dynamics that the life was lived with.
        life: from `live`.
        moments: int `[N]`.
        steps: how far.
        remembers: whether it knows what came before; else its carry is empty.
    """
    ahead = np.asarray(moments)[None] + np.arange(steps)[:, None]
    hidden = life["hidden"][moments] * np.float32(remembers)
    return jax.jit(imagine)(params, hidden, life["seen"][moments], life["action"][ahead]), life["seen"][ahead + 1]


def distances(params: Any, life: Mapping[str, Any], steps: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return how far from the real pendulum's tip each forecast is on average, `[steps]` in pendulum lengths."""
    moments = np.arange(50, len(life["seen"]) - steps - 1, 10)
    imagined, real = imagined_ahead(params, life, moments, steps)
    without, _ = imagined_ahead(params, life, moments, steps, remembers=False)
    forecasts = {"model": imagined, "model without its carry": without, "persistence": life["seen"][moments][None]}
    return {name: np.linalg.norm(forecast - real, axis=-1).mean(axis=1) for name, forecast in forecasts.items()}


def main(directory: Path = figures.RUNS) -> None:
    """Learn for 4,000 steps, and draw what is imagined of a life that is new."""
    result = pj.run_lockstep(make_system(), 4_000)
    params = result.snapshot.params["dynamics"]
    life = live(explorer, {"dynamics": params}, 2_000, seed=1)
    errors = distances(params, life, 50)
    for name, error in errors.items():
        print(f"{name:>24}: {error[0]:.3f} after 1 step, {error[9]:.3f} after 10, {error[49]:.3f} after 50")
    moments = [50, 125, 200]
    futures = dict(zip(moments, np.moveaxis(imagined_ahead(params, life, moments, 50)[0], 0, 1), strict=True))
    print(f"figure: {figures.save(draw(life['seen'], futures, errors), 'forward_dynamics', directory)}")


if __name__ == "__main__":
    main()
