"""Refuse to publish what is not a number."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import NonFiniteError
from pamiq_jax.types import Params, PyTree

# So many numbers in the host's memory numpy looks through sooner than XLA does, which wakes a thread for it.
_FEW = 1_000_000


@jax.jit
def all_finite(tree: PyTree) -> jax.Array:
    """Return `bool[]`: whether every inexact leaf of a tree holds only finite numbers.

    Example:
        >>> print(all_finite({"w": jnp.ones(3), "count": jnp.int32(1)}))
        True
    """
    inexact = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in inexact], dtype=jnp.bool_))


def check_finite(params: Mapping[str, Params]) -> None:
    """Raise if parameters hold NaN or infinity; waits until they are computed.

    Called from the training thread, before it publishes.

    Raises:
        NonFiniteError: naming the leaves.

    Example:
        >>> check_finite({"policy": jnp.array([1.0, jnp.nan])})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.NonFiniteError: not finite, so not published: ['policy'] (1 of 2 numbers); ...
    """
    if all(_are_finite(models, devices) for devices, models in _by_devices(params).items()):
        return
    parts: list[str] = []
    for name, leaf in zip(trees.leaf_names(params), jax.tree.leaves(params), strict=True):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        values = np.asarray(leaf)  # not with JAX: while a system runs nothing may be compiled
        if bad := np.count_nonzero(~np.isfinite(values)):
            parts.append(f"{name} ({bad} of {values.size} numbers)")
    raise NonFiniteError(
        f"not finite, so not published: {', '.join(parts)}; the last version stays in use. "
        "Lower the learning rate, clip gradients (optax.clip_by_global_norm), or look at the data"
    )


def _are_finite(models: Mapping[str, Params], devices: frozenset[Any]) -> bool:
    if not (len(devices) == 1 and next(iter(devices)).platform == "cpu"):
        return bool(all_finite(models))
    inexact = [np.asarray(leaf) for leaf in jax.tree.leaves(models) if _is_inexact(getattr(leaf, "dtype", None))]
    if sum(array.size for array in inexact) > _FEW:
        return bool(all_finite(models))
    return all(np.isfinite(array).all() for array in inexact)


@functools.cache
def _is_inexact(dtype: Any) -> bool:
    return dtype is None or jnp.issubdtype(dtype, jnp.inexact)  # a number of Python's is looked at too


def _by_devices(params: Mapping[str, Params]) -> Mapping[frozenset[Any], Mapping[str, Params]]:
    """Return the models in groups that one program can look at: those whose arrays lie on the same devices."""
    groups: dict[frozenset[Any], dict[str, Params]] = {}
    for name, model in params.items():
        arrays = (leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array))
        first = next(arrays, None)
        groups.setdefault(frozenset() if first is None else _devices(first.sharding), {})[name] = model
    return groups


@functools.cache
def _devices(sharding: jax.sharding.Sharding) -> frozenset[Any]:
    return frozenset(sharding.device_set)
