"""What goes on is known for sure, or it is asked for: steps that could be misread, and declarations that do not fit."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from pamiq_jax.errors import InvalidValueError, StepSignatureError, StepStructureError
from pamiq_jax.trainer import trainer_from_step

KEY = jax.random.key(0)
TX = optax.sgd(0.5, momentum=0.9)
PARAMS = {"w": jnp.ones(2)}
BATCH = jnp.ones((4, 2))
DECLARED = "params, opt_state, batch -> params, opt_state, loss"


def loss_fn(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch @ params["w"]) ** 2)


def update(params: Any, opt_state: Any, batch: Any) -> Any:
    loss, gradients = jax.value_and_grad(loss_fn)(params, batch)
    updates, opt_state = TX.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss


def init_with(**more: Any) -> Any:
    return lambda key, params: {"params": params, "opt_state": TX.init(params), **more}


def stepped(step: Any, init: Any = TX, batch: Any = BATCH, params: Any = PARAMS, key: Any = KEY, **options: Any) -> Any:
    trainer = trainer_from_step(step, init, **options)
    return trainer.step(trainer.init(key, params), batch)


class Out(NamedTuple):
    loss: Any
    temp: Any
    params: Any
    opt_state: Any


def loss_first(params: Any, opt_state: Any, temp: Any, batch: Any) -> Any:
    params, opt_state, loss = update(params, opt_state, batch)
    return params, opt_state, loss, temp * 0.5


def in_a_dict(params: Any, opt_state: Any, temp: Any, batch: Any) -> Any:
    params, opt_state, loss, temp = loss_first(params, opt_state, temp, batch)
    return {"loss": loss, "temp": temp, "params": params, "opt_state": opt_state}


def in_a_named_tuple(params: Any, opt_state: Any, temp: Any, batch: Any) -> Any:
    return Out(**in_a_dict(params, opt_state, temp, batch))


def in_a_tuple(params: Any, opt_state: Any, temp: Any, batch: Any) -> Any:
    params, opt_state, *rest = loss_first(params, opt_state, temp, batch)
    return params, opt_state, tuple(rest)


def not_returned(params: Any, opt_state: Any, temp: Any, batch: Any) -> Any:
    return update(params, opt_state, batch)


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (loss_first, "params, opt_state, [?], [?]"),
        (in_a_tuple, r"params, opt_state, \([?], [?]\)"),
        (not_returned, "[?]"),
    ],
)
def test_a_number_is_never_taken_for_a_loss_nor_a_loss_for_it(step: Any, shown: str) -> None:
    with pytest.raises(StepSignatureError, match=rf"temp is a single number, as a loss is.*temp, batch -> .*{shown}"):
        stepped(step, init_with(temp=4.0))


@pytest.mark.parametrize(
    ("step", "signature", "after"),
    [
        (in_a_dict, None, 2),
        (in_a_named_tuple, None, 2),
        (loss_first, "params, opt_state, temp, batch -> params, opt_state, loss, temp", 2),
        (in_a_tuple, "params, opt_state, temp, batch -> params, opt_state, (loss, temp)", 2),
        (not_returned, "params, opt_state, temp, batch -> params, opt_state, loss", 4),
    ],
)
def test_a_number_that_is_named_goes_on(step: Any, signature: str | None, after: float) -> None:
    state, metrics = stepped(step, init_with(temp=4.0), signature=signature)
    assert (float(state.values["temp"]), float(metrics["loss"]), len(metrics)) == (after, 4.0, 1)


def test_parameters_that_are_a_number_are_declared() -> None:
    def update_alpha(log_alpha: Any, opt_state: Any, batch: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda a: (a * batch).mean())(log_alpha)
        updates, opt_state = TX.update(gradient, opt_state)
        return loss, opt_state, log_alpha + updates

    parts: Any = {
        "init": lambda key, params: {"log_alpha": params, "opt_state": TX.init(params)},
        "params": lambda values: values["log_alpha"],
    }
    trainer = trainer_from_step(update_alpha, **parts)
    with pytest.raises(StepSignatureError, match=r"say it with signature=\"log_alpha, opt_state, batch -> [?], "):
        trainer.step(trainer.init(KEY, jnp.float32(3)), BATCH)
    signature = "log_alpha, opt_state, batch -> loss, opt_state, log_alpha"
    trainer = trainer_from_step(update_alpha, signature=signature, **parts)
    state, metrics = trainer.step(trainer.init(KEY, jnp.float32(3)), BATCH)
    assert (float(state.params), float(metrics["loss"])) == (2.5, 3.0)


def test_two_outputs_of_one_form_are_asked_for() -> None:
    def with_gradients(params: Any, opt_state: Any, batch: Any) -> Any:
        return *update(params, opt_state, batch), jax.grad(loss_fn)(params, batch)

    with pytest.raises(StepSignatureError, match="outputs 0 and 3 both have the form of params"):
        stepped(with_gradients)
    state, metrics = stepped(with_gradients, signature=DECLARED + ", gradients")
    assert state.params["w"].tolist() == [-1, -1]
    assert set(metrics) == {"loss", "w"}


def test_what_lies_in_a_tuple_is_found_and_can_be_declared() -> None:
    def step(params: Any, opt_state: Any, mean: Any, batch: Any) -> Any:
        params, opt_state, loss = update(params, opt_state, batch)
        return params, opt_state, (loss, mean + 1)

    message = r"mean may lie within output 2, a tuple; say it with .* -> params, opt_state, \([?], [?]\)"
    with pytest.raises(StepSignatureError, match=message):
        stepped(step, init_with(mean=jnp.zeros(3)))
    signature = "params, opt_state, mean, batch -> params, opt_state, (loss, mean)"
    assert stepped(step, init_with(mean=jnp.zeros(3)), signature=signature)[0].values["mean"].tolist() == [1, 1, 1]


def splitting(params: Any, opt_state: Any, key: Any, batch: Any) -> Any:
    key, noise_key = jax.random.split(key)
    params, opt_state, loss = update(params, opt_state, batch + jax.random.normal(noise_key, batch.shape))
    return params, opt_state, key, loss


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
@pytest.mark.parametrize("options", [{}, {"compiled": False}], ids=["compiled", "in Python"])
def test_a_key_that_comes_back_goes_on(key: jax.Array, options: Any) -> None:
    trainer = trainer_from_step(splitting, TX, **options)
    state = trainer.init(key, PARAMS)
    mine: Any = (state.params, TX.init(PARAMS), state.keys["key"])
    metrics: Any = {}
    loss: Any = None
    for _ in range(2):
        state, metrics = trainer.step(state, BATCH)
        *mine, loss = splitting(mine[0], mine[1], mine[2], BATCH)
    assert set(metrics) == {"loss"}
    assert bool(jnp.all(state.keys["key"] == mine[2]))
    np.testing.assert_allclose([*state.params["w"], metrics["loss"]], [*mine[0]["w"], loss], rtol=1e-4)


def test_a_key_that_does_not_come_back_is_another_at_every_step() -> None:
    def step(params: Any, opt_state: Any, rng: Any, batch: Any) -> Any:
        return *update(params, opt_state, batch), {"drawn": jax.random.uniform(rng)}

    trainer = trainer_from_step(step, TX)
    state = trainer.init(KEY, PARAMS)
    for number in range(2):
        state, metrics = trainer.step(state, BATCH)
        assert float(metrics["drawn"]) == float(jax.random.uniform(jax.random.fold_in(KEY, number)))


def test_one_of_two_keys_is_asked_for() -> None:
    def step(params: Any, opt_state: Any, key: Any, dropout_key: Any, batch: Any) -> Any:
        params, opt_state, loss = update(params, opt_state, batch)
        return params, opt_state, dropout_key, loss

    with pytest.raises(StepSignatureError, match="key have one form, so it cannot be seen"):
        stepped(step)
    signature = "params, opt_state, key, dropout_key, batch -> params, opt_state, dropout_key, loss"
    state, metrics = stepped(step, signature=signature)
    assert bool(state.keys["dropout_key"] == jax.random.split(jax.random.fold_in(KEY, 0))[1])
    assert bool(state.keys["key"] == jax.random.split(jax.random.fold_in(KEY, 1))[0])
    assert set(metrics) == {"loss"}


STATE = TrainState.create(apply_fn=None, params=PARAMS, tx=TX)


def of_state(batch: Any, state: Any) -> Any:
    loss, gradients = jax.value_and_grad(loss_fn)(state.params, batch)
    return state.apply_gradients(grads=gradients), {"loss": loss}


def test_the_state_may_come_second() -> None:
    assert int(stepped(of_state, STATE)[0].value.step) == 1
    with pytest.raises(AttributeError) as caught:
        stepped(lambda b, s: of_state(b, s), STATE)
    assert any("with b=TrainState, s=" in note and "declare it" in note for note in caught.value.__notes__)


def test_what_is_no_data_is_bound_before() -> None:
    def step(state: Any, batch: Any, train: Any) -> Any:
        return of_state(batch, state)

    with pytest.raises(StepSignatureError, match=r"functools.partial\(step, train=...\)"):
        stepped(step, STATE)
    assert set(stepped(functools.partial(step, train=True), STATE)[1]) == {"loss"}


def test_a_step_compiled_ahead_of_time_runs_as_it_is() -> None:
    ahead = jax.jit(update).lower(PARAMS, TX.init(PARAMS), BATCH).compile()
    for signature in (None, DECLARED):
        with pytest.raises(StepSignatureError, match=r"compiled ahead of time.*compiled=False.* runs it as it is"):
            trainer_from_step(ahead, TX, signature=signature)
    assert float(stepped(ahead, signature=DECLARED, compiled=False)[1]["loss"]) == 4
    with pytest.raises(TypeError) as caught:
        stepped(lambda params, opt_state, batch: ahead(params, opt_state, batch))
    assert any("compiled=False" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("params, opt_state, batch, key -> params, opt_state, loss", "declared are 4 arguments.*too many"),
        (
            "params, opt_state -> params, opt_state, loss",
            "declared are 2 arguments.*missing a required argument: 'batch'",
        ),
        ("params, opt_state, batch -> loss", "nothing on both sides, so nothing would go on"),
        ("params, opt_state, batch -> opt_state, loss", "the parameters, in params, are not among what it is declared"),
        ("params, opt_state, batch -> params", "params came back in another form"),
        ("params, opt_state, batch -> opt_state, params, loss", "opt_state came back in another form"),
        ("params, opt_state, batch -> params, (opt_state, loss)", "it returned 3 values"),
        ("params, opt_state, (batch) -> params, opt_state + 1", "which is none"),
    ],
)
def test_a_declaration_is_compared_with_the_step(declared: str, problem: str) -> None:
    with pytest.raises(StepSignatureError, match=problem):
        stepped(update, signature=declared)


def test_things_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"trainer_from_step\(step\) is 3, expected a function"):
        trainer_from_step(3, TX, signature=DECLARED)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        InvalidValueError, match=r"signature\) is \('a', 'b'\), expected text .* write it as one string"
    ):
        trainer_from_step(update, TX, signature=("a", "b"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("metric", ["warm", {"name": "warm"}])
def test_text_among_metrics_is_refused(metric: Any) -> None:
    with pytest.raises(StepStructureError, match=r"step returned 'warm' at output\[3\].*leave out"):
        stepped(lambda params, opt_state, batch: (*update(params, opt_state, batch), metric))


def test_numbers_of_numpy_are_metrics() -> None:
    def step(params: Any, opt_state: Any, batch: Any) -> Any:
        return *update(params, opt_state, batch), {"count": np.int32(3), "is_late": np.True_, "rows": np.arange(3.0)}

    _, metrics = stepped(step, compiled=False)
    assert (int(metrics["count"]), bool(metrics["is_late"]), float(metrics["rows"])) == (3, True, 1.0)


def test_a_key_among_metrics_is_refused() -> None:
    with pytest.raises(StepStructureError, match="returned the metric output_3 as a key"):
        stepped(lambda params, opt_state, batch: (*update(params, opt_state, batch), jax.random.key(0)))


LINEAR = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
OPTIMIZER = nnx.Optimizer(LINEAR, TX, wrt=nnx.Param)
PERCEPTRON = eqx.nn.MLP(2, 1, 2, 1, key=KEY)


@nnx.jit
def nnx_step(model: Any, optimizer: Any, batch: Any) -> Any:
    return 0.0


@eqx.filter_jit
def make_step(model: Any, opt_state: Any, batch: Any) -> Any:
    return model, opt_state, 0.0


@pytest.mark.parametrize(
    ("step", "init", "factory"),
    [
        (nnx_step, TX, "flax.nnx_trainer"),
        (nnx_step, LINEAR, "flax.nnx_trainer"),
        (nnx_step, OPTIMIZER, "flax.nnx_trainer"),
        (nnx_step, lambda key, params: {"model": LINEAR, "optimizer": OPTIMIZER}, "flax.nnx_trainer"),
        (make_step, TX, "equinox.equinox_trainer"),
        (make_step, PERCEPTRON, "equinox.equinox_trainer"),
        (make_step, lambda key, params: {"model": PERCEPTRON, "opt_state": ()}, "equinox.equinox_trainer"),
    ],
)
def test_steps_on_modules_are_shown_where_to_go(step: Any, init: Any, factory: str) -> None:
    with pytest.raises((InvalidValueError, StepSignatureError), match=rf"pamiq_jax.{factory}\(split_module"):
        stepped(step, init)
