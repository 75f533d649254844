"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) as a trainer.

A step is one whole update: all epochs and minibatches over one rollout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.demo.advantages import generalized_advantages
from pamiq_jax.demo.networks import apply_network
from pamiq_jax.trainer import Trainer, TrainerState, custom_trainer
from pamiq_jax.types import Metrics, Params

type Batch = dict[str, Any]
"""A rollout or a minibatch: arrays by name."""


@dataclass(frozen=True)
class PPOConfig:
    """What the update depends on; all of it is static.

    Attributes:
        learning_rate: at the start; it falls linearly to `final_learning_rate` over `annealing_updates`.
    """

    num_epochs: int = 8
    num_minibatches: int = 8
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    annealing_updates: int = 300
    discount: float = 0.98
    gae_lambda: float = 0.9
    clip_range: float = 0.2
    value_coefficient: float = 0.5
    max_gradient_norm: float = 0.5


def ppo_trainer(config: PPOConfig) -> Trainer[TrainerState[Params], Batch]:
    """Return a trainer of the models "policy" and "value" on rollouts `[T + 1, N, ...]`.

    A rollout has "observation", "action", "reward", "terminated", "truncated", "autoreset" and "log_prob";
    its last row only says what came after the row before. Both models are published with the step that
    made them, so that whoever reads them can tell whether they belong together.

    Args:
        config: static.

    Example:
        >>> trainer = ppo_trainer(PPOConfig())
        >>> trainer.publishes is None  # all that it trains
        True
    """
    tx = optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optax.adam(_learning_rate(config), eps=1e-5))

    def init(rng_key: jax.Array, params: Params, /) -> TrainerState[Params]:
        # Compiled as one, since a dozen small arrays made one by one are a dozen compilations.
        opt_state = jax.jit(tx.init)(params)
        return TrainerState(params=params, opt_state=opt_state, step=jnp.zeros((), jnp.int32), rng_key=rng_key)

    def step(state: TrainerState[Params], rollout: Batch, /) -> tuple[TrainerState[Params], Metrics]:
        batch = make_batch(config, state.params, rollout)
        rng_key = jax.random.fold_in(state.rng_key, state.step)
        indices = _minibatch_indices(config, batch["weight"].shape[0], rng_key)
        learn = partial(_learn, config, tx, batch)
        (params, opt_state), metrics = jax.lax.scan(learn, (state.params, state.opt_state), indices)
        state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        return state, jax.tree.map(jnp.mean, metrics)

    def publish(state: TrainerState[Params], /) -> Params:
        return {name: {"network": layers, "step": state.step} for name, layers in state.params.items()}

    return custom_trainer(init, step, publish=publish)


def _learning_rate(config: PPOConfig) -> optax.Schedule:
    gradient_steps = config.annealing_updates * config.num_epochs * config.num_minibatches
    return optax.linear_schedule(config.learning_rate, config.final_learning_rate, gradient_steps)


def _minibatch_indices(config: PPOConfig, rows: int, rng_key: jax.Array) -> jax.Array:
    """Return `[num_epochs * num_minibatches, rows // num_minibatches]`: each epoch is a permutation of its own."""
    keys = jax.random.split(rng_key, config.num_epochs)
    orders = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return orders.reshape(config.num_epochs * config.num_minibatches, -1)


def _learn(config: PPOConfig, tx: optax.GradientTransformation, batch: Batch, carry: Any, indices: jax.Array) -> Any:
    params, opt_state = carry
    minibatch = jax.tree.map(lambda leaf: leaf[indices], batch)
    gradients, metrics = jax.grad(partial(ppo_loss, config), has_aux=True)(params, minibatch)
    # Adam raises a float to the power of its int32 count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(gradients, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), metrics


def make_batch(config: PPOConfig, params: Params, rollout: Batch) -> Batch:
    """Return a rollout as one flat batch `[T * N, ...]`, with advantages and returns under the given parameters.

    Args:
        config: static.
        params: `{"policy": ..., "value": ...}`.
        rollout: leaves `[T + 1, N, ...]`.
    """
    values = apply_network(params["value"], rollout["observation"])[..., 0]
    steps = {name: leaf[:-1] for name, leaf in rollout.items()}
    advantages = generalized_advantages(steps, values, config.discount, config.gae_lambda)
    weight = 1.0 - steps["autoreset"].astype(jnp.float32)
    mean = jnp.average(advantages, weights=weight)
    deviation = jnp.sqrt(jnp.average((advantages - mean) ** 2, weights=weight))
    batch = {
        "observation": steps["observation"],
        "action": steps["action"],
        "log_prob": steps["log_prob"],
        "advantage": (advantages - mean) / (deviation + 1e-8),
        "return": advantages + values[:-1],
        "weight": weight,
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), batch)


def ppo_loss(config: PPOConfig, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    """Return the loss `[]`, clipped surrogate plus squared value error, and metrics.

    Args:
        config: static.
        params: `{"policy": ..., "value": ...}`.
        batch: leaves `[B, ...]` from `make_batch`; rows of weight 0 do not count.
    """
    log_probs = jax.nn.log_softmax(apply_network(params["policy"], batch["observation"]))
    ratio = jnp.exp(log_prob_of(log_probs, batch["action"]) - batch["log_prob"])
    clipped = jnp.clip(ratio, 1.0 - config.clip_range, 1.0 + config.clip_range)
    surrogate = jnp.minimum(ratio * batch["advantage"], clipped * batch["advantage"])
    values = apply_network(params["value"], batch["observation"])[..., 0]
    average = partial(_weighted_mean, weights=batch["weight"])
    metrics = {
        "policy_loss": -average(surrogate),
        "value_loss": average((values - batch["return"]) ** 2),
        "entropy": average(-jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)),
        "clipped": average((jnp.abs(ratio - 1.0) > config.clip_range).astype(jnp.float32)),
    }
    return metrics["policy_loss"] + config.value_coefficient * metrics["value_loss"], metrics


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    # A minibatch of resets alone, however unlikely, must not divide by zero.
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def log_prob_of(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """Return the entry of `log_probs` `[..., A]` at `action` int `[...]`.

    Example:
        >>> log_prob_of(jnp.array([[-1.0, -2.0]]), jnp.array([1])).tolist()
        [-2.0]
    """
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
