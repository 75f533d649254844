from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.equinox import equinox_trainer, split_module
from pamiq_jax.errors import InvalidValueError, LossOutputError, StepStructureError
from pamiq_jax.testing import check_trainer

KEY = jax.random.key(0)
BATCH = jax.random.normal(KEY, (8, 3))


class Net(eqx.Module):
    body: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, rng_key: jax.Array) -> None:
        first, second = jax.random.split(rng_key)
        self.body = eqx.nn.Linear(3, 4, key=first)
        self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.5, mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 2, key=second)

    def __call__(self, x: jax.Array, state: Any, rng_key: Any = None) -> Any:
        x, state = self.norm(self.body(x), state)
        return self.head(self.dropout(x, key=rng_key)), state


def batched(module: Net, x: jax.Array, state: Any, rng_keys: Any = None) -> Any:
    return jax.vmap(module, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))(x, state, rng_keys)


def loss_fn(module: Net, state: Any, batch: Any, rng_key: jax.Array) -> Any:
    y, state = batched(module, batch, state, jax.random.split(rng_key, len(batch)))
    return jnp.mean((y - 1) ** 2), (state, {"mean": y.mean()})


PARTS = split_module(*eqx.nn.make_with_state(Net)(KEY))


def test_it_keeps_the_contract() -> None:
    trainer = equinox_trainer(PARTS, loss_fn, optax.sgd(0.1, momentum=0.9), model="net")
    check_trainer(trainer, {"net": PARTS.params}, BATCH, tolerance=1e-4)


def test_statistics_are_taken_over_and_inference_uses_them() -> None:
    trainer = equinox_trainer(PARTS, loss_fn, optax.sgd(0.0))
    step, state = jax.jit(trainer.step), trainer.init(KEY, PARTS.params)
    for _ in range(20):
        state, _ = step(state, BATCH)
    published = trainer.publish(state)
    net, _ = PARTS.module(published)
    body = jax.vmap(net.body)(BATCH)
    mean, variance = body.mean(axis=0), body.var(axis=0)
    normed = (body[:1] - mean[None]) / jnp.sqrt(variance + 1e-5)[None]
    one = jax.jit(lambda params, x: PARTS.apply(params, x, method=batched))(published, BATCH[:1])
    np.testing.assert_allclose(one[0], net.head(normed[0]), rtol=1e-3, atol=1e-3)


def test_a_filter_says_what_is_trained() -> None:
    only_head = eqx.tree_at(
        lambda net: (net.head.weight, net.head.bias),
        jax.tree.map(lambda _: False, PARTS.params["module"]),
        (True, True),
    )
    trainer = equinox_trainer(PARTS, loss_fn, optax.adam(0.1), trained=only_head)
    after, _ = jax.jit(trainer.step)(trainer.init(KEY, PARTS.params), BATCH)
    before, now = PARTS.params["module"], after.params["module"]
    np.testing.assert_array_equal(now.body.weight, before.body.weight)
    assert not np.array_equal(now.head.weight, before.head.weight)


def test_its_gradients_can_be_clipped_and_its_layers_have_optimizers_of_their_own() -> None:
    trainer = equinox_trainer(PARTS, loss_fn, optax.sgd(0.0))
    trainer = pj.clip_gradients(pj.with_optimizers(trainer, {"head": optax.sgd(1.0)}), 1e-3)
    after, metrics = jax.jit(trainer.step)(trainer.init(KEY, PARTS.params), BATCH)
    moved = jax.tree.map(lambda new, old: float(jnp.linalg.norm(new - old)), after.params, PARTS.params)["module"]
    assert float(metrics["gradient_norm"]) > 1e-3
    assert moved.body.weight == 0
    assert 0 < moved.head.weight <= 1.01e-3


def test_a_module_where_values_are_wanted_is_refused() -> None:
    module, state = eqx.nn.make_with_state(Net)(KEY)
    with pytest.raises(InvalidValueError, match=r"split_module\(state\) is None, .*make_with_state"):
        split_module(module)
    with pytest.raises(InvalidValueError, match=r"split_module\(module\) is 'Dropout', expected a module with arrays"):
        split_module(eqx.nn.Dropout(0.5))
    trainer = equinox_trainer(PARTS, loss_fn, optax.sgd(0.1))
    with pytest.raises(InvalidValueError, match=r"expected the module's `parts.params`: .*functions"):
        trainer.init(KEY, module)
    del state


def test_a_loss_that_loses_the_state_is_refused() -> None:
    forgetful = equinox_trainer(PARTS, lambda *arguments: (loss_fn(*arguments)[0], (None, {})), optax.sgd(0.1))
    with pytest.raises(StepStructureError, match="with the state that the module gave back"):
        forgetful.step(forgetful.init(KEY, PARTS.params), BATCH)
    silent = equinox_trainer(PARTS, lambda *arguments: loss_fn(*arguments)[0], optax.sgd(0.1))
    with pytest.raises(LossOutputError, match="expected"):
        silent.step(silent.init(KEY, PARTS.params), BATCH)
