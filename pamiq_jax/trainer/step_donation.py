"""What a user's step donates: found out, and kept from those who still read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp

from pamiq_jax import trees
from pamiq_jax.errors import DonationError, DonationWarning


def donated_leaves(step: Callable[..., Any], *arguments: Any) -> tuple[str, ...]:
    """Return the names of the arguments' leaves that a call of a step would delete, by donating them.

    It is seen in the traced function, whoever jitted what is in it. A step that cannot be traced is called once,
    on copies.

    Args:
        step: a function, jitted or not.
        arguments: as it would be called; none is deleted.

    Example:
        >>> step = jax.jit(lambda params, batch: params - batch, donate_argnums=0)
        >>> donated_leaves(step, {"w": jnp.ones(2)}["w"], jnp.ones(2))
        ('[0]',)
    """
    names = trees.leaf_names(arguments)
    try:
        jaxpr = jax.make_jaxpr(step)(*arguments).jaxpr
    except (TypeError, jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        copies = _copy(arguments)
        step(*copies)
        return tuple(name for name, leaf in zip(names, jax.tree.leaves(copies), strict=True) if _is_deleted(leaf))
    inputs = {variable: index for index, variable in enumerate(jaxpr.invars)}
    donated: set[int] = set()
    for equation in jaxpr.eqns:  # only the outermost: a donation within a jitted function counts for nothing
        flags = equation.params.get("donated_invars", ())
        for variable, is_donated in zip(equation.invars, flags, strict=False):
            if is_donated and isinstance(variable, jax.extend.core.Var) and variable in inputs:
                donated.add(inputs[variable])
    return tuple(names[index] for index in sorted(donated))


def without_donation(name: str, function: Callable[..., Any], donates: bool | None) -> Callable[..., Any]:
    """Return a function that runs as plain Python and deletes nothing that it is given.

    Args:
        name: of the step, for messages.
        function: what may donate its arguments.
        donates: True gives it copies of all arguments, False of none. None finds out, by giving it copies at its
            first call, and says once what is copied from then on.

    Example:
        >>> step = jax.jit(lambda x: x + 1, donate_argnums=0)
        >>> x = jnp.ones(2)
        >>> without_donation("step", step, True)(x).tolist(), x.is_deleted()
        ([2.0, 2.0], False)
    """
    if donates is False:
        return function
    found: dict[Any, frozenset[int]] = {}  # what was seen at the first call: a cache, as that of `jit`

    def guarded(*arguments: Any) -> Any:
        leaves, treedef = jax.tree.flatten(arguments)
        everything = frozenset(range(len(leaves)))
        copied = everything if donates else found.get(treedef, everything)
        handed = _copy([leaf if index in copied else None for index, leaf in enumerate(leaves)])
        handed = [leaves[index] if index not in copied else leaf for index, leaf in enumerate(handed)]
        result = function(*jax.tree.unflatten(treedef, handed))
        deleted = frozenset(index for index, leaf in enumerate(handed) if _is_deleted(leaf))
        names = [name for index, name in enumerate(trees.leaf_names(arguments)) if index in deleted]
        if deleted - copied:
            raise DonationError(
                f"{name} deleted {', '.join(names)}, which it had not at its first call; say so with donates=True"
            )
        if donates is None and treedef not in found:
            found[treedef] = deleted
            if deleted:
                _announce(name, names)
        return result

    return guarded


def _announce(name: str, names: list[str]) -> None:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    warnings.warn(
        f"{name} donates {len(names)} of its arrays ({shown}), which a snapshot or a saved state may hold; it is given "
        "copies of them at every step. Take them out of its donate_argnums, or confirm with donates=True",
        DonationWarning,
        stacklevel=3,
    )


@jax.jit
def _copy_arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _copy(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda leaf: leaf is None)
    arrays = _copy_arrays([leaf if isinstance(leaf, jax.Array) else None for leaf in leaves])
    return jax.tree.unflatten(
        treedef, [leaf if array is None else array for leaf, array in zip(leaves, arrays, strict=True)]
    )


def _is_deleted(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and leaf.is_deleted()
