"""Let a trainer sit out its first runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pamiq_jax.arguments import checked_integer
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.wrapped import WrappedState, check_traceable, lift_trainer
from pamiq_jax.types import Metrics, Params


class SkippingState[S](WrappedState[S]):
    """A trainer's state, and how many runs it has still to sit out.

    Attributes:
        skips: `int32[]`, runs to come that change nothing.
        is_skipping: `bool[]`, whether the present run changes nothing.
    """

    skips: jax.Array
    is_skipping: jax.Array


def skip_first[S, B](trainer: Trainer[S, B], runs: int) -> Trainer[SkippingState[S], B]:
    """Return a trainer whose first runs change nothing, so that another trainer can warm up.

    A skipped step neither counts nor draws: schedules start with the first run that trains. Its
    metrics have no value: NaN, or 0 where they are integers; priorities of NaN leave a record's as it is.
    A run starts with `setup`.

    Args:
        trainer: any trainer whose step can be traced.
        runs: how many runs to skip, at least 0.

    Raises:
        InvalidValueError: a negative number, or a trainer with `compiled=False`.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.sgd(0.5))
        >>> trainer = skip_first(inner, runs=1)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for run in range(2):
        ...     state, metrics = trainer.step(trainer.setup(state), jnp.full(4, 3.0))
        ...     print(state.params, state.step, metrics["loss"])
        0.0 0 nan
        3.0 1 9.0
    """
    check_traceable("skip_first", trainer)
    checked_integer("skip_first(runs)", runs, least=0)

    def init(rng_key: jax.Array, params: Params, /) -> SkippingState[S]:
        inner = trainer.init(rng_key, params)
        return SkippingState(inner=inner, skips=jnp.full((), runs, jnp.int32), is_skipping=jnp.full((), runs > 0))

    def setup(state: SkippingState[S], /) -> SkippingState[S]:
        is_skipping = state.skips > 0
        skips = jnp.maximum(state.skips - 1, 0)
        inner = jax.lax.cond(is_skipping, lambda inner: inner, trainer.setup, state.inner)
        return SkippingState(inner=inner, skips=skips, is_skipping=is_skipping)

    def step(state: SkippingState[S], batch: B, /) -> tuple[SkippingState[S], Metrics]:
        _, absent = jax.eval_shape(trainer.step, state.inner, batch)

        def rest(inner: S, batch: B) -> tuple[S, Metrics]:
            return inner, jax.tree.map(_no_value, absent)

        inner, metrics = jax.lax.cond(state.is_skipping, rest, trainer.step, state.inner, batch)
        return state.replace(inner=inner), metrics

    def teardown(state: SkippingState[S], /) -> SkippingState[S]:
        inner = jax.lax.cond(state.is_skipping, lambda inner: inner, trainer.teardown, state.inner)
        return state.replace(inner=inner)

    return lift_trainer(trainer, partial(skip_first, runs=runs), init=init, setup=setup, step=step, teardown=teardown)


def _no_value(metric: Any) -> jax.Array:
    value = jnp.nan if jnp.issubdtype(metric.dtype, jnp.inexact) else 0
    return jnp.full(metric.shape, value, metric.dtype)
