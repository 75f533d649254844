"""What may be a leaf of parameters and states: arrays and numbers, and no module object."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.types import PyTree


def check_arrays(name: str, tree: PyTree) -> None:
    """Raise unless a tree has nothing but arrays and numbers for leaves, and no module in it.

    Args:
        name: what it is, for the message.
        tree: what should be a pytree of arrays.

    Raises:
        InvalidValueError: naming the leaf.

    Example:
        >>> check_arrays("params", {"w": np.ones(2), "steps": 3})
        >>> check_arrays("params", {"w": "ones"})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.InvalidValueError: params['w'] is 'ones', expected an array; ...
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_flax_module)[0]:
        place = f"{name}{jax.tree_util.keystr(path)}"
        if _is_flax_module(leaf):
            remedy = _MODULE + (_NNX if _is_a_module_of(leaf, "flax.nnx") else _LINEN)
            raise InvalidValueError(place, type(leaf), "a pytree of arrays", remedy)
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic | complex | float | int):
            actual = leaf if isinstance(leaf, str) else type(leaf)
            raise InvalidValueError(place, actual, "an array", _EQUINOX if _has_equinox(tree) else _NO_ARRAY)
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm":
            raise InvalidValueError(place, f"of dtype {leaf.dtype}", "an array of numbers", "keep others in a closure")


_MODULE = "a module object is no state: none ever crosses threads; "
_NNX = (
    "write `parts = pamiq_jax.flax.split_module(module)`, then `Model(parts.params, parts.apply)` and nnx_trainer; "
    "by hand `nnx.split(module)[1]`"
)
_LINEN = "give its variables, `module.init(key, x)`, as in `Model(variables, module.apply)` and linen_trainer"
_EQUINOX = (
    "an equinox module holds functions: write `parts = pamiq_jax.equinox.split_module(module)`, then "
    "`Model(parts.params, parts.apply)` and equinox_trainer; by hand `eqx.partition(module, eqx.is_array)[0]`"
)
_NO_ARRAY = "keep what is no array in a closure, or a static field"


def _is_a_module_of(leaf: Any, *packages: str) -> bool:
    """Return whether it is a module of one of these, by name: they take a while to import, and need not be there."""
    return any(
        base.__name__ in ("Module", "Pytree") and f"{base.__module__}.".startswith(f"{package}.")
        for base in type(leaf).__mro__
        for package in packages
    )


def _is_flax_module(leaf: Any) -> bool:
    return _is_a_module_of(leaf, "flax.nnx", "flax.linen")


def _has_equinox(tree: PyTree) -> bool:
    def is_equinox(node: Any) -> bool:
        return _is_a_module_of(node, "equinox")

    return any(map(is_equinox, jax.tree.leaves(tree, is_leaf=is_equinox)))
