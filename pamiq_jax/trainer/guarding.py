"""Undo the update of a step that is not finite, inside the compiled program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, tree_map_with_path

from pamiq_jax import trees
from pamiq_jax.arguments import checked_integer
from pamiq_jax.errors import StepStructureError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.wrapped import WrappedState, check_traceable, lift_trainer
from pamiq_jax.types import Metrics, Params

TINY = 2.0**-64
"""A weight with which no sum of finite float32 overflows, while NaN and infinity stay what they are."""


class GuardedState[S](WrappedState[S]):
    """A trainer's state, and how many of its updates were skipped.

    Attributes:
        skipped: `int32[]`, skipped updates since `init`.
        consecutive: `int32[]`, skipped updates in a row until now; 0 after one that was finite.
    """

    skipped: jax.Array
    consecutive: jax.Array


def guard[S, B](trainer: Trainer[S, B]) -> Trainer[GuardedState[S], B]:
    """Return a trainer that skips an update as a whole if it is not finite.

    An update is not finite if an array of the state that was finite holds NaN or infinity after the step, or
    if the step's metric "loss" does. Then the state stays as it was, bit for bit, but for what the next step
    draws from: each integer field `step` outside an optimizer's state counts on, and a key that the step
    replaced stays replaced. With the old number the same key would meet the same batch again, and fail for ever.
    Schedules of an optimizer count updates, and so do not advance.

    Metrics stay as the step reports them, a NaN included. Beside them are "skipped", 1 or 0, whose mean over a
    chunk is the share of skipped updates, and "consecutive_skips". No value is looked at on the host. `setup`,
    `receive` and `teardown` are not guarded.

    What it undoes is what is inside: around `alternate` a whole round, around one of its trainers that one's step,
    around `with_targets` the targets too. `optax.apply_if_finite` sees gradients alone: not the loss, averages,
    targets or a second optimizer, nor what an optimizer makes of finite gradients; and it gives in at last.

    Args:
        trainer: any trainer whose step can be traced.

    Raises:
        InvalidValueError: a trainer with `compiled=False`.
        StepStructureError: when traced, if the step returns a state of another form.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.sgd(0.5))
        >>> trainer = guard(inner)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for batch in (jnp.full(4, 3.0), jnp.full(4, jnp.nan)):
        ...     state, metrics = trainer.step(state, batch)
        ...     print(state.params, state.step, state.skipped, metrics["loss"], metrics["skipped"])
        3.0 1 0 9.0 0.0
        3.0 2 1 nan 1.0
    """
    check_traceable("guard", trainer)

    def init(rng_key: jax.Array, params: Params, /) -> GuardedState[S]:
        inner = trainer.init(rng_key, params)
        # One array each: an array that occurs twice can't be donated.
        return GuardedState(inner=inner, skipped=jnp.zeros((), jnp.int32), consecutive=jnp.zeros((), jnp.int32))

    def step(state: GuardedState[S], batch: B, /) -> tuple[GuardedState[S], Metrics]:
        inner, metrics = trainer.step(state.inner, batch)
        _check_same_form(state.inner, inner)
        problems = [_has_broken_array(state.inner, inner), *_bad_losses(state.inner, inner, metrics)]
        is_skipped = jnp.any(jnp.array(problems, jnp.bool_))
        consecutive = jnp.where(is_skipped, state.consecutive + 1, 0)
        counts = {"skipped": is_skipped.astype(jnp.float32), "consecutive_skips": consecutive}
        state = GuardedState(
            inner=_undone(is_skipped, state.inner, inner),
            skipped=state.skipped + is_skipped.astype(jnp.int32),
            consecutive=consecutive,
        )
        return state, {**metrics, **counts}

    return lift_trainer(trainer, guard, init=init, step=step)


def needs_rollback(state: Any, limit: int) -> jax.Array:
    """Return `bool[]`: whether a guard in a trainer's state has skipped `limit` updates in a row, or more.

    Guards are found wherever they are: within other combinators, trainers that take turns, states of your own.
    Without one it is False. It can be traced; for a population, states `[N, ...]`, it is `bool[N]`.

    Args:
        state: any trainer's state.
        limit: skipped updates in a row, at least 1.

    Raises:
        InvalidValueError: a limit that is no integer from 1.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = guard(pj.gradient_trainer(lambda w, batch, key: (w * jnp.nan, {}), optax.sgd(0.5)))
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for _ in range(2):
        ...     state, metrics = trainer.step(state, None)
        >>> print(needs_rollback(state, 2), needs_rollback(state, 3))
        True False
    """
    checked_integer("needs_rollback(limit)", limit, least=1)
    is_needed = jnp.zeros((), jnp.bool_)
    for guarded in _guards(state):
        is_needed = is_needed | (guarded.consecutive >= limit)
    return is_needed


def skip_reader(state: Any) -> Callable[[Any], int] | None:
    """Return what reads from a state how many updates in a row its guards have skipped; None if it has no guard.

    The most of all guards, and of all members of a population. It reads on the host and compiles nothing, and looks
    for the guards just once: what it returns takes a few microseconds for each of them.

    Args:
        state: a trainer's state with real arrays; those that are read must have its form.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (w * jnp.nan, {}), optax.sgd(0.5))
        >>> state = guard(inner).init(jax.random.key(0), jnp.float32(0))
        >>> read = skip_reader(state)
        >>> read(state), read(guard(inner).step(state, None)[0]), skip_reader(state.inner)
        (0, 1, None)
    """
    counters = {id(guarded.consecutive) for guarded in _guards(state)}
    places = [place for place, leaf in enumerate(jax.tree.leaves(state)) if id(leaf) in counters]

    def read(state: Any) -> int:
        leaves = jax.tree.leaves(state)
        return max(int(np.max(np.asarray(leaves[place]))) for place in places)

    return read if places else None


def _guards(state: Any) -> Iterator[GuardedState[Any]]:
    for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, GuardedState)):
        if isinstance(node, GuardedState):
            guarded = cast(GuardedState[Any], node)
            yield guarded
            yield from _guards(guarded.inner)


def _check_same_form(before: Any, after: Any) -> None:
    if (problem := trees.difference(before, after)) is not None:
        raise StepStructureError(
            f"step, under guard, returned a state of another form: {problem}; "
            "return every leaf with the shape and dtype it came with (`.astype(old.dtype)`)"
        )


def _has_broken_array(before: Any, after: Any) -> jax.Array:
    """Return `bool[]`: whether of the arrays that a step changes one is not finite any more.

    One that was not finite before is no sign: "the best loss so far" starts at infinity. On a CPU those before are
    looked at only if one after is not finite, so nearly never; elsewhere a branch may wait for the host.
    """
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    changed = [(old, new) for old, new in pairs if new is not old and jnp.issubdtype(jnp.result_type(new), jnp.inexact)]
    if not changed:
        return jnp.zeros((), jnp.bool_)
    is_bad = jnp.stack([~_is_finite(new) for _, new in changed])

    def were_good(is_bad: jax.Array, olds: list[Any]) -> jax.Array:
        return jnp.any(is_bad & jnp.stack([_is_finite(old) for old in olds]))

    def look_if_bad(is_bad: jax.Array, olds: list[Any]) -> jax.Array:
        return jax.lax.cond(jnp.any(is_bad), were_good, lambda *_: jnp.zeros((), jnp.bool_), is_bad, olds)

    return jax.lax.platform_dependent(is_bad, [old for old, _ in changed], cpu=look_if_bad, default=were_good)


def _is_finite(leaf: Any) -> jax.Array:
    """Return `bool[]`, from a weighted sum: on a CPU several times as fast as to ask each number."""
    array = jnp.asarray(leaf)
    if jnp.finfo(array.dtype).bits < 32:  # the weight would round to nothing
        array = array.astype(jnp.float32)
    if array.ndim:
        weights = jnp.full(array.shape[-1], TINY, array.dtype)
        array = jnp.sum(jnp.matmul(array, weights, precision="highest"))
    return jnp.isfinite(array)


def _bad_losses(before: Any, after: Any, metrics: Metrics, prefix: str = "") -> Iterator[jax.Array]:
    """Yield whether a reported loss is not finite, for each trainer within that took a step.

    Under `skip_first` none is taken, and NaN means "no value". What has a guard of its own is its business.
    """
    from pamiq_jax.trainer.alternating import AlternatingState  # most programs have none

    if isinstance(after, GuardedState):
        return
    if isinstance(after, WrappedState):
        inner: Any = cast(WrappedState[Any], after).inner
        yield from _bad_losses(before.inner, inner, metrics, prefix)
        return
    if isinstance(after, AlternatingState):
        for key, part in after.parts.items():
            yield from _bad_losses(before.parts[key], part, metrics, f"{prefix}{key}/")
    if (loss := metrics.get(f"{prefix}loss")) is not None:
        is_bad = ~jnp.isfinite(loss)
        yield is_bad & (after.step != before.step) if hasattr(after, "step") else is_bad


def _undone(is_skipped: jax.Array, before: Any, after: Any) -> Any:
    """Return the state before a step if it is skipped, else the one after it."""

    def choose(path: tuple[Any, ...], old: Any, new: Any) -> Any:
        # What was handed through must stay the same variable: the compiled chunk then copies nothing.
        return new if new is old or _is_drawn_from(path, new) else jnp.where(is_skipped, old, new)

    return tree_map_with_path(choose, before, after)


def _is_drawn_from(path: tuple[Any, ...], leaf: Any) -> bool:
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    is_counter = path[-1:] == (GetAttrKey("step"),) and jnp.issubdtype(dtype, jnp.integer)
    return is_counter and GetAttrKey("opt_state") not in path
