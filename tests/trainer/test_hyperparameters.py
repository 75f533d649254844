from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.testing.comparing import form_difference
from pamiq_jax.trainer import (
    clip_gradients,
    compile_trainer,
    get_hyperparameters,
    gradient_trainer,
    set_hyperparameters,
    with_hyperparameters,
    with_optimizers,
)
from pamiq_jax.trainer.compile import own

KEY = jax.random.key(0)
SGD = optax.inject_hyperparams(optax.sgd)


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    return sum(jnp.sum(leaf * batch) for leaf in jax.tree.leaves(params)), {}


def first_state(tx: Any) -> Any:
    return gradient_trainer(loss_fn, tx).init(KEY, {"policy": jnp.zeros(2), "value": jnp.zeros(2)})


def test_they_are_found_and_set_wherever_they_are() -> None:
    state = first_state(optax.chain(optax.clip(1.0), optax.MultiSteps(SGD(learning_rate=0.5), 2)))
    assert get_hyperparameters(state) == {"learning_rate": 0.5}
    assert get_hyperparameters(set_hyperparameters(state, learning_rate=0.25)) == {"learning_rate": 0.25}
    assert get_hyperparameters(state) == {"learning_rate": 0.5}


def test_two_of_one_name_are_told_apart_by_their_models() -> None:
    trainer = gradient_trainer(loss_fn, SGD(learning_rate=0.5))
    trainer = with_optimizers(trainer, {"value": SGD(learning_rate=0.25, momentum=0.5)})
    state = trainer.init(KEY, {"policy": jnp.zeros(2), "value": jnp.zeros(2)})
    assert get_hyperparameters(state) == {
        "rest.learning_rate": 0.5,
        "value.learning_rate": 0.25,
        "momentum": 0.5,
    }
    changed = set_hyperparameters(state, **{"value.learning_rate": 1.0}, momentum=0.25)
    assert get_hyperparameters(changed) == {"rest.learning_rate": 0.5, "value.learning_rate": 1.0, "momentum": 0.25}
    known = r"\['momentum', 'rest.learning_rate', 'value.learning_rate'\]"
    with pytest.raises(InvalidValueError, match=f"is 'learning_rate', expected one of {known}"):
        set_hyperparameters(state, learning_rate=1.0)


def test_a_change_takes_effect_and_compiles_nothing() -> None:
    tx = SGD(learning_rate=0.5)
    traces: list[int] = []

    def counted(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        traces.append(0)
        return loss_fn(params, batch, rng_key)

    trainer = gradient_trainer(counted, tx)
    step = jax.jit(trainer.step)
    state, _ = step(trainer.init(KEY, jnp.zeros(2)), jnp.ones(2))
    state, _ = step(state, jnp.ones(2))
    changed = set_hyperparameters(state, learning_rate=2)
    assert form_difference(state, changed) is None
    state, _ = step(changed, jnp.ones(2))
    assert state.params.tolist() == [-3, -3]
    assert (len(traces), step._cache_size()) == (1, 1)


def test_a_compiled_chunk_takes_the_change() -> None:
    trainer = with_hyperparameters(lambda rate: gradient_trainer(loss_fn, optax.sgd(rate)), rate=0.5)
    state = own(trainer.init(KEY, jnp.zeros(2)))
    programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, jnp.ones(2), steps=2)
    state, _ = programs.chunk(set_hyperparameters(state, rate=0.25), jnp.ones(2), 0, KEY)
    assert state.params.tolist() == [-0.5, -0.5]
    assert get_hyperparameters(state) == {"rate": 0.25}


def test_committed_and_spread_arrays_stay_where_they_are() -> None:
    mesh = jax.make_mesh((2,), ("member",), axis_types=(jax.sharding.AxisType.Auto,))
    members = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))
    state = jax.device_put({"alone": first_state(SGD(learning_rate=0.5))}, jax.devices()[3])
    changed = set_hyperparameters(state, learning_rate=1.0)
    rate = changed["alone"].opt_state.hyperparams["learning_rate"]
    assert rate.devices() == {jax.devices()[3]}
    assert rate.committed
    many = jax.vmap(SGD(learning_rate=0.5).init)(jnp.zeros((2, 3)))
    spread = jax.device_put(many, jax.tree.map(lambda leaf: members, many))
    changed = set_hyperparameters(spread, learning_rate=np.array([1.0, 2.0]))
    assert form_difference(spread, changed) is None
    assert get_hyperparameters(changed)["learning_rate"].tolist() == [1, 2]


