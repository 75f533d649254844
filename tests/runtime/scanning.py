"""A small system in a pure world, to be run by every driver."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.envs import JaxEnvironment


def reset(rng_key: jax.Array, most: Any) -> Any:
    place = jax.random.uniform(rng_key, (2,))
    return place, {"place": place, "steps": jnp.int32(0)}


def step(rng_key: jax.Array, state: Any, action: jax.Array, most: Any) -> Any:
    place = state["place"] + 0.1 * action + 0.01 * jax.random.normal(rng_key, (2,))
    steps = state["steps"] + 1
    return place, {"place": place, "steps": steps}, -jnp.sum(place**2), steps >= most, {"steps": steps}


def world(**options: Any) -> JaxEnvironment:
    return JaxEnvironment(
        reset, step, 7, **({"action": np.zeros(2, np.float32), "num_envs": 2, "autoreset": True} | options)
    )


def act(params: Any, carry: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
    noise = jax.random.normal(rng_key, observation.shape)
    return carry + 1, observation @ params["policy"] + noise, {"age": carry}


AGENT = pj.Agent(act, init=lambda rng_key: jnp.zeros(2), resets_on="done")


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    error = batch["observation"] @ params["policy"] + batch["observation"]
    return jnp.mean((error + 0.01 * jax.random.normal(rng_key, error.shape)) ** 2), {"age": jnp.mean(batch["age"])}


def learner(learning_rate: float = 0.1, **options: Any) -> Any:
    return pj.gradient_trainer(loss_fn, optax.adam(learning_rate), **options)


def small_system(environment: Any = None, **parts: Any) -> pj.System:
    schedule = pj.Schedule(learner(), data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    defaults: dict[str, Any] = {
        "models": {"policy": pj.Model(jnp.zeros((2, 2)))},
        "buffers": {"seen": pj.ring_buffer(16)},
        "trainers": {"fit": schedule},
        "interaction": pj.Interaction(AGENT, world() if environment is None else environment),
    }
    return pj.System(**(defaults | parts))
