"""Which records a batch has: orders over `range(size)`, 0 being the oldest.

An order is a pure function of the batch's position in the run, so it needs no state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from pamiq_jax.data.permutation import permuted_index

type Sampling = Literal["uniform", "epochs", "in_order"]
"""With replacement; every record once per shuffled epoch; oldest first, again and again."""


class AgesFn(Protocol):
    """Return the ages, int32 `[batch_size]`, of the records in batch number `position`."""

    def __call__(self, size: jax.Array, batch_size: int, position: jax.Array, rng_key: jax.Array) -> jax.Array:
        """Return indices into `range(size)`; `size` is int32 `[]` and at least 1."""
        ...


class Order(NamedTuple):
    """An order of sampling and what it needs.

    Attributes:
        ages: which records a batch has.
        needs_full_batch: the buffer must hold a batch's worth of records.
        stable_in_run: the size must not change within a run.
    """

    ages: AgesFn
    needs_full_batch: bool
    stable_in_run: bool


def _uniform(size: jax.Array, batch_size: int, position: jax.Array, rng_key: jax.Array) -> jax.Array:
    return jax.random.randint(jax.random.fold_in(rng_key, position), (batch_size,), 0, size, jnp.int32)


def _epochs(size: jax.Array, batch_size: int, position: jax.Array, rng_key: jax.Array) -> jax.Array:
    epochs, indices = _epochs_and_indices(size, batch_size, position)

    def age(epoch: jax.Array, index: jax.Array) -> jax.Array:
        return permuted_index(jax.random.fold_in(rng_key, epoch), index, size)

    return jax.vmap(age)(epochs, indices)  # a batch may straddle epochs, so each row has its own


def _in_order(size: jax.Array, batch_size: int, position: jax.Array, rng_key: jax.Array) -> jax.Array:
    del rng_key  # nothing is drawn
    _, indices = _epochs_and_indices(size, batch_size, position)
    return indices.astype(jnp.int32)


def _epochs_and_indices(size: jax.Array, batch_size: int, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `divmod(position * batch_size + arange(batch_size), size)`, uint32 `[batch_size]` each.

    The product is formed bit by bit with the remainder taken in between: it would pass 32 bits after
    some days of training. The epochs are right modulo `2**32`, which is enough to choose a shuffle.
    """
    divisor = size.astype(jnp.uint32)
    whole, rest = jnp.divmod(position.astype(jnp.uint32), divisor)
    epoch, index = whole * jnp.uint32(batch_size), jnp.zeros((), jnp.uint32)
    carried = jnp.zeros((), jnp.uint32)
    for bit in f"{batch_size:b}":
        over, index = jnp.divmod(2 * index + (rest if bit == "1" else 0), divisor)
        carried = 2 * carried + over
    over, indices = jnp.divmod(index + jnp.arange(batch_size, dtype=jnp.uint32), divisor)
    return epoch + carried + over, indices


ORDERS: Mapping[Sampling, Order] = MappingProxyType(
    {
        "uniform": Order(_uniform, needs_full_batch=False, stable_in_run=False),
        "epochs": Order(_epochs, needs_full_batch=True, stable_in_run=True),
        "in_order": Order(_in_order, needs_full_batch=True, stable_in_run=True),
    }
)
"""The orders by the name that `ring_buffer(sampling=...)` takes."""
