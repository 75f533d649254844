"""A shuffled order that is computed index by index instead of being stored.

A balanced Feistel network is a bijection of `4**k` numbers whatever its round function; walking along
its cycle until the value is below `size` makes it one of `range(size)`: Black & Rogaway, "Ciphers with
Arbitrary Finite Domains", CT-RSA 2002. It shuffles; it is no cipher.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Four rounds suffice for large domains; on the 2-bit one (size <= 4), eight make all orders about equally likely.
_ROUNDS = 8


def permuted_index(rng_key: jax.Array, index: ArrayLike, size: ArrayLike) -> jax.Array:
    """Return the element at `index` of the key's permutation of `range(size)`, int32 `[]`.

    The expected number of evaluations of the network is below four, whatever the size.

    Args:
        rng_key: a key `[]`, consumed; it chooses the permutation.
        index: integer `[]`, from 0 to `size - 1`; a larger one counts as the last.
        size: integer `[]`, from 1 to `2**31 - 1`; may be traced. 0 counts as 1.

    Example:
        >>> sorted(int(permuted_index(jax.random.key(0), index, 5)) for index in range(5))
        [0, 1, 2, 3, 4]
    """
    return walk(round_keys(rng_key), index, size)


def round_keys(rng_key: jax.Array) -> jax.Array:
    """Return what a key's permutation is made of, uint32 `[rounds]`: worth having once for many indices.

    Example:
        >>> key = jax.random.key(0)
        >>> bool(walk(round_keys(key), 3, 5) == permuted_index(key, 3, 5))
        True
    """
    return jax.random.bits(rng_key, (_ROUNDS,), jnp.uint32)


def epoch_keys(keys: jax.Array, epochs: jax.Array) -> jax.Array:
    """Return round keys uint32 `[N, rounds]` of other permutations, one for each epoch, from those of one.

    That is far cheaper than a key folded for each epoch, and good enough for what is no cipher.

    Args:
        keys: uint32 `[rounds]`, as of `round_keys`.
        epochs: uint32 `[N]`.

    Example:
        >>> keys = epoch_keys(round_keys(jax.random.key(0)), jnp.arange(2, dtype=jnp.uint32))
        >>> [[int(walk(epoch, index, 5)) for index in range(5)] for epoch in keys]
        [[1, 2, 4, 3, 0], [0, 1, 2, 4, 3]]
    """
    return _mix(keys[None] ^ _mix(epochs)[:, None])


def walk(keys: jax.Array, index: ArrayLike, size: ArrayLike) -> jax.Array:
    """Return `permuted_index` for round keys.

    Args:
        keys: as of `round_keys`.
        index: integer `[]`.
        size: integer `[]`.
    """
    # From outside the range a walk may never come back to it, so neither bound is left to the caller.
    size = jnp.maximum(jnp.asarray(size).astype(jnp.uint32), 1)
    inside = jnp.minimum(jnp.asarray(index).astype(jnp.uint32), size - 1)
    half_bits = jnp.maximum((33 - jax.lax.clz(size - 1)) >> 1, 1)  # the least k > 0 with 4**k >= size
    shuffle = jax.tree_util.Partial(_feistel, half_bits, keys)
    return jax.lax.while_loop(lambda value: value >= size, shuffle, shuffle(inside)).astype(jnp.int32)


def _feistel(half_bits: jax.Array, keys: jax.Array, value: jax.Array) -> jax.Array:
    mask = (jnp.uint32(1) << half_bits) - 1
    left, right = (value >> half_bits) & mask, value & mask
    for round_key in keys:
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return (left << half_bits) | right


def _mix(value: jax.Array) -> jax.Array:
    """Return MurmurHash3's 32-bit finalizer of the value: every input bit reaches every output bit."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)
