"""Let a trainer sit out its first runs."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from pamiq_jax.arguments import checked_integer
from pamiq_jax.errors import InvalidValueError
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


def is_skipping(state: Any) -> jax.Array | None:
    """Return `bool[]`: whether the present run of a trainer changes nothing; None if it never skips one.

    Args:
        state: of a trainer, whatever is around its `skip_first`.

    Example:
        >>> is_skipping(WrappedState(SkippingState(0, skips=jnp.int32(1), is_skipping=jnp.bool_(True)))).item()
        True
    """
    found: jax.Array | None = None
    while isinstance(state, WrappedState):
        if isinstance(state, SkippingState):
            found = state.is_skipping if found is None else found | state.is_skipping
        state = cast(WrappedState[Any], state).inner
    return found


def check_skips_inside(name: str, state: Any) -> None:
    """Raise if some of the trainers that take turns skip runs, which whoever looks from outside cannot tell.

    Raises:
        InvalidValueError: naming the combinator that counts steps.

    Example:
        >>> check_skips_inside("ema", WrappedState({"a": 1}))
    """
    while isinstance(state, WrappedState):
        state = cast(WrappedState[Any], state).inner
    parts = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, SkippingState))
    if any(isinstance(part, SkippingState) for part in parts):
        expected, remedy = "no `skip_first` within it", f"put {name} around the trainers that it is given"
        raise InvalidValueError(f"{name}(trainer), an `alternate`,", "one with skip_first", expected, remedy)


def _no_value(metric: Any) -> jax.Array:
    value = jnp.nan if jnp.issubdtype(metric.dtype, jnp.inexact) else 0
    return jnp.full(metric.shape, value, metric.dtype)
