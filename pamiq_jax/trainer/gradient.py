"""The trainer most people need: a loss and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.errors import InvalidValueError, LossOutputError, UnknownNameError
from pamiq_jax.trainer.base import Trainer, TrainerState, custom_trainer
from pamiq_jax.types import Metrics, Params

type LossFn[P, B] = Callable[[P, B, jax.Array], tuple[jax.Array, Metrics]]
"""`(params, batch [B, ...], rng_key) -> (loss [], metrics)`; the key is another one at every step."""


def gradient_trainer[P, B](
    loss_fn: LossFn[P, B],
    tx: optax.GradientTransformation,
    *,
    trains: tuple[str, ...] | None = None,
    publishes: tuple[str, ...] | None = None,
) -> Trainer[TrainerState[P], B]:
    """Return a trainer that follows the gradient of a loss.

    Args:
        loss_fn: `(params, batch, rng_key) -> (loss, metrics)`, a scalar and a dict of scalars.
        tx: any optax transformation; schedules count the trainer's steps.
        trains: names of the models to take from the parameters that `init` is given; the loss then
            gets a dict by name. None takes the whole tree, whatever its form.
        publishes: names of the models that inference may see; by default all that are trained.

    Raises:
        UnknownNameError: `publishes` names a model that `trains` does not, or `init` is not given
            a model of `trains`.
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
    _check_names(trains, publishes)

    def init(rng_key: jax.Array, params: Params, /) -> TrainerState[P]:
        trained = cast(P, _select(params, trains))
        # Some optimizers start from the parameters themselves. Their state is donated, parameters
        # are not, and one buffer can't be both.
        taken = {id(leaf) for leaf in jax.tree.leaves(trained)}
        opt_state = jax.tree.map(
            lambda leaf: jnp.copy(leaf) if id(leaf) in taken else leaf, tx.init(cast(Any, trained))
        )
        return TrainerState(params=trained, opt_state=opt_state, step=jnp.zeros((), jnp.int32), rng_key=rng_key)

    def step(state: TrainerState[P], batch: B, /) -> tuple[TrainerState[P], Metrics]:
        rng_key = jax.random.fold_in(state.rng_key, state.step)
        grad_fn = jax.value_and_grad(_checked(loss_fn), has_aux=True)
        (loss, metrics), gradients = grad_fn(state.params, batch, rng_key)
        # optax's own arithmetic mixes dtypes, which users who promote strictly must not pay for.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(gradients, state.opt_state, cast(Any, state.params))
            params = cast(P, optax.apply_updates(cast(Any, state.params), updates))
        return state.replace(params=params, opt_state=opt_state, step=state.step + 1), {"loss": loss, **metrics}

    return custom_trainer(init, step, trains=trains, publishes=publishes)


def _check_names(trains: tuple[str, ...] | None, publishes: tuple[str, ...] | None) -> None:
    for argument, names in (("trains", trains), ("publishes", publishes)):
        if isinstance(names, str):
            name = f"gradient_trainer({argument})"
            raise InvalidValueError(name, names, "a tuple of model names", f"write ({names!r},)")
    for name in publishes or ():
        if trains is not None and name not in trains:
            raise UnknownNameError("trained model", name, trains, "gradient_trainer(publishes)")


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
        is_pair = isinstance(output, tuple) and len(cast(tuple[Any, ...], output)) == 2
        if not is_pair or jnp.shape(output[0]) != () or not isinstance(output[1], Mapping):
            raise LossOutputError(output)
        return output[0], dict(cast(Mapping[str, jax.Array], output[1]))

    return checked_loss_fn
