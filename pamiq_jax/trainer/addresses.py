"""Proofs that no published array is deleted, by the addresses that arrays stand at: for debugging."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pamiq_jax import trees
from pamiq_jax.errors import DonationError
from pamiq_jax.types import PyTree


def buffer_pointers(tree: PyTree) -> frozenset[int]:
    """Return the addresses of the device buffers that a tree's arrays stand on; empty arrays have none.

    Example:
        >>> x = jnp.ones(3)
        >>> buffer_pointers(x) == buffer_pointers({"the same": x}), len(buffer_pointers([x, jnp.ones(3)]))
        (True, 2)
    """
    pointers: set[int] = set()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and leaf.size:
            array = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
            pointers.update(shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards)
    return frozenset(pointers)


def check_not_donated(published: PyTree, donated: PyTree) -> None:
    """Raise if an array that inference may read is among those about to be donated.

    A debug check: it costs a host call per array.

    Raises:
        DonationError: naming the arrays in `donated`.

    Example:
        >>> w = jnp.ones(3)
        >>> check_not_donated({"w": w}, {"momentum": jnp.ones(3)})
        >>> check_not_donated({"w": w}, {"momentum": w})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.DonationError: published arrays would be deleted by the next step: ['momentum']; ...
    """
    pointers = buffer_pointers(published)
    leaves = zip(trees.leaf_names(donated), jax.tree.leaves(donated), strict=True)
    if shared := [name for name, leaf in leaves if buffer_pointers(leaf) & pointers]:
        raise DonationError(
            f"published arrays would be deleted by the next step: {', '.join(shared)}; "
            "let the step return new arrays for them, or publish a copy (jnp.copy)"
        )


def check_alive(published: PyTree) -> None:
    """Raise if a published array has been deleted, by a step that donates on its own.

    Raises:
        DonationError: naming the arrays.
    """
    leaves = zip(trees.leaf_names(published), jax.tree.leaves(published), strict=True)
    if deleted := [name for name, leaf in leaves if isinstance(leaf, jax.Array) and leaf.is_deleted()]:
        raise DonationError(
            f"the trainer's step deleted published arrays: {', '.join(deleted)}; take the parameters out of the "
            "step's donate_argnums, or publish a copy (jnp.copy)"
        )