def test_they_are_set_under_jit_and_vmap_too() -> None:
    state = first_state(SGD(learning_rate=0.5))
    rates = jnp.array([1.0, 2.0])
    many = jax.jit(jax.vmap(lambda rate: set_hyperparameters(state, learning_rate=rate)))(rates)
    assert many.opt_state.hyperparams["learning_rate"].tolist() == [1, 2]


def test_what_is_compiled_in_or_on_a_schedule_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"'learning_rate', expected one of \[\]; .*optax.inject_hyperparams"):
        set_hyperparameters(first_state(optax.sgd(0.1)), learning_rate=1.0)
    scheduled = first_state(SGD(learning_rate=optax.linear_schedule(0.5, 0.0, 5), momentum=0.5))
    assert get_hyperparameters(scheduled) == {"learning_rate": 0.5, "momentum": 0.5}
    with pytest.raises(InvalidValueError, match=r"expected one of \['momentum'\]; it follows a schedule"):
        set_hyperparameters(scheduled, learning_rate=1.0)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "nan, expected a finite number"),
        (1e39, r"1e\+39, expected a finite number, also as float32"),
        (1e300, r"1e\+300, expected a finite number, also as float32"),
        ("0.3", r"'0.3', expected a number; write float\(value\)"),
        (True, "True, expected a number"),
        (None, "None, expected a number"),
        (np.array(0.2, object), "expected a number"),
        ([[1.0], [2.0, 3.0]], "expected a number"),
        ([1.0, 2.0], r"expected a number, or an array of shape \(\)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        set_hyperparameters(first_state(SGD(learning_rate=0.5)), learning_rate=value)


def test_a_fraction_for_an_integer_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"hyper-parameter every is 1.5, expected an integer"):
        set_hyperparameters(with_every(), every=1.5)
    with pytest.raises(InvalidValueError, match=r"every is 1099511627776, expected an integer that int32 holds"):
        set_hyperparameters(with_every(), every=2**40)
    assert get_hyperparameters(set_hyperparameters(with_every(), every=3)) == {"every": 3}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rate": float("nan")}, "hyper-parameter rate is nan, expected a finite number"),
        ({"rate": 1e39}, "also as float32"),
        ({"rate": "0.1"}, "expected a number"),
        ({"timeout": 1.0}, r"with_hyperparameters\(name\) is 'timeout', expected a name that is free"),
    ],
)
def test_first_values_are_checked_when_it_is_built(values: Any, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        with_hyperparameters(lambda **rates: gradient_trainer(loss_fn, optax.sgd(0.1)), **values)


def with_every() -> Any:
    trainer = with_hyperparameters(lambda every: gradient_trainer(loss_fn, optax.sgd(0.1)), every=2)
    return trainer.init(KEY, jnp.zeros(2)).replace(hyperparameters={"every": jnp.int32(2)})


def test_weights_of_a_loss_are_hyperparameters() -> None:
    def make_trainer(weight: Any) -> Any:
        trainer = gradient_trainer(lambda w, batch, rng_key: (weight * w, {}), optax.sgd(1.0))
        return clip_gradients(trainer, 2.0 * weight)

    trainer = with_hyperparameters(make_trainer, weight=1.0)
    state = set_hyperparameters(trainer.init(KEY, jnp.zeros(())), weight=3.0)
    state, metrics = trainer.step(state, None)
    assert (float(state.params), float(metrics["gradient_norm"])) == (-3, 3)
    with pytest.raises(InvalidValueError, match=r"clip_gradients\(max_norm\) is -2.0"):
        with_hyperparameters(make_trainer, weight=-1.0)
