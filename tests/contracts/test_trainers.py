"""Every trainer passes the public suite: a new one is one more row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import Trainer, TrainerState, custom_trainer, gradient_trainer

MODELS = {
    "encoder": {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full((3,), 0.1)},
    "decoder": {"w": jnp.linspace(0.5, -0.5, 6).reshape(3, 2)},
}
BATCH = jnp.linspace(-2.0, 1.5, 8).reshape(4, 2)


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    """Return a denoising autoencoder's loss, so that the key matters."""
    noisy = batch + 0.1 * jax.random.normal(rng_key, batch.shape)
    code = jnp.tanh(noisy @ params["encoder"]["w"] + params["encoder"]["b"][None, :])
    error = jnp.mean((code @ params["decoder"]["w"] - batch) ** 2)
    return error, {"code": jnp.mean(code)}


def encoder_loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    del rng_key
    return jnp.mean((batch @ params["encoder"]["w"] + params["encoder"]["b"][None, :] - 1) ** 2), {}


class AveragedState(TrainerState[Any]):
    average: Any


def averaged_trainer() -> Trainer[AveragedState, jax.Array]:
    """Return a trainer that publishes a moving average of its parameters."""
    inner = gradient_trainer(loss_fn, optax.adam(1e-2))

    def init(rng_key: jax.Array, params: Any) -> AveragedState:
        state = inner.init(rng_key, params)
        return AveragedState(state.params, state.opt_state, state.step, rng_key, average=params)

    def step(state: AveragedState, batch: jax.Array) -> Any:
        state, metrics = inner.step(state, batch)
        average = optax.incremental_update(state.params, state.average, 0.1)
        return state.replace(average=average), metrics

    return custom_trainer(init, step, publish=lambda state: state.average, publishes=("encoder", "decoder"))


def resetting_trainer() -> Trainer[TrainerState[Any], jax.Array]:
    """Return a trainer that forgets its momentum at the start of a run, and publishes half precision."""
    tx = optax.sgd(1e-2, momentum=0.9)
    inner = gradient_trainer(loss_fn, tx)

    def publish(state: TrainerState[Any]) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params)

    def setup(state: TrainerState[Any]) -> TrainerState[Any]:
        return state.replace(opt_state=tx.init(state.params))

    return custom_trainer(inner.init, inner.step, setup=setup, publish=publish)


def python_trainer() -> Trainer[TrainerState[Any], jax.Array]:
    """Return a trainer whose step decides in Python, so that it cannot be traced."""
    inner = gradient_trainer(loss_fn, optax.sgd(1e-2))
    step_once = jax.jit(inner.step)

    def step(state: TrainerState[Any], batch: jax.Array) -> Any:
        after, metrics = step_once(state, batch)
        if float(metrics["loss"]) > 10:
            return state.replace(step=state.step + 1), metrics
        return after, metrics

    return custom_trainer(inner.init, step, compiled=False)


def with_optimizer(tx: Any) -> Trainer[TrainerState[Any], jax.Array]:
    return gradient_trainer(loss_fn, tx)


TRAINERS: dict[str, Trainer[Any, Any]] = {
    "adam": with_optimizer(optax.adam(1e-2)),
    "sgd with momentum": with_optimizer(optax.sgd(1e-2, momentum=0.9)),
    "clipped, with a schedule": with_optimizer(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-2, 100)))
    ),
    "schedule free": with_optimizer(optax.contrib.schedule_free(optax.sgd(1e-2), learning_rate=1e-2)),
    "injected hyperparameters": with_optimizer(optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)),
    "accumulating": with_optimizer(optax.MultiSteps(optax.adam(1e-2), every_k_schedule=2)),
    "publishing one of two": gradient_trainer(
        loss_fn, optax.adam(1e-2), trains=("encoder", "decoder"), publishes=("encoder",)
    ),
    "training one of two": gradient_trainer(encoder_loss_fn, optax.adam(1e-2), trains=("encoder",)),
    "averaged": averaged_trainer(),
    "resetting": resetting_trainer(),
    "in Python": python_trainer(),
}


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
def test_trainer(trainer: Trainer[Any, Any]) -> None:
    check_trainer(trainer, MODELS, BATCH)


def test_parameters_may_be_any_tree() -> None:
    trainer = gradient_trainer(lambda w, batch, key: (jnp.mean((batch @ w) ** 2), {}), optax.adam(0.1))
    check_trainer(trainer, jnp.ones(2), BATCH, rng_key=jax.random.key(7))
