"""An exponential moving average of the parameters, published in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from pamiq_jax.arguments import checked_known, checked_names, is_number
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.skip import check_skips_inside, is_skipping
from pamiq_jax.trainer.wrapped import WrappedState, check_trainer_given, lift_trainer, with_params
from pamiq_jax.types import Metrics, Params

type Decay = float | jax.Array | Callable[[jax.Array], jax.Array]
"""What share of an average stays at a step, in [0, 1): a number, or `(steps done int32[]) -> float32[]`."""


class AveragedState[S](WrappedState[S]):
    """A trainer's state beside an average of its parameters.

    Attributes:
        average: as the parameters, or the averaged ones of them by name; half precision is kept as float32.
        remaining: `float32[]`, how much of the average is still the first parameters; None if they count as all others.
    """

    average: Params
    remaining: jax.Array | None


def ema[S, B](
    trainer: Trainer[S, B], decay: Decay, *, models: tuple[str, ...] | None = None, debias: bool = True
) -> Trainer[AveragedState[S], B]:
    """Return a trainer that trains the same parameters, and publishes their moving average.

    After each step: `average = decay * average + (1 - decay) * params`. For a loss that needs the
    average, see `with_targets`. Steps that `skip_first` skips do not count: the average begins with the parameters as
    they are when the first step is taken.

    Args:
        trainer: any trainer.
        decay: the share that stays at a step, in [0, 1), or a schedule of it; 0.999 averages over about 1,000 steps.
        models: names of the models to average; by default all parameters. Others are published as they are.
        debias: forget the first parameters at once, so that an early average is that of the steps so
            far (as in Adam, Kingma & Ba 2015); False lets them fade with the rest.

    Raises:
        InvalidValueError: a decay outside [0, 1), no trainer; from `init`, if some of several trainers that take turns
            skip runs, since one average counts the steps of all: put it around each of them instead.
        UnknownNameError: a model that is not trained; from `init` where the trainer takes whatever it is given.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.sgd(0.5))
        >>> trainer = ema(inner, 0.5)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for batch in (jnp.full(4, 3.0), jnp.full(4, 6.0)):
        ...     state, metrics = trainer.step(state, batch)
        >>> print(state.params, trainer.publish(state))  # 6, and (3 + 2 * 6) / 3
        6.0 5.0
    """
    check_trainer_given("ema", trainer)
    check_decay("ema(decay)", decay)
    checked_names("ema(models)", models, "model")
    checked_known("ema(models)", "trained model", models, trainer.trains)

    def averaged(state: S) -> Params:
        params = cast(Any, state).params
        return params if models is None else {name: params[name] for name in models}

    def init(rng_key: jax.Array, params: Params, /) -> AveragedState[S]:
        inner = trainer.init(rng_key, params)
        check_skips_inside("ema", inner)
        if models is not None:
            trained = cast(Any, inner).params
            known = cast(Mapping[str, Params], trained) if isinstance(trained, Mapping) else {}
            checked_known("ema(models)", "trained model", models, known)
        # A copy: the average is donated where it is published in another form, parameters are not.
        average = jax.tree.map(lambda leaf: jnp.array(leaf, _wide(leaf), copy=True), averaged(inner))
        return AveragedState(inner=inner, average=average, remaining=jnp.ones(()) if debias else None)

    def step(state: AveragedState[S], batch: B, /) -> tuple[AveragedState[S], Metrics]:
        inner, metrics = trainer.step(state.inner, batch)
        share = decay_at(decay, cast(Any, inner).step)
        remaining = None if state.remaining is None else state.remaining * share
        if remaining is not None:
            # Weights of the steps alone sum to 1 - remaining; a decay of 1 has not begun to average yet.
            share = 1 - (1 - share) / jnp.maximum(1 - remaining, jnp.finfo(jnp.float32).tiny)
        if (is_resting := is_skipping(inner)) is not None:
            share = jnp.where(is_resting, 0.0, share)
            if remaining is not None and state.remaining is not None:
                remaining = jnp.where(is_resting, state.remaining, remaining)
        average = decayed(state.average, averaged(inner), share)
        return AveragedState(inner=inner, average=average, remaining=remaining), metrics

    def publish(state: AveragedState[S], /) -> Params:
        average = jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), state.average, averaged(state.inner))
        return trainer.publish(with_params(trainer, state.inner, average))

    again = partial(ema, decay=decay, models=models, debias=debias)
    return lift_trainer(trainer, again, init=init, step=step, publish=publish)


def decayed(average: Params, params: Params, share: jax.Array) -> Params:
    """Return `share * average + (1 - share) * params`, in the average's dtypes; what is no float is taken over.

    Example:
        >>> print(decayed({"w": jnp.float32(0)}, {"w": jnp.float32(1)}, jnp.float32(0.5))["w"])
        0.5
    """

    def mix(mean: jax.Array, leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(mean.dtype, jnp.inexact):
            return leaf
        wide = _wide(mean)
        moved = (leaf.astype(wide) - mean.astype(wide)) * (1 - share).astype(wide)
        return (mean.astype(wide) + moved).astype(mean.dtype)

    return jax.tree.map(mix, average, params)


def _wide(leaf: Any) -> Any:
    """Return the dtype to average in: a share of 0.001 is lost in half precision."""
    dtype = jnp.result_type(leaf)
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if is_narrow else dtype


def decay_at(decay: Decay, step: jax.Array) -> jax.Array:
    """Return the decay `float32[]` at a step.

    Example:
        >>> print(decay_at(lambda step: jnp.where(step % 10 == 0, 0.0, 1.0), jnp.int32(11)))
        1.0
    """
    return jnp.asarray(decay(step) if callable(decay) else decay, jnp.float32)


def check_decay(argument: str, decay: Decay) -> None:
    """Raise if a decay is a number outside [0, 1); a traced one or a schedule cannot be looked at.

    Raises:
        InvalidValueError: naming the argument.

    Example:
        >>> check_decay("ema(decay)", 0.99)
    """
    if callable(decay) or isinstance(decay, jax.Array):
        return
    if not is_number(decay) or not 0 <= decay < 1:
        raise InvalidValueError(argument, decay, "a number in [0, 1)", "0.999 averages over about 1,000 steps")
