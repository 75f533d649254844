"""A pole balanced by an agent, an environment, a rollout and a trainer that are one compiled program.

The environment is two functions of JAX in the form of gymnax; its physics are Gymnasium's CartPole-v1. The system is
one like any other: `run_scanned` runs it as one program, `run_lockstep` tick by tick, `launch` live. An actor and a
critic learn from each rollout of 16 ticks of 64 poles once.

A2C: Mnih et al. 2016, arXiv:1602.01783; GAE: Schulman et al. 2015, arXiv:1506.02438. Run: `python -m examples.cartpole`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.envs import JaxEnvironment

POLES, ROLLOUT, HIDDEN = 64, 16, 64
DISCOUNT, LAMBDA = 0.99, 0.95

# --- The environment.


class Physics(NamedTuple):
    """What the environment depends on, in SI units."""

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    step_seconds: float = 0.02
    most_steps: int = 500


class Cart(NamedTuple):
    """The state of one environment: float32 `[4]`, and the steps of the episode so far, int32 `[]`."""

    body: jax.Array
    steps: jax.Array


def reset(rng_key: jax.Array, physics: Physics) -> tuple[jax.Array, Cart]:
    """Return `(observation float32 [4], state)` of a cart nearly at rest: position, speed, angle, angular speed."""
    body = jax.random.uniform(rng_key, (4,), minval=-0.05, maxval=0.05)
    return body, Cart(body, jnp.int32(0))


def step(rng_key: jax.Array, cart: Cart, action: jax.Array, physics: Physics) -> Any:
    """Return `(observation, state, reward, done, info)` after a push to the left, 0, or to the right, 1."""
    _, speed, angle, spin = cart.body
    mass, moment = physics.cart_mass + physics.pole_mass, physics.pole_mass * physics.half_length
    push = jnp.where(action == 1, physics.force, -physics.force)
    drive = (push + moment * spin**2 * jnp.sin(angle)) / mass
    turning = physics.gravity * jnp.sin(angle) - jnp.cos(angle) * drive
    turning /= physics.half_length * (4 / 3 - physics.pole_mass * jnp.cos(angle) ** 2 / mass)
    driving = drive - moment * turning * jnp.cos(angle) / mass
    body = cart.body + physics.step_seconds * jnp.stack([speed, driving, spin, turning])
    steps = cart.steps + 1
    has_fallen = (jnp.abs(body[0]) > 2.4) | (jnp.abs(body[2]) > 12 * np.pi / 180)
    return body, Cart(body, steps), 1.0, has_fallen | (steps >= physics.most_steps), {"has_fallen": has_fallen}


# --- The agent and its trainer.


def init_networks(rng_key: jax.Array) -> dict[str, Any]:
    """Return first parameters of policy and value, a hidden layer each."""

    def layer(rng_key: jax.Array, inputs: int, outputs: int, scale: float) -> tuple[jax.Array, jax.Array]:
        return scale * jax.random.orthogonal(rng_key, max(inputs, outputs))[:inputs, :outputs], jnp.zeros(outputs)

    keys = jax.random.split(rng_key, 4)
    return {
        "policy": (layer(keys[0], 4, HIDDEN, 1.4), layer(keys[1], HIDDEN, 2, 0.01)),
        "value": (layer(keys[2], 4, HIDDEN, 1.4), layer(keys[3], HIDDEN, 1, 1.0)),
    }


def apply(params: Any, observation: jax.Array) -> jax.Array:
    """Return a network's output `[..., outputs]` for observations `[..., 4]`."""
    (first, bias), (second, last_bias) = params
    hidden = observation @ first
    hidden = jnp.tanh(hidden + jnp.broadcast_to(bias, hidden.shape))
    output = hidden @ second
    return output + jnp.broadcast_to(last_bias, output.shape)


def act(params: Mapping[str, Any], carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    """Push each cart by chance, as the policy has it."""
    action = jax.random.categorical(rng_key, apply(params["policy"], observation))
    return carry, action.astype(jnp.int32), {}


def advantages_of(reward: jax.Array, falls: jax.Array, done: jax.Array, values: jax.Array, following: jax.Array) -> Any:
    """Return how much better it went than expected, `[T, N]` like all arguments."""
    errors = (1 - DISCOUNT) * reward + DISCOUNT * jnp.where(falls, 0, following) - values

    def back(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, ends = now
        advantage = error + DISCOUNT * LAMBDA * jnp.where(ends, 0, later)
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(reward[0]), (errors, done), reverse=True)[1]


def loss_fn(params: Any, rollout: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of actor and critic on a rollout `[T, N, ...]`, and how often a pole falls."""
    values = apply(params["value"], rollout["observation"])[..., 0]
    following = apply(params["value"], rollout["next_observation"])[..., 0]
    known, ahead = jax.lax.stop_gradient((values, following))
    advantages = advantages_of(rollout["reward"], rollout["has_fallen"], rollout["done"], known, ahead)
    scores = jax.nn.log_softmax(apply(params["policy"], rollout["observation"]))
    score = jnp.take_along_axis(scores, rollout["action"][..., None], axis=-1)[..., 0]
    normed = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-6)
    entropy = -jnp.mean(jnp.sum(jnp.exp(scores) * scores, axis=-1))
    critic = jnp.mean((values - (known + advantages)) ** 2)
    loss = -jnp.mean(score * normed) + critic - 0.01 * entropy
    return loss, {"falls": jnp.mean(rollout["has_fallen"].astype(jnp.float32)), "entropy": entropy}


# --- The system.


def make_system(poles: int = POLES, seed: int = 0) -> pj.System:
    """Return a system in which a number of poles are balanced at once."""
    environment = JaxEnvironment(
        reset, step, Physics(), action=np.int32(0), num_envs=poles, autoreset=True, info=("has_fallen",)
    )
    trainer = pj.clip_gradients(pj.gradient_trainer(loss_fn, optax.adam(1e-2)), 1.0)
    return pj.System(
        models={name: pj.Model(params) for name, params in init_networks(jax.random.key(seed)).items()},
        buffers={"rollout": pj.rollout_buffer(ROLLOUT, bootstrap=0)},
        trainers={"a2c": pj.Schedule(trainer, data="rollout", batch_size=ROLLOUT)},
        interaction=pj.Interaction(pj.Agent(act), environment),
    )


def main() -> None:
    """Balance 64 poles for 32,000 ticks, two million steps, in one program."""
    ticks = 2_000 * ROLLOUT
    result = pj.run_scanned(make_system(), ticks, train_every=ROLLOUT)
    falls = np.maximum(result.history["a2c"]["falls"], 1e-9)
    print(f"{ticks * POLES:,} steps in {result.seconds:.2f} s, {ticks * POLES / result.seconds:,.0f} a second")
    for part in np.array_split(falls, 5):
        print(f"a fall every {1 / part.mean():,.0f} steps")


if __name__ == "__main__":
    main()
