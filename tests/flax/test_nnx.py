from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, LossOutputError, MutatedModuleError
from pamiq_jax.flax import nnx_trainer, split_module
from pamiq_jax.testing import check_trainer
from tests.runtime.fakes import World

KEY = jax.random.key(0)
BATCH = jax.random.normal(KEY, (8, 3))


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.dropout(self.norm(self.body(x))))


NET = Net(nnx.Rngs(0))
PARTS = split_module(NET)


def loss_fn(module: Net, batch: Any) -> Any:
    y = module(batch)
    return jnp.mean((y - 1) ** 2), {"mean": y.mean()}


def names(tree: Any) -> set[str]:
    return {str(path[0].key) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


def test_it_keeps_the_contract() -> None:
    trainer = nnx_trainer(PARTS, loss_fn, optax.sgd(0.1, momentum=0.9), model="net")
    check_trainer(trainer, {"net": PARTS.params}, BATCH, tolerance=1e-4)


def test_statistics_are_taken_over_and_inference_uses_them() -> None:
    trainer = nnx_trainer(PARTS, loss_fn, optax.sgd(0.0))
    step, state = jax.jit(trainer.step), trainer.init(KEY, PARTS.params)
    for _ in range(20):
        state, _ = step(state, BATCH)
    published = trainer.publish(state)
    assert names(published) == {"body", "norm", "head"}  # no stream of random numbers
    body = BATCH @ NET.body.kernel[...]
    mean, variance = body.mean(axis=0), body.var(axis=0)
    np.testing.assert_allclose(published["norm"]["mean"][...], mean, rtol=1e-4, atol=1e-5)
    normed = (body[:1] - mean[None]) / jnp.sqrt(variance + 1e-5)[None]
    one = jax.jit(PARTS.apply)(published, BATCH[:1])
    np.testing.assert_allclose(one, normed @ NET.head.kernel[...], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one, PARTS.apply(published, BATCH[:1]), rtol=1e-5)


def test_another_step_drops_others_and_a_module_stays_as_it_was() -> None:
    trainer = nnx_trainer(PARTS, loss_fn, optax.sgd(0.1))
    state = trainer.init(KEY, PARTS.params)
    step = jax.jit(trainer.step)
    _, first = step(state, BATCH)
    _, second = step(state.replace(step=state.step + 1), BATCH)
    assert float(first["mean"]) != float(second["mean"])
    assert not NET.dropout.deterministic
    assert float(jnp.sum(NET.norm.mean[...])) == 0


def test_a_filter_says_what_is_trained() -> None:
    trainer = nnx_trainer(PARTS, loss_fn, optax.adam(0.1), wrt=nnx.All(nnx.Param, nnx.PathContains("head")))
    state = trainer.init(KEY, PARTS.params)
    assert names(state.opt_state[0].mu) == {"head"}
    after, _ = jax.jit(trainer.step)(state, BATCH)
    np.testing.assert_array_equal(after.params["body"]["kernel"][...], PARTS.params["body"]["kernel"][...])
    assert not np.array_equal(after.params["head"]["kernel"][...], PARTS.params["head"]["kernel"][...])
    none = nnx_trainer(PARTS, loss_fn, optax.adam(0.1), wrt=nnx.PathContains("tail"))
    with pytest.raises(InvalidValueError, match=r"the trained part of the model is .*, expected at least one array"):
        none.init(KEY, PARTS.params)


def test_a_module_that_inference_changes_is_refused() -> None:
    def in_training_mode(module: Net, x: jax.Array) -> jax.Array:
        module.train()
        return module(x)

    def counting(module: Net, x: jax.Array) -> jax.Array:
        module.seen = nnx.Variable(jnp.zeros(()))
        return module(x)

    with pytest.raises(MutatedModuleError, match=r"changed its module: .*'norm'.*'mean'.* evaluation mode"):
        jax.jit(lambda params, x: PARTS.apply(params, x, method=in_training_mode))(PARTS.params, BATCH)
    with pytest.raises(MutatedModuleError, match="'seen'"):
        PARTS.apply(PARTS.params, BATCH, method=counting)


def test_a_module_where_values_are_wanted_is_refused() -> None:
    trainer = nnx_trainer(PARTS, loss_fn, optax.sgd(0.1))
    with pytest.raises(InvalidValueError, match=r"a module object is no state: .*nnx.split\(module\)"):
        trainer.init(KEY, NET)
    with pytest.raises(
        InvalidValueError, match=r"is <class '.*State'>, expected the module's `parts.params`: .*missing"
    ):
        trainer.init(KEY, nnx.state(NET, nnx.BatchStat))
    with pytest.raises(InvalidValueError, match=r"split_module\(module\) is <class 'dict'>, expected an nnx module"):
        split_module({})
    silent = nnx_trainer(PARTS, lambda module, batch: module(batch).mean(), optax.sgd(0.1))
    with pytest.raises(LossOutputError, match="expected"):
        silent.step(silent.init(KEY, PARTS.params), BATCH)


class Recurrent(nnx.Module):
    def __init__(self, carry_init: Any = None) -> None:
        cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
        cell.carry_init = carry_init
        self.rnn = nnx.RNN(cell)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.rnn(x[None])


def test_a_key_that_is_drawn_and_not_used_is_no_change() -> None:
    parts = split_module(Recurrent())
    expected = Recurrent()(BATCH)
    np.testing.assert_allclose(parts.apply(parts.params, BATCH), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(parts.apply)(parts.params, BATCH), expected, rtol=1e-4)
    trainer = nnx_trainer(parts, lambda module, batch: (jnp.mean(module(batch) ** 2), {}), optax.sgd(0.1))
    after, _ = jax.jit(trainer.step)(trainer.init(KEY, parts.params), BATCH)
    assert jax.tree.structure(after.params) == jax.tree.structure(parts.params)

    random = split_module(Recurrent(jax.nn.initializers.normal()))
    with pytest.raises(MutatedModuleError, match=r"'rnn'.*'count'.* give random numbers a key"):
        random.apply(random.params, BATCH)


def updated_in_place(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    nnx.update(NET, params["net"])
    return carry, NET(observation[None])[0, 0], {}


def in_training_mode(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    return carry, NET(observation[None])[0, 0], {}


def remembering(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    NET.cache = observation
    return carry, observation[0], {}


@pytest.mark.parametrize("act", [updated_in_place, in_training_mode, remembering])
def test_an_agent_that_changes_a_module_it_captured_is_told_what_to_write(act: Any) -> None:
    interaction = pj.Interaction(pj.Agent(act), World())
    system = pj.System(models={"net": pj.Model(PARTS.params, PARTS.apply)}, interaction=interaction)
    with pytest.raises(Exception, match="Cannot mutate") as caught:
        pj.compile_system(system)
    assert any("`parts.apply(params, ...)`" in note for note in caught.value.__notes__)
