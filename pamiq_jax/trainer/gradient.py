"""The trainer most people need: a loss and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.arguments import checked_function, checked_known, checked_names, checked_optimizer, is_tuple_of
from pamiq_jax.errors import InvalidValueError, LossOutputError, UnknownNameError
from pamiq_jax.trainer.asked import asked_for
from pamiq_jax.trainer.base import ReadingState, Trainer, TrainerState, custom_trainer
from pamiq_jax.trainer.evaluated import evaluated
from pamiq_jax.trainer.missing import naming_missing
from pamiq_jax.trainer.optimization import Optimization, apply_gradients, first_opt_state
from pamiq_jax.types import Metrics, Params

type LossFn[P, B] = Callable[[P, B, jax.Array], tuple[jax.Array, Metrics]]
"""`(params, batch [B, ...], rng_key) -> (loss [], metrics)`; the key is another one at every step."""


def gradient_trainer[P, B](
    loss_fn: LossFn[P, B],
    tx: optax.GradientTransformation,
    *,
    trains: tuple[str, ...] | None = None,
    publishes: tuple[str, ...] | None = None,
    reads: tuple[str, ...] = (),
) -> Trainer[TrainerState[P], B]:
    """Return a trainer that follows the gradient of a loss.

    What it does with gradients is changed by `clip_gradients`, `accumulate_gradients` and `with_optimizers`.

    Args:
        loss_fn: `(params, batch, rng_key) -> (loss, metrics)`, a scalar and a dict of scalars. Among them
            "priorities", float32 `[B]`, are given to the records of the batch, see `prioritized_buffer`, and one named
            "loss" is reported in the place of the loss.
        tx: any optax transformation; schedules count updates. One that asks for the loss (`value=`) gets it.
        trains: names of the models to take from the parameters that `init` is given; the loss then
            gets a dict by name. None takes the whole tree, whatever its form.
        publishes: names of the models that inference may see; by default all that are trained.
        reads: names of models that the loss gets beside the trained ones, as constants. They are
            neither updated nor published; the state is then a `ReadingState`.

    Raises:
        UnknownNameError: `publishes` names a model that `trains` does not, or `init` is not
            given a model of `trains` or `reads`; when traced, if the loss asks for another model.
        InvalidValueError: `tx` is no optax transformation, or names contradict each other.
        LossOutputError: when traced, if the loss does not return `(scalar, dict)`.

    Example:
        >>> def loss_fn(params, batch, rng_key):
        ...     error = jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
        ...     return error, {"error": error}
        >>> trainer = gradient_trainer(loss_fn, optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), {"w": jnp.zeros(2)})
        >>> state, metrics = jax.jit(trainer.step)(state, {"x": jnp.eye(2), "y": jnp.ones(2)})
        >>> print(metrics["loss"], state.step)
        1.0 1
    """
    checked_function("gradient_trainer(loss_fn)", loss_fn, "(params, batch, rng_key) -> (loss, metrics)")
    loss_fn = loss_fn if trains is None else naming_missing(loss_fn)
    _check_names(trains, publishes, reads)
    checked_optimizer("gradient_trainer(tx)", tx, "for several, one a model or group, see with_optimizers")
    return _build(loss_fn, Optimization(tx), trains, publishes, reads)


def _build[P, B](
    loss_fn: LossFn[P, B],
    optimization: Optimization,
    trains: tuple[str, ...] | None,
    publishes: tuple[str, ...] | None,
    reads: tuple[str, ...],
) -> Trainer[TrainerState[P], B]:
    def init(rng_key: jax.Array, params: Params, /) -> TrainerState[P]:
        trained = cast(P, _select(params, trains))
        state = TrainerState(trained, first_opt_state(optimization, trained), jnp.zeros((), jnp.int32), rng_key)
        return ReadingState(**vars(state), reads=_select(params, reads)) if reads else state

    def step(state: TrainerState[P], batch: B, /) -> tuple[TrainerState[P], Metrics]:
        rng_key = jax.random.fold_in(state.rng_key, state.step)
        constants = state.reads if isinstance(state, ReadingState) else {}
        loss_of = _checked(_with_constants(loss_fn, constants))
        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params, batch, rng_key)
        # optax's own arithmetic mixes dtypes, which users who promote strictly must not pay for.
        with jax.numpy_dtype_promotion("standard"):
            # Line searches, plateaus and Polyak steps ask for the loss; others do not look at it.
            asked = asked_for(lambda params: loss_of(params, batch, rng_key)[0], loss, gradients)
            params, opt_state, measured = apply_gradients(
                optimization, gradients, state.opt_state, state.params, **asked
            )
        state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        return state, {"loss": loss, **measured, **metrics}

    def with_optimization(change: Callable[[Optimization], Optimization]) -> Trainer[TrainerState[P], B]:
        return _build(loss_fn, change(optimization), trains, publishes, reads)

    def publish(state: TrainerState[P], /) -> Params:
        used = evaluated(optimization, state.opt_state, state.params)
        return used if publishes is None else {name: used[name] for name in publishes}

    trainer = custom_trainer(init, step, publish=publish, trains=trains, publishes=publishes, reads=reads)
    return trainer._replace(with_optimization=with_optimization, kind="gradient_trainer")


def _with_constants(loss_fn: LossFn[Any, Any], constants: Mapping[str, Params]) -> LossFn[Any, Any]:
    if not constants:
        return loss_fn
    return lambda params, batch, rng_key: loss_fn({**params, **constants}, batch, rng_key)


def _check_names(trains: tuple[str, ...] | None, publishes: tuple[str, ...] | None, reads: tuple[str, ...]) -> None:
    for argument, names in (("trains", trains), ("publishes", publishes), ("reads", reads)):
        checked_names(f"gradient_trainer({argument})", names, "model")
    checked_known("gradient_trainer(publishes)", "trained model", publishes, trains)
    if reads and trains is None:
        raise InvalidValueError("gradient_trainer(trains)", None, "names of models", "say which are not only read")
    if both := [name for name in reads if name in (trains or ())]:
        raise InvalidValueError("gradient_trainer(reads)", both, "other models than `trains`")


def _select(params: Params, trains: tuple[str, ...] | None) -> Params:
    if trains is None:
        return params
    if not isinstance(params, Mapping):
        raise InvalidValueError("params", type(params).__name__, f"a dict with the models {trains}", "drop `trains`")
    by_name = cast(Mapping[str, Params], params)
    for name in trains:
        if name not in by_name:
            raise UnknownNameError("model", name, by_name, "trainer.init")
    return {name: by_name[name] for name in trains}


def _checked(loss_fn: LossFn[Any, Any]) -> LossFn[Any, Any]:
    def checked_loss_fn(params: Any, batch: Any, rng_key: jax.Array, /) -> tuple[jax.Array, Metrics]:
        output: Any = loss_fn(params, batch, rng_key)
        if not is_tuple_of(2, output) or jnp.shape(output[0]) != () or not isinstance(output[1], Mapping):
            raise LossOutputError(output)
        return output[0], dict(cast(Mapping[str, jax.Array], output[1]))

    return checked_loss_fn
