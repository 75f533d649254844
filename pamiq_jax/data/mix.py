"""Batches out of several buffers, in fixed shares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pamiq_jax.arguments import checked_kind, is_number
from pamiq_jax.data.buffer import Buffer
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import difference
from pamiq_jax.types import PyTree

type MixFn[R] = Callable[[tuple[Any, ...], int, ArrayLike, jax.Array], R]
"""`(states, batch_size, position, rng_key) -> batch [batch_size, ...]`, with a state for each buffer."""


def mix_samples[R](buffers: Sequence[Buffer[Any, Any, R]], weights: Sequence[float]) -> MixFn[R]:
    """Return a function like `Buffer.sample`, over a tuple of states, whose batches have rows of each buffer.

    The buffers may hold different data, if only their batches are alike. The shares are the same in each batch,
    in proportion to the weights and rounded so that they add up; rows lie in the order of the buffers.

    Args:
        buffers: at least one; they must all be kept in the same place.
        weights: one positive number for each.

    Raises:
        InvalidValueError: weights that fit no buffer, or buffers in different places; when traced, a batch too
            small to have a row of each.

    Example:
        >>> from pamiq_jax.data import ring_buffer
        >>> buffers = [ring_buffer(capacity=4), ring_buffer(capacity=8)]
        >>> states = tuple(buffer.add(buffer.init(0), jnp.full(2, 7 + i), 2) for i, buffer in enumerate(buffers))
        >>> mix_samples(buffers, [0.75, 0.25])(states, 4, 0, jax.random.key(0)).tolist()
        [7, 7, 7, 8]
    """
    _check("mix_samples", buffers, weights)

    def sample(states: tuple[Any, ...], batch_size: int, position: ArrayLike, rng_key: jax.Array) -> R:
        shares = mixed_shares(weights, batch_size)
        keys = jax.random.split(rng_key, len(buffers))
        parts = [
            buffer.sample(state, share, position, key)
            for buffer, state, share, key in zip(buffers, states, shares, keys, strict=True)
        ]
        return _concatenate(parts, shares)

    return sample


def mixed_buffer[X, R](buffers: Sequence[Buffer[Any, X, R]], weights: Sequence[float]) -> Buffer[tuple[Any, ...], X, R]:
    """Return a buffer that puts each record into all of the buffers, and samples them by `mix_samples`.

    For example newest and old experience in one batch: a small ring and a large reservoir. Its state is the tuple
    of theirs; capacity and size are those of the smallest and emptiest of them. Prioritized buffers mix with each
    other: each gets the priorities of its own rows, and importance weights are relative to the largest of a part.

    Args:
        buffers: at least one; they must all be kept in the same place.
        weights: one positive number for each.

    Raises:
        InvalidValueError: as `mix_samples`.

    Example:
        >>> from pamiq_jax.data import reservoir_buffer, ring_buffer
        >>> buffer = mixed_buffer([ring_buffer(capacity=100), reservoir_buffer(capacity=1000)], [1, 3])
        >>> buffer.capacity
        100
    """
    _check("mixed_buffer", buffers, weights)
    checks = [(place, buffer.can_sample) for place, buffer in enumerate(buffers) if buffer.can_sample is not None]

    def can_sample(states: tuple[Any, ...]) -> jax.Array:
        return jnp.all(jnp.stack([check(states[place]) for place, check in checks]))

    return Buffer(
        keeps_all=all(buffer.keeps_all for buffer in buffers),
        kind="mixed_buffer",
        init=lambda example: tuple(buffer.init(example) for buffer in buffers),
        add=partial(_add, buffers),
        sample=mix_samples(buffers, weights),
        size=partial(_size, buffers),
        required=partial(_required, buffers, weights),
        capacity=min(buffer.capacity for buffer in buffers),
        stable_in_run=any(buffer.stable_in_run for buffer in buffers),
        placement=buffers[0].placement,
        example=next((buffer.example for buffer in buffers if buffer.example is not None), None),
        can_sample=can_sample if checks else None,
        is_ordered=any(buffer.is_ordered for buffer in buffers),
        filled=min(buffer.filled for buffer in buffers),
        goes_on=all(buffer.goes_on for buffer in buffers),
        update=partial(_update, buffers, weights) if any(buffer.update is not None for buffer in buffers) else None,
    )


def mixed_shares(weights: Sequence[float], batch_size: int) -> list[int]:
    """Return how many of `batch_size` rows each weight gets: rounded down, the largest remainders one more.

    Raises:
        InvalidValueError: one would get none.

    Example:
        >>> mixed_shares([1, 1, 4], batch_size=8)
        [2, 1, 5]
    """
    exact = [batch_size * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[: batch_size - sum(shares)]:
        shares[place] += 1
    if 0 in shares:
        remedy = f"with weights {list(weights)}, buffer number {shares.index(0)} would never be sampled"
        raise InvalidValueError("batch_size of a mix", batch_size, "enough for a row of each buffer", remedy)
    return shares


def _check(function: str, buffers: Sequence[Buffer[Any, Any, Any]], weights: Sequence[float]) -> None:
    if not buffers or len(weights) != len(buffers):
        expected = f"one for each of {len(buffers)} buffers, of which there must be one at least"
        raise InvalidValueError(f"{function}(weights)", list(weights), expected)
    for number, buffer in enumerate(buffers):
        checked_kind(f"{function}(buffers) number {number}", buffer, Buffer, "a Buffer", "make one with ring_buffer")
    if not all(is_number(weight) and 0 < weight < math.inf for weight in weights):
        raise InvalidValueError(f"{function}(weights)", list(weights), "positive numbers", "leave out the others")
    places = [buffer.placement for buffer in buffers]
    if len(set(places)) > 1:
        raise InvalidValueError(f"{function}(buffers)", places, "one placement", "keep all on the host, or none")


def _add[X](
    buffers: Sequence[Buffer[Any, X, Any]], states: tuple[Any, ...], records: X, count: ArrayLike
) -> tuple[Any, ...]:
    return tuple(buffer.add(state, records, count) for buffer, state in zip(buffers, states, strict=True))


def _update(
    buffers: Sequence[Buffer[Any, Any, Any]],
    weights: Sequence[float],
    states: tuple[Any, ...],
    indices: jax.Array,
    priorities: jax.Array,
) -> tuple[Any, ...]:
    if indices.shape != priorities.shape:
        remedy = "give one priority for each index of the batch"
        raise InvalidValueError("update(priorities)", priorities.shape, f"the shape {indices.shape} of indices", remedy)
    shares = mixed_shares(weights, indices.shape[-1])
    ends = list(itertools.accumulate(shares))
    updated: list[Any] = []
    for buffer, state, share, end in zip(buffers, states, shares, ends, strict=True):
        rows = slice(end - share, end)
        update = buffer.update
        updated.append(state if update is None else update(state, indices[..., rows], priorities[..., rows]))
    return tuple(updated)


def _size(buffers: Sequence[Buffer[Any, Any, Any]], states: tuple[Any, ...]) -> jax.Array:
    sizes = [buffer.size(state) for buffer, state in zip(buffers, states, strict=True)]
    return jnp.min(jnp.stack(sizes))


def _required(buffers: Sequence[Buffer[Any, Any, Any]], weights: Sequence[float], batch_size: int) -> int:
    shares = mixed_shares(weights, batch_size)
    return max(buffer.required(share) for buffer, share in zip(buffers, shares, strict=True))


def _concatenate[R](parts: Sequence[R], shares: Sequence[int]) -> R:
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        alike: PyTree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((share, *leaf.shape[1:]), leaf.dtype), parts[0])  # noqa: B023 - used at once
        if problem := difference(alike, part):
            raise RecordMismatchError(f"batches of buffers number 0 and {number} can't be mixed: {problem}")
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
