from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer import (
    Trainer,
    compile_trainer,
    explain_donation,
    gradient_trainer,
    own,
)

KEY = jax.random.key(0)
PARAMS = {"policy": jnp.zeros(()), "value": jnp.zeros(()), "world": jnp.float32(5)}


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    loss = 3 * batch * params["policy"] + 4 * batch * params["value"]
    return loss, {"world": jnp.sum(params.get("world", jnp.zeros(())))}


def after(trainer: Trainer[Any, Any], *batches: float) -> tuple[list[float], Any]:
    state, metrics = trainer.init(KEY, PARAMS), {}
    for batch in batches:
        state, metrics = trainer.step(state, jnp.float32(batch))
    return [float(state.params["policy"]), float(state.params["value"])], metrics


def test_each_model_has_its_optimizer_and_schedule() -> None:
    fading = optax.piecewise_constant_schedule(1.0, {1: 0.0})
    trainer = gradient_trainer(loss_fn, {"policy": optax.sgd(fading), "value": optax.sgd(0.5)})
    assert trainer.trains == ("policy", "value")
    assert after(trainer, 1.0, 1.0)[0] == [-3, -4]


def test_the_norm_is_over_all_models_and_told_as_it_was_before_clipping() -> None:
    sgd = {"policy": optax.sgd(1.0), "value": optax.sgd(1.0)}
    params, metrics = after(gradient_trainer(loss_fn, sgd, max_gradient_norm=1.0), 2.0)
    assert params == pytest.approx([-0.6, -0.8])
    assert float(metrics["gradient_norm"]) == 10
    measured, metrics = after(gradient_trainer(loss_fn, sgd, max_gradient_norm=float("inf")), 2.0)
    assert measured == [-6, -8]
    assert float(metrics["gradient_norm"]) == 10


def test_accumulated_gradients_are_averaged_then_clipped() -> None:
    trainer = gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy", "value"), accumulate=2, max_gradient_norm=5.0)
    assert after(trainer, 1.0)[0] == [0, 0]
    assert after(trainer, 1.0, 3.0)[0] == pytest.approx([-3, -4])


def test_a_read_model_is_a_constant_for_the_loss() -> None:
    trainer = gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy", "value"), reads=("world",))
    state, metrics = trainer.step(trainer.init(KEY, PARAMS), jnp.float32(1))
    assert float(metrics["world"]) == 5
    assert state.params.keys() == trainer.publish(state).keys() == {"policy", "value"}
    fresh = trainer.receive(state, {"world": jnp.float32(6)})
    assert float(trainer.step(fresh, jnp.float32(1))[1]["world"]) == 6
    with pytest.raises(UnknownNameError, match=r"trainer.receive: no model is named 'x'; .*'policy', 'value', 'world'"):
        trainer.receive(state, {"x": jnp.float32(6)})


def test_a_read_model_is_never_donated_and_costs_no_copy() -> None:
    trainer = gradient_trainer(loss_fn, optax.adam(1.0), trains=("policy", "value"), reads=("world",))
    world = jnp.ones(3)
    state = trainer.receive(own(trainer.init(KEY, PARAMS | {"world": world})), {"world": world})
    rows = {row.leaf: row.reason for row in explain_donation(trainer, jax.eval_shape(lambda: state)).rows}
    assert rows[".reads['world']"] == "read from another trainer"
    programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, jnp.float32(1), steps=2)
    state, _ = programs.chunk(state, jnp.float32(1), 0, KEY)
    assert state.reads["world"] is world


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        (
            {"max_gradient_norm": 0.0},
            InvalidValueError,
            r"max_gradient_norm\) is 0.0, expected more than 0; .*measures",
        ),
        ({"accumulate": 0}, InvalidValueError, r"accumulate\) is 0, expected an integer from 1"),
        ({"accumulate": 1.5}, InvalidValueError, r"accumulate\) is 1.5, expected an integer from 1"),
        ({"reads": ("world",)}, InvalidValueError, r"trains\) is None, expected names of models"),
        ({"trains": ("policy",), "reads": ("policy",)}, InvalidValueError, r"reads\) is \['policy'\], expected other"),
        ({"trains": ("policy",), "reads": "world"}, InvalidValueError, r"reads\) is 'world', .*write \('world',\)"),
        (
            {"tx": {"policy": optax.sgd(1.0)}, "trains": ("value",)},
            UnknownNameError,
            "no trained model is named 'policy'",
        ),
        (
            {"tx": {"policy": optax.sgd(1.0)}, "trains": ("policy", "value")},
            UnknownNameError,
            "no optimizer is named 'value'",
        ),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        gradient_trainer(loss_fn, **({"tx": optax.sgd(1.0)} | options))


def test_a_read_model_that_is_not_given_is_refused() -> None:
    trainer = gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy",), reads=("moon",))
    with pytest.raises(UnknownNameError, match=r"trainer.init: no model is named 'moon'"):
        trainer.init(KEY, PARAMS)
