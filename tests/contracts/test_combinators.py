"""What is built around a trainer keeps the contract of trainers, alone and on top of one another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import (
    Trainer,
    accumulate_gradients,
    alternate,
    clip_gradients,
    ema,
    gradient_trainer,
    guard,
    publish_evaluated,
    set_hyperparameters,
    skip_first,
    with_hyperparameters,
    with_optimizers,
    with_targets,
)

MODELS = {
    "encoder": {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full((3,), 0.1)},
    "decoder": {"w": jnp.linspace(0.5, -0.5, 6).reshape(3, 2)},
}
BATCH = jnp.linspace(-2.0, 1.5, 8).reshape(4, 2)
BOTH = ("encoder", "decoder")


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    noisy = batch + 0.1 * jax.random.normal(rng_key, batch.shape)
    code = jnp.tanh(noisy @ params["encoder"]["w"] + params["encoder"]["b"][None, :])
    error = jnp.mean((code @ params["decoder"]["w"] - batch) ** 2)
    return error, {"code": jnp.mean(code)}


def target_loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    error, metrics = loss_fn(params, batch, rng_key)
    aim = batch @ params["target"]["w"]
    return error + jnp.mean((batch @ params["encoder"]["w"] - aim + 1) ** 2), metrics


def adam(**options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.adam(1e-2), **options)


def half(name: str, other: str, **options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.adam(1e-2), trains=(name,), reads=(other,), **options)


def game(**options: Any) -> Trainer[Any, Any]:
    return alternate(half("encoder", "decoder", **options), half("decoder", "encoder"), turns=(2, 1))


def targeting(**options: Any) -> Trainer[Any, Any]:
    inner = gradient_trainer(target_loss_fn, optax.adam(1e-2), trains=BOTH, reads=("target",))
    return with_targets(inner, {"target": "encoder"}, decay=0.9, **options)


def injected(learning_rate: float = 1e-2) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.adam(learning_rate))


def schedule_free(**options: Any) -> Trainer[Any, Any]:
    tx = optax.contrib.schedule_free(optax.sgd(0.1), learning_rate=0.1)
    return publish_evaluated(gradient_trainer(loss_fn, tx, **options), optax.contrib.schedule_free_eval_params)


FADING = optax.sgd(optax.linear_schedule(0.1, 0.0, 9), momentum=0.9)
TRAINERS: dict[str, Trainer[Any, Any]] = {
    "an optimizer a model": with_optimizers(adam(), {"decoder": FADING}),
    "accumulating": accumulate_gradients(adam(), 2),
    "clipped": clip_gradients(adam(), 0.1),
    "parameter groups": with_optimizers(
        adam(),
        {"biases": FADING},
        labels=lambda params: jax.tree.map(lambda leaf: "biases" if leaf.ndim == 1 else "weights", params),
    ),
    "all of these": accumulate_gradients(clip_gradients(with_optimizers(adam(), {"decoder": FADING}), 0.1), 2),
    "reading": half("encoder", "decoder"),
    "average": ema(adam(), 0.9),
    "average of one": ema(adam(trains=BOTH), 0.9, models=("decoder",)),
    "average on a schedule": ema(adam(), lambda step: 1 - 1 / (1.0 + step.astype(jnp.float32))),
    "targets": targeting(publishes=("target",)),
    "targets that are not published": targeting(),
    "skipping": skip_first(adam(), 1),
    "alternating": game(),
    "alternating, one publishes": alternate(half("encoder", "decoder"), half("decoder", "encoder", publishes=())),
    "hyperparameters": with_hyperparameters(injected, learning_rate=1e-2),
    "average, accumulating": ema(accumulate_gradients(adam(), 2), 0.9),
    "average, alternating": ema(game(), 0.9),
    "skipping, average": skip_first(ema(adam(), 0.9), 1),
    "alternating, average": alternate(ema(half("encoder", "decoder"), 0.9), skip_first(half("decoder", "encoder"), 1)),
    "average, alternating, hyperparameters": alternate(
        with_hyperparameters(lambda decay: ema(half("encoder", "decoder"), decay), decay=0.9),
        half("decoder", "encoder"),
    ),
    "evaluated": schedule_free(),
    "evaluated, one publishes": schedule_free(trains=BOTH, publishes=("decoder",)),
    "evaluated, all of the above": accumulate_gradients(
        clip_gradients(with_optimizers(schedule_free(), {"decoder": FADING}), 0.1), 2
    ),
    "guarded": guard(adam()),
    "average, alternating, guarded": ema(alternate(guard(half("encoder", "decoder")), half("decoder", "encoder")), 0.9),
}


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
def test_combinator(trainer: Trainer[Any, Any]) -> None:
    check_trainer(trainer, MODELS, BATCH)


@pytest.mark.parametrize("name", ["average, accumulating", "targets", "alternating, average"])
def test_a_population_of_it_is_a_vmap(name: str) -> None:
    trainer, keys = TRAINERS[name], jax.random.split(jax.random.key(1), 2)
    states = jax.vmap(trainer.init, in_axes=(0, None))(keys, MODELS)
    alone = trainer.init(keys[1], MODELS)

    @jax.jit
    def run(state: Any) -> Any:
        return jax.lax.scan(trainer.step, trainer.setup(state), jnp.stack([BATCH] * 2))[0]

    states, alone = jax.vmap(run)(jax.vmap(run)(states)), run(run(alone))
    published = jax.tree.leaves(jax.vmap(trainer.publish)(states))
    for many, one in zip(published, jax.tree.leaves(trainer.publish(alone)), strict=True):
        assert jnp.allclose(many[1], one, atol=1e-5)


def test_members_of_a_population_have_hyperparameters_of_their_own() -> None:
    trainer, keys = with_hyperparameters(injected, learning_rate=1e-2), jax.random.split(jax.random.key(1), 2)
    states = jax.vmap(trainer.init, in_axes=(0, None))(keys, MODELS)
    states = set_hyperparameters(states, learning_rate=[0.0, 0.1])
    after, _ = jax.vmap(trainer.step, in_axes=(0, None))(states, BATCH)
    moved = jnp.abs(after.params["decoder"]["w"] - states.params["decoder"]["w"])
    assert float(moved[0].max()) == 0
    assert float(moved[1].max()) == pytest.approx(0.1, rel=1e-3)
