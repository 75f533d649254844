"""Say in words what differs between two trees: bits, forms or values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.types import PyTree


class Frozen(NamedTuple):
    """A copy of a tree in host memory, that nothing done to the tree can change."""

    structure: Any
    names: list[str]
    values: list[np.ndarray[Any, Any] | None]


def frozen(tree: PyTree) -> Frozen:
    """Return a copy of a tree's bits; a deleted array is None.

    Example:
        >>> array = np.zeros(2)
        >>> before = frozen(array)
        >>> array[0] = 1
        >>> bit_difference(before, frozen(array))
        'leaf the tree itself differs in 1 of 2 numbers'
    """
    leaves, structure = jax.tree.flatten(tree)
    return Frozen(structure, trees.leaf_names(tree), [_host_copy(leaf) for leaf in leaves])


def _host_copy(leaf: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        return None
    # A view would do for reading, but it would silently stop the donation of its array.
    return np.array(_without_key_type(leaf), copy=True)


def _without_key_type(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def bit_difference(expected: Frozen, actual: Frozen) -> str | None:
    """Return which leaf is not the same bit for bit, or None. NaN equals NaN.

    Example:
        >>> bit_difference(frozen({"x": 1.0}), frozen({"x": 1.0}))
    """
    if expected.structure != actual.structure:
        return f"the structure {expected.structure} became {actual.structure}"
    for name, old, new in zip(expected.names, expected.values, actual.values, strict=True):
        if old is None or new is None:
            if old is not new:
                return f"leaf {name} was deleted"
        elif (old.dtype, old.shape) != (new.dtype, new.shape):
            return f"leaf {name} was {trees.describe_leaf(old)}, is {trees.describe_leaf(new)}"
        elif np.any(_bytes(old) != _bytes(new)):
            return f"leaf {name} differs in {np.any(_bytes(old) != _bytes(new), axis=1).sum()} of {old.size} numbers"
    return None


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return `[size, itemsize]`: 0.0 and -0.0 are equal numbers, but go on to different results."""
    return array.reshape(-1, 1).view(np.uint8)


def form_difference(expected: PyTree, actual: PyTree) -> str | None:
    """Return what would compile again: structure, shape, dtype, weak type or sharding; or None.

    Example:
        >>> form_difference(jnp.float32(1), jnp.asarray(1.0))
        'leaf the tree itself: weak type False became True'
    """
    if problem := trees.difference(expected, actual):
        return problem
    pairs = zip(trees.leaf_names(expected), jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True)
    for name, old, new in pairs:
        if not (isinstance(old, jax.Array) and isinstance(new, jax.Array)):
            continue
        # Typed keys have no weak type to ask for.
        weak, became_weak = getattr(old, "weak_type", False), getattr(new, "weak_type", False)
        if weak != became_weak:
            return f"leaf {name}: weak type {weak} became {became_weak}"
        if not old.sharding.is_equivalent_to(new.sharding, old.ndim):
            return f"leaf {name}: expected on {old.sharding}, got {new.sharding}"
    return None


def value_difference(
    expected: PyTree, actual: PyTree, tolerance: float, spread: Sequence[float] | None = None
) -> str | None:
    """Return which leaf is further off than the tolerance, or None.

    Integers, bools and keys must be equal. The tolerance is relative and absolute, and at least four
    units in the last place of the dtype. `spread` has, for each leaf, a distance that is allowed besides.

    Example:
        >>> value_difference({"x": jnp.float32(1)}, {"x": jnp.float32(1.1)}, tolerance=1e-5)
        "leaf ['x'] is off by 0.1"
    """
    if problem := trees.difference(expected, actual):
        return problem
    leaves = jax.tree.leaves(expected)
    allowed = [0.0] * len(leaves) if spread is None else spread
    pairs = zip(trees.leaf_names(expected), leaves, jax.tree.leaves(actual), allowed, strict=True)
    for name, expected_leaf, actual_leaf, distance in pairs:
        want, got = np.asarray(_without_key_type(expected_leaf)), np.asarray(_without_key_type(actual_leaf))
        if jnp.issubdtype(want.dtype, jnp.inexact):
            limit = max(tolerance, 4 * float(jnp.finfo(want.dtype).eps))
            wide = np.complex128 if np.iscomplexobj(want) else np.float64
            want, got = want.astype(wide), got.astype(wide)
            if not np.allclose(got, want, rtol=limit, atol=max(limit, distance), equal_nan=True):
                return f"leaf {name} is off by {np.max(np.abs(got - want)):.2g}"
        elif not np.array_equal(want, got):
            return f"leaf {name} differs in {np.sum(want != got)} of {want.size} numbers"
    return None
