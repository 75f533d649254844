"""A recurrent model of a world, learned from windows of the stream in which it was met.

Gymnasium's Pendulum-v1 lives one life without episodes, pushed at random. The model sees the pendulum's angle and
the torque, never the speed: that is for its carry to find out. A record keeps the carry that the acting model had,
so that learning can begin in the middle of a life: windows of 256 out of the newest 1,000 steps. In each, the model
predicts every next angle, and also imagines 16 steps at a time from its own predictions alone.

GRU: Cho et al. 2014, arXiv:1406.1078. Stored carry: Kapturowski et al. 2019 (R2D2). World models: Ha and Schmidhuber
2018, arXiv:1803.10122.

    python -m examples.forward_dynamics
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

HIDDEN = 64
IMAGINED = 16
CAPACITY, WINDOW = 1_000, 256


class Dynamics(nn.Module):
    """One step of the world: `(hidden [..., H], seen [..., 2], action [..., 1]) -> (hidden, seen one step later)`."""

    @nn.compact
    def __call__(self, hidden: jax.Array, seen: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden, _ = nn.GRUCell(HIDDEN)(hidden, jnp.concatenate([seen, action], axis=-1))
        return hidden, seen + nn.Dense(2)(nn.silu(nn.Dense(HIDDEN)(hidden)))


dynamics = Dynamics()


def see(observation: jax.Array) -> jax.Array:
    """Return cosine and sine of the angle `[..., 2]`; the speed beside them in `[..., 3]` is not for the model."""
    return observation[..., :2]


def follow(params: Any, hidden: jax.Array, seen: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the carry after each step `[T, H]` and each next angle as predicted `[T, 2]`, from what was really seen.

    Args:
        params: of the dynamics.
        hidden: `[H]`, before the first step.
        seen: `[T, 2]`.
        actions: `[T, 1]`.
    """

    def step(hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Any:
        hidden, predicted = dynamics.apply(params, hidden, *inputs)
        return hidden, (hidden, predicted)

    return jax.lax.scan(step, hidden, (seen, actions))[1]


def imagine(params: Any, hidden: jax.Array, seen: jax.Array, actions: jax.Array) -> jax.Array:
    """Return what would be seen `[K, 2]` if the actions were done; each step starts from the last prediction.

    Args:
        params: of the dynamics.
        hidden: `[H]`, now.
        seen: `[2]`, now.
        actions: `[K, 1]`.
    """

    def step(state: Any, action: jax.Array) -> Any:
        state = dynamics.apply(params, *state, action)
        return state, state[1]

    return jax.lax.scan(step, (hidden, seen), actions)[1]


def imagine_all(
    params: Any, hidden: jax.Array, seen: jax.Array, actions: jax.Array, *, steps: int, every: int
) -> tuple[jax.Array, jax.Array]:
    """Return what is imagined from every so many moments of a window, and what was then seen, both `[N, steps, 2]`.

    Args:
        params: of the dynamics.
        hidden: `[H]`, before the window.
        seen: `[T, 2]`.
        actions: `[T, 1]`.
        steps: how far to imagine.
        every: from one moment to the next; the first is at `every`, when the carry has seen something.
    """
    moments = np.arange(every, seen.shape[0] - steps, every)
    ahead = moments[:, None] + np.arange(steps)[None]
    hiddens = follow(params, hidden, seen, actions)[0][moments - 1]
    imagined = jax.vmap(imagine, in_axes=(None, 0, 0, 0))(params, hiddens, seen[moments], actions[ahead])
    return imagined, seen[ahead + 1]


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the squared error of one step and of `IMAGINED` steps, in windows that begin with a stored carry.

    Args:
        params: `{"dynamics": ...}`.
        batch: "observation" `[B, T, 3]`, "action" `[B, T, 1]`, "hidden" `[B, H]`.
        rng_key: not needed.
    """

    def errors(hidden: jax.Array, seen: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        predicted = follow(params["dynamics"], hidden, seen, actions)[1]
        imagined, real = imagine_all(params["dynamics"], hidden, seen, actions, steps=IMAGINED, every=IMAGINED)
        return jnp.mean((predicted[:-1] - seen[1:]) ** 2), jnp.mean((imagined - real) ** 2)

    one, many = map(jnp.mean, jax.vmap(errors)(batch["hidden"], see(batch["observation"]), batch["action"]))
    return one + many, {"one_step": one, "imagined": many}
