from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, LossOutputError, UnknownNameError
from pamiq_jax.trainer import TrainerState, buffer_pointers, gradient_trainer

BATCH = jnp.arange(4.0)
KEY = jax.random.key(0)


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    noise = jax.random.normal(rng_key)
    error = jnp.mean((jnp.sum(params["w"]) - batch) ** 2)
    return error + 0 * noise, {"error": error, "noise": noise}


def first_state(**options: Any) -> TrainerState[Any]:
    return gradient_trainer(loss_fn, optax.adam(0.1), **options).init(KEY, {"w": jnp.ones(2), "v": jnp.ones(3)})


def test_a_step_is_the_optimizers() -> None:
    tx = optax.sgd(0.1, momentum=0.9)
    trainer = gradient_trainer(loss_fn, tx)
    params = {"w": jnp.ones(2)}
    state, metrics = trainer.step(trainer.init(KEY, params), BATCH)
    gradients = jax.grad(lambda params: loss_fn(params, BATCH, KEY)[0])(params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert jnp.allclose(state.params["w"], optax.apply_updates(params, updates)["w"])
    assert set(metrics) == {"loss", "error", "noise"}
    assert int(state.step) == 1


def test_each_step_draws_from_the_key_folded_with_its_number() -> None:
    trainer = gradient_trainer(loss_fn, optax.sgd(0.1))
    state = trainer.init(KEY, {"w": jnp.ones(2)})
    for step in range(3):
        state, metrics = trainer.step(state, BATCH)
        assert metrics["noise"] == jax.random.normal(jax.random.fold_in(KEY, step))


def test_a_metric_named_loss_takes_the_place_of_the_loss() -> None:
    trainer = gradient_trainer(lambda w, batch, key: (w, {"loss": 2 * w}), optax.sgd(0.1))
    assert float(trainer.step(trainer.init(KEY, jnp.float32(3)), BATCH)[1]["loss"]) == 6


def test_trains_takes_only_the_named_models() -> None:
    assert set(first_state(trains=("w",)).params) == {"w"}
    assert set(first_state().params) == {"w", "v"}


def test_publishes_hands_out_only_the_named_models() -> None:
    trainer = gradient_trainer(loss_fn, optax.adam(0.1), trains=("w", "v"), publishes=("v",))
    state = trainer.init(KEY, {"w": jnp.ones(2), "v": jnp.ones(3)})
    assert trainer.publish(state)["v"] is state.params["v"]
    assert set(trainer.publish(state)) == {"v"}
    assert (trainer.trains, trainer.publishes) == (("w", "v"), ("v",))


def test_publishes_defaults_to_what_is_trained() -> None:
    assert gradient_trainer(loss_fn, optax.adam(0.1), trains=("w",)).publishes == ("w",)


def test_no_leaf_of_the_optimizer_is_a_parameter() -> None:
    # Like an anchor that the parameters are pulled back to.
    tx = optax.GradientTransformation(
        lambda params: {"anchor": params}, lambda updates, state, params: (updates, state)
    )
    params = {"w": jnp.ones(2)}
    state = gradient_trainer(loss_fn, tx).init(KEY, params)
    assert state.params["w"] is params["w"]
    assert not buffer_pointers(state.opt_state) & buffer_pointers(params)


@pytest.mark.parametrize("argument", ["trains", "publishes"])
def test_names_as_one_string_are_refused(argument: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"gradient_trainer\({argument}\) is 'w', .*; write \('w',\)"):
        first_state(**{argument: "w"})


def test_publishing_what_is_not_trained_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"gradient_trainer\(publishes\): no trained model is named 'x'; .*'w'"):
        first_state(trains=("w",), publishes=("x",))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"trainer.init: no model is named 'x'; known: 'v', 'w'"):
        first_state(trains=("x",))


def test_models_by_name_need_a_dict() -> None:
    trainer = gradient_trainer(loss_fn, optax.adam(0.1), trains=("w",))
    with pytest.raises(InvalidValueError, match=r"params is '.*Array.*', expected a dict .*; drop `trains`"):
        trainer.init(KEY, jnp.ones(2))


