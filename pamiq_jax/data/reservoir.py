"""A sample of everything that came, older records becoming ever rarer."""

from __future__ import annotations

import math
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pamiq_jax.arguments import checked_integer, is_number
from pamiq_jax.data.buffer import Buffer, Placement
from pamiq_jax.data.rows import (
    check_batch_size,
    check_storage,
    last_of_each,
    read_rows,
    valid_rows,
    write_rows,
    zero_rows,
)
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError

_EULER_GAMMA = 0.5772156649015329


class ReservoirState[X](Shown, flax.struct.PyTreeNode):
    """The stored records, and what decides the fate of the next one.

    Attributes:
        records: leaves `[capacity, ...]`; slots that were never written are zero.
        size: int32 `[]`, how many records are stored.
        offered: uint32 `[]`, how many records came so far, modulo `2**32`.
        rng_key: key `[]`; record number `i` is decided on by `fold_in(rng_key, i)`, whatever chunk it comes in.
    """

    records: X
    size: jax.Array
    offered: jax.Array
    rng_key: jax.Array


def reservoir_buffer[X](
    capacity: int,
    *,
    replace_probability: float | None = None,
    expected_survival_length: float | None = None,
    seed: int = 0,
    placement: Placement = "device",
    example: X | None = None,
) -> Buffer[ReservoirState[X], X, X]:
    """Return a buffer that, once full, puts a new record in a uniformly random slot with some probability.

    A record then survives for a geometrically distributed time, `capacity / replace_probability` further
    records in the mean; those that lose are gone at once. Sampling is uniform, with replacement.

    Args:
        capacity: the number of records, from 1 to `2**30`.
        replace_probability: p in (0, 1], by default 1: each new record is kept.
        expected_survival_length: instead of p, after how many records the last of the old ones is expected to be
            gone: `p = capacity / length * (ln(capacity) + 0.5772)`, the coupon collector's time solved for p.
        seed: of the state's key.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range, p outside (0, 1], or both ways to say p are used.

    Example:
        >>> buffer = reservoir_buffer(capacity=3, replace_probability=0.5)
        >>> state = buffer.add(buffer.init(jnp.int32(0)), jnp.arange(3), 3)
        >>> state = buffer.add(state, jnp.array([3, 4, 5]), 3)
        >>> int(state.size), int(state.offered)
        (3, 6)
    """
    check_storage("reservoir_buffer", capacity, placement)
    checked_integer("reservoir_buffer(seed)", seed, least=0)
    probability = _replace_probability(capacity, replace_probability, expected_survival_length)
    return Buffer(
        keeps_all=True,
        kind="reservoir_buffer",
        init=partial(_init, capacity, seed),
        add=partial(_add, capacity, probability),
        sample=_sample,
        size=lambda state: state.size,
        required=lambda batch_size: 1,
        capacity=capacity,
        stable_in_run=False,
        placement=placement,
        example=example,
    )


def _replace_probability(capacity: int, probability: float | None, survival_length: float | None) -> float:
    if survival_length is None:
        probability = 1.0 if probability is None else probability
        if not is_number(probability) or not 0 < probability <= 1:
            expected, remedy = "more than 0 and at most 1", "leave it out to keep every new record"
            raise InvalidValueError("reservoir_buffer(replace_probability)", probability, expected, remedy)
        return probability
    if probability is not None:
        remedy = f"leave out one of it and replace_probability={probability}"
        raise InvalidValueError("reservoir_buffer(expected_survival_length)", survival_length, "None", remedy)
    shortest = capacity * (math.log(capacity) + _EULER_GAMMA)
    if not is_number(survival_length) or not shortest <= survival_length < math.inf:
        # Even with p = 1 it takes so many records until each slot was hit.
        expected = f"at least {math.ceil(shortest)}, where replace_probability is 1, and finite"
        remedy = f"expect a longer survival or lower the capacity of {capacity}"
        raise InvalidValueError("reservoir_buffer(expected_survival_length)", survival_length, expected, remedy)
    return shortest / survival_length


def _init[X](capacity: int, seed: int, example: X) -> ReservoirState[X]:
    return ReservoirState(
        records=zero_rows(capacity, example),
        size=jnp.zeros((), jnp.int32),
        offered=jnp.zeros((), jnp.uint32),
        rng_key=jax.random.key(seed),
    )


def _add[X](
    capacity: int, probability: float, state: ReservoirState[X], records: X, count: ArrayLike
) -> ReservoirState[X]:
    chunk, valid = valid_rows(state.records, records, count)
    slots = _slots(capacity, probability, state, chunk, valid)
    return state.replace(
        records=write_rows(state.records, slots, records),
        size=jnp.minimum(state.size + valid, capacity),
        offered=state.offered + valid.astype(jnp.uint32),
    )


def _slots[X](capacity: int, probability: float, state: ReservoirState[X], chunk: int, valid: jax.Array) -> jax.Array:
    """Return where each row goes, int32 `[chunk]`, all different; past the end for one that is not kept."""
    offsets = jnp.arange(chunk, dtype=jnp.int32)
    is_replacing, victims = jax.vmap(partial(_lot, capacity, probability, state.rng_key))(
        state.offered + offsets.astype(jnp.uint32)
    )
    free = state.size + offsets
    is_free = free < capacity
    is_kept = (offsets < valid) & (is_free | is_replacing)
    slots = jnp.where(is_kept, jnp.where(is_free, free, victims), capacity)
    return last_of_each(slots, outside=capacity)


def _lot(capacity: int, probability: float, rng_key: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return whether record `number` replaces another one, and the slot `[]` of that."""
    whether_key, which_key = jax.random.split(jax.random.fold_in(rng_key, number))
    # Compared as integers, since a float32 in [0, 1) knows no probability below 2**-23.
    limit = max(round(probability * 2**32), 1) - 1
    is_replacing = jax.random.bits(whether_key, (), jnp.uint32) <= jnp.uint32(limit)
    return is_replacing, jax.random.randint(which_key, (), 0, capacity, jnp.int32)


def _sample[X](state: ReservoirState[X], batch_size: int, position: ArrayLike, rng_key: jax.Array) -> X:
    check_batch_size(batch_size)
    batch_key = jax.random.fold_in(rng_key, position)
    slots = jax.random.randint(batch_key, (batch_size,), 0, jnp.maximum(state.size, 1), jnp.int32)
    return read_rows(state.records, slots)
