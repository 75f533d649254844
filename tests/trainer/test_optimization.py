from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer import (
    Trainer,
    accumulate_gradients,
    alternate,
    clip_gradients,
    compile_trainer,
    custom_trainer,
    ema,
    explain_donation,
    gradient_trainer,
    guard,
    skip_first,
    with_hyperparameters,
    with_optimizers,
    with_targets,
)
from pamiq_jax.trainer.compile import own

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


def both(**options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy", "value"), **options)


def test_each_model_has_its_optimizer_and_schedule_and_others_keep_the_trainers_own() -> None:
    fading = optax.piecewise_constant_schedule(0.5, {1: 0.0})
    trainer = with_optimizers(both(), {"value": optax.sgd(fading)})
    assert after(trainer, 1.0, 1.0)[0] == [-6, -2]


def test_groups_are_where_the_labels_say() -> None:
    trainer = gradient_trainer(lambda params, batch, rng_key: (sum(params), {}), optax.sgd(1.0))
    trainer = with_optimizers(trainer, {"first": optax.sgd(5.0)}, labels=lambda params: ["first", "rest"])
    params = [jnp.zeros(()), jnp.zeros(())]
    assert [float(param) for param in trainer.step(trainer.init(KEY, params), None)[0].params] == [-5, -1]
    by_place = with_optimizers(both(), {"elsewhere": optax.sgd(5.0)}, labels=lambda params: dict.fromkeys(params, "a"))
    with pytest.raises(UnknownNameError, match=r"no group of parameters is named 'elsewhere'; .*'a'"):
        by_place.init(KEY, PARAMS)


def test_the_norm_is_over_all_models_and_told_as_it_was_before_clipping() -> None:
    params, metrics = after(clip_gradients(both(), 1.0), 2.0)
    assert params == pytest.approx([-0.6, -0.8])
    assert float(metrics["gradient_norm"]) == 10
    measured, metrics = after(clip_gradients(both(), float("inf")), 2.0)
    assert measured == [-6, -8]
    assert float(metrics["gradient_norm"]) == 10


def test_the_outermost_sees_the_gradients_first() -> None:
    averaged_first = accumulate_gradients(clip_gradients(both(), 5.0), 2)
    assert after(averaged_first, 1.0)[0] == [0, 0]
    assert after(averaged_first, 1.0, 3.0)[0] == pytest.approx([-3, -4])  # the average has norm 10
    clipped_first = clip_gradients(accumulate_gradients(both(), 2), 5.0)
    assert after(clipped_first, 0.5, 3.0)[0] == pytest.approx([-2.25, -3])  # norms 2.5 and 15, the mean of 2.5 and 5


@pytest.mark.parametrize(
    "around",
    [
        lambda trainer: ema(trainer, 0.9),
        guard,
        lambda trainer: skip_first(trainer, 0),
        lambda trainer: with_targets(trainer, {"world": "policy"}, 0.9),
        lambda trainer: with_hyperparameters(lambda weight: trainer, weight=1.0),
    ],
    ids=["ema", "guard", "skip_first", "with_targets", "with_hyperparameters"],
)
def test_around_a_combinator_it_does_the_same_as_inside(around: Any) -> None:
    def clipped(trainer: Trainer[Any, Any]) -> Trainer[Any, Any]:
        return clip_gradients(with_optimizers(trainer, {"value": optax.sgd(0.5)}), 1.0)

    inner = both(reads=("world",))
    outside, inside = after(clipped(around(inner)), 1.0, 2.0), after(around(clipped(inner)), 1.0, 2.0)
    assert outside == inside
    assert outside[0] == pytest.approx([-1.2, -0.8])


def test_a_trainer_that_does_not_show_its_gradients_is_refused_with_the_remedy() -> None:
    own_step = custom_trainer(lambda rng_key, params: params, lambda state, batch: (state, {}))
    with pytest.raises(InvalidValueError, match=r"clip_gradients\(trainer\) .*inside a step of your own"):
        clip_gradients(own_step, 1.0)
    with pytest.raises(InvalidValueError, match=r"accumulate_gradients\(trainer\) .*that `alternate` is given"):
        accumulate_gradients(alternate(both(), gradient_trainer(loss_fn, optax.sgd(1.0), trains=("world",))), 2)


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (
            lambda: clip_gradients(both(), 0.0),
            InvalidValueError,
            r"is 0.0, expected more than 0; .*measures",
        ),
        (lambda: accumulate_gradients(both(), 0), InvalidValueError, r"steps\) is 0, expected an integer from 1"),
        (lambda: accumulate_gradients(both(), 1.5), InvalidValueError, r"steps\) is 1.5, expected an integer"),
        (lambda: with_optimizers(both(), {}), InvalidValueError, r"by_group\) is {}, expected at least one group"),
        (lambda: with_optimizers(both(), {"x": optax.sgd(1.0)}), UnknownNameError, "no trained model is named 'x'"),
    ],
)
def test_what_cannot_be_is_refused_when_built(change: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        change()


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
        ({"reads": ("world",)}, InvalidValueError, r"trains\) is None, expected names of models"),
        ({"trains": ("policy",), "reads": ("policy",)}, InvalidValueError, r"reads\) is \['policy'\], expected other"),
        ({"trains": ("policy",), "reads": "world"}, InvalidValueError, r"reads\) is 'world', .*write \('world',\)"),
        ({"tx": {"policy": optax.sgd(1.0)}}, InvalidValueError, r"tx\) is 'dict', .*see with_optimizers"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        gradient_trainer(loss_fn, **({"tx": optax.sgd(1.0)} | options))


def test_a_read_model_that_is_not_given_is_refused() -> None:
    trainer = gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy",), reads=("moon",))
    with pytest.raises(UnknownNameError, match=r"trainer.init: no model is named 'moon'"):
        trainer.init(KEY, PARAMS)