@pytest.mark.parametrize(
    ("output", "described"),
    [
        (jnp.ones(()), "loss_fn returned Array.*|loss_fn returned .*Tracer"),
        ((jnp.ones(3), {}), r"loss_fn returned \(array\[3\], dict\), expected \(loss, metrics\)"),
        ((jnp.ones(()), {}, {}), r"loss_fn returned \(array\[\], dict, dict\)"),
        ((jnp.ones(()), jnp.ones(())), r"loss_fn returned \(array\[\], array\[\]\)"),
    ],
    ids=["no pair", "vector", "triple", "no dict"],
)
def test_a_loss_that_returns_something_else_is_refused(output: Any, described: str) -> None:
    trainer = gradient_trainer(lambda params, batch, key: output, optax.sgd(0.1))
    state = trainer.init(KEY, jnp.ones(2))
    with pytest.raises(LossOutputError, match=described):
        jax.eval_shape(trainer.step, state, BATCH)


def test_a_population_is_a_vmap() -> None:
    trainer = gradient_trainer(loss_fn, optax.adam(0.1))
    params = {"w": jnp.ones(2)}
    keys = jax.random.split(KEY, 3)
    states = jax.vmap(trainer.init, in_axes=(0, None))(keys, params)
    states, metrics = jax.jit(jax.vmap(trainer.step, in_axes=(0, None)))(states, BATCH)
    alone, own_metrics = trainer.step(trainer.init(keys[1], params), BATCH)
    assert metrics["noise"].shape == (3,)
    assert metrics["noise"][1] == own_metrics["noise"]
    assert jnp.allclose(states.params["w"][1], alone.params["w"])


def test_training_is_a_scan() -> None:
    trainer = gradient_trainer(loss_fn, optax.adam(0.1))
    state = trainer.init(KEY, {"w": jnp.ones(2)})
    trained, metrics = jax.lax.scan(trainer.step, state, jnp.tile(BATCH, (50, 1)))
    assert (int(trained.step), metrics["loss"].shape) == (50, (50,))
    assert metrics["error"][-1] < metrics["error"][0]


MODELS = {"policy": jnp.ones(2), "world": jnp.ones(2)}


class TestWhatALossIsNotGiven:
    @pytest.mark.parametrize(
        ("loss", "name"),
        [
            (lambda params, batch, key: (jnp.sum(params["policy"] * params["world"]), {}), "world"),
            (lambda params, batch, key: (jnp.sum(batch["policy"] * params["wrold"]), {}), "wrold"),
        ],
    )
    def test_a_model_is_named_and_so_is_the_argument(self, loss: Any, name: str) -> None:
        trainer = gradient_trainer(loss, optax.sgd(0.1), trains=("policy",))
        match = rf"loss_fn: no model that the loss is given is named '{name}'; known: 'policy'; .*reads=\('{name}',\)"
        with pytest.raises(UnknownNameError, match=match):
            jax.jit(trainer.step)(trainer.init(KEY, MODELS), MODELS)

    def test_it_is_found_beside_models_that_are_read(self) -> None:
        trainer = gradient_trainer(
            lambda params, batch, key: (params["policy"] @ params["world"] * params["value"], {}),
            optax.sgd(0.1),
            trains=("policy",),
            reads=("world",),
        )
        with pytest.raises(UnknownNameError, match="is named 'value'; known: 'policy', 'world'; name"):
            trainer.step(trainer.init(KEY, MODELS), None)

    @pytest.mark.parametrize(
        "loss",
        [
            lambda params, batch, key: (batch["x"], {}),
            lambda params, batch, key: (jax.tree.map(jnp.sum, params)["policy"] * {}["x"], {}),
        ],
        ids=["of the batch", "after the parameters were taken for a tree"],
    )
    def test_another_key_error_stays_what_it_was(self, loss: Any) -> None:
        trainer = gradient_trainer(loss, optax.sgd(0.1), trains=("policy",))
        with pytest.raises(KeyError, match="'x'") as raised:
            trainer.step(trainer.init(KEY, MODELS), {"y": 1})
        assert type(raised.value) is KeyError

    def test_a_tree_that_is_no_dict_of_models_says_nothing_of_models(self) -> None:
        trainer = gradient_trainer(lambda params, batch, key: (params["b"], {}), optax.sgd(0.1))
        with pytest.raises(KeyError, match="'b'") as raised:
            trainer.step(trainer.init(KEY, {"w": jnp.zeros(())}), None)
        assert type(raised.value) is KeyError
