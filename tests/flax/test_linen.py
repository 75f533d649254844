from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze, unfreeze

from pamiq_jax.errors import InvalidValueError, StepStructureError
from pamiq_jax.flax import linen_trainer
from pamiq_jax.testing import check_trainer

KEY = jax.random.key(0)
BATCH = jax.random.normal(KEY, (8, 3))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


NET = Net()
VARIABLES = NET.init(KEY, BATCH)


def loss_fn(variables: Any, batch: Any, rngs: Any) -> Any:
    y, updates = NET.apply(variables, batch, train=True, mutable=["batch_stats"], rngs=rngs)
    return jnp.mean((y - 1) ** 2), (updates, {"mean": y.mean()})


def test_it_keeps_the_contract() -> None:
    check_trainer(
        linen_trainer(loss_fn, optax.sgd(0.1, momentum=0.9), model="net"), {"net": VARIABLES}, BATCH, tolerance=1e-4
    )


def test_a_bias_whose_gradient_is_zero_but_for_rounding_keeps_the_contract() -> None:
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(2)(
                nn.BatchNorm(use_running_average=False)(nn.Dense(16)(x))
            )  # what it subtracts is the bias

    net = Normed()

    def normed_loss_fn(variables: Any, batch: Any, rngs: Any) -> Any:
        y, updates = net.apply(variables, batch, mutable=["batch_stats"])
        return jnp.mean((y - 1) ** 2), (updates, {})

    check_trainer(linen_trainer(normed_loss_fn, optax.adam(1e-2)), net.init(KEY, BATCH), BATCH)


def test_statistics_are_taken_over_and_published_and_inference_uses_them() -> None:
    trainer = linen_trainer(loss_fn, optax.sgd(0.0), model="net")  # so that only statistics change
    step, state = jax.jit(trainer.step), trainer.init(KEY, {"net": VARIABLES})
    for _ in range(20):
        state, _ = step(state, BATCH)
    published = trainer.publish(state)["net"]
    assert set(published) == {"params", "batch_stats"}
    dense = BATCH @ VARIABLES["params"]["Dense_0"]["kernel"]
    mean, variance = dense.mean(axis=0), dense.var(axis=0)
    np.testing.assert_allclose(published["batch_stats"]["BatchNorm_0"]["mean"], mean, rtol=1e-4, atol=1e-5)
    one = NET.apply(published, BATCH[:1])  # a batch of one has no variance of its own
    np.testing.assert_allclose(one[0], (dense[0] - mean) / jnp.sqrt(variance + 1e-5), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(one, NET.apply(published, BATCH[:1]))  # nor is anything dropped


def test_the_optimizer_sees_parameters_alone_and_keys_change() -> None:
    trainer = linen_trainer(loss_fn, optax.adam(0.1), rngs=("dropout", "noise"))
    state = trainer.init(KEY, VARIABLES)
    assert jax.tree.structure(state.opt_state[0].mu) == jax.tree.structure(VARIABLES["params"])
    step = jax.jit(trainer.step)
    _, first = step(state, BATCH)
    _, second = step(state.replace(step=state.step + 1), BATCH)
    assert float(first["mean"]) != float(second["mean"])


@pytest.mark.parametrize(
    "variables",
    [freeze(VARIABLES), {**VARIABLES, "batch_stats": freeze(VARIABLES["batch_stats"])}],
    ids=["frozen", "frozen in part"],
)
def test_frozen_variables_stay_frozen_and_come_to_the_same(variables: Any) -> None:
    trainer = linen_trainer(loss_fn, optax.sgd(0.1))
    frozen, plain = trainer.init(KEY, variables), trainer.init(KEY, VARIABLES)
    frozen, plain = jax.jit(trainer.step)(frozen, BATCH)[0], jax.jit(trainer.step)(plain, BATCH)[0]
    assert jax.tree.structure(frozen.params) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, unfreeze(dict(frozen.params)), plain.params)


def test_a_module_without_collections_returns_none() -> None:
    dense = nn.Dense(1)
    trainer = linen_trainer(lambda v, batch, rngs: (dense.apply(v, batch).mean(), ({}, {})), optax.sgd(0.1), rngs=())
    state, _ = jax.jit(trainer.step)(trainer.init(KEY, dense.init(KEY, BATCH)), BATCH)
    assert int(state.step) == 1


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        (NET, r"params is <class '.*Net'>, expected a pytree of arrays; a module object is no state"),
        (VARIABLES["params"], "params is 'a dict with .*Dense_0.*', expected a dict of collections"),
        ({"params": {"w": "ones"}}, r"params\['params'\]\['w'\] is 'ones', expected an array"),
    ],
)
def test_what_are_no_variables_is_refused(params: Any, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        linen_trainer(loss_fn, optax.sgd(0.1)).init(KEY, params)


def test_updates_that_do_not_fit_are_refused() -> None:
    unknown = linen_trainer(lambda v, batch, rngs: (jnp.zeros(()), ({"cache": 1}, {})), optax.sgd(0.1))
    with pytest.raises(StepStructureError, match=r"collections cache, which .* that it has: batch_stats"):
        unknown.step(unknown.init(KEY, VARIABLES), BATCH)
    bare = linen_trainer(lambda v, batch, rngs: jnp.zeros(()), optax.sgd(0.1))
    with pytest.raises(StepStructureError, match=r"something else than \(loss, \(updates, metrics\)\)"):
        bare.step(bare.init(KEY, VARIABLES), BATCH)
    with pytest.raises(InvalidValueError, match=r"'dropout', expected a tuple of names; write \('dropout',\)"):
        linen_trainer(loss_fn, optax.sgd(0.1), rngs="dropout")
