"""What a user's step donates: found out, and kept from those who still read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import DonationError, DonationWarning, PamiqError
from pamiq_jax.trainer.base import Trainer, unchanged
from pamiq_jax.types import PyTree


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
        copies = copied(arguments)
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

    Its first call is given copies of all, which costs once what a copy costs. So what it donates is seen before
    anything that somebody reads is gone.

    Args:
        name: of the step, for messages.
        function: what may donate its arguments.
        donates: True gives it copies of all arguments at every call. False says that it donates nothing, which is
            checked. None finds out, and says once what is copied from then on.

    Example:
        >>> step = jax.jit(lambda x: x + 1, donate_argnums=0)
        >>> x = jnp.ones(2)
        >>> without_donation("step", step, True)(x).tolist(), x.is_deleted()
        ([2.0, 2.0], False)
    """
    found: dict[Any, frozenset[int]] = {}  # what was seen at the first call: a cache, as that of `jit`

    def guarded(*arguments: Any) -> Any:
        leaves, treedef = jax.tree.flatten(arguments)
        is_first = treedef not in found
        copied = frozenset(range(len(leaves))) if donates or is_first else found[treedef]
        handed = _copied_at(copied, leaves)
        result = function(*jax.tree.unflatten(treedef, handed))
        deleted = frozenset(index for index, leaf in enumerate(handed) if _is_deleted(leaf))
        names = [leaf for index, leaf in enumerate(trees.leaf_names(arguments)) if index in deleted]
        if deleted - copied:
            raise DonationError(
                f"{name} deleted {', '.join(names)}, which it had not at its first call; say so with donates=True"
            )
        if deleted and donates is False:
            raise DonationError(
                f"{name} donates {', '.join(names)}, expected nothing, as donates=False says; nothing is lost, it was "
                "given copies. Take them out of its donate_argnums, or leave donates= out"
            )
        if is_first:
            found[treedef] = deleted
            _copied_at(deleted, leaves)  # so that it is compiled now, not while an agent acts
            if deleted and donates is None:
                _announce(name, names)
        return result

    return guarded


def keeping[S, B](trainer: Trainer[S, B]) -> Trainer[S, B]:
    """Return a trainer, run as plain Python, whose functions delete nothing of a state that somebody keeps.

    Example:
        >>> from pamiq_jax.trainer import custom_trainer
        >>> step = jax.jit(lambda state, batch: (state + batch, {}), donate_argnums=0)
        >>> trainer, state = custom_trainer(lambda key, params: params, step, compiled=False), jnp.zeros(2)
        >>> with warnings.catch_warnings(action="ignore"):
        ...     after, metrics = keeping(trainer).step(state, jnp.ones(2))
        >>> after.tolist(), state.is_deleted()
        ([1.0, 1.0], False)
    """
    functions = {"setup": trainer.setup, "step": trainer.step, "teardown": trainer.teardown}
    changing = {name: function for name, function in functions.items() if function is not unchanged}
    return trainer._replace(**{name: without_donation(name, changing[name], None) for name in changing})


def warm_up(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> None:
    """Call a trainer's `setup`, `step` and `teardown` once on copies, so that what they jit themselves is compiled.

    What they raise on a first batch, which is mostly zeros, need not come again: it becomes a warning.

    Args:
        trainer: one that runs as plain Python.
        state: its first; nothing of it is deleted.
        batch: of one step.

    Raises:
        PamiqError: it is a mistake in the step that the library knows, and so it would come again.

    Example:
        >>> from pamiq_jax.trainer import custom_trainer
        >>> calls = []
        >>> def step(state, batch):
        ...     calls.append(batch.tolist())
        ...     return state, {}
        >>> warm_up(custom_trainer(lambda key, params: params, step, compiled=False), {}, jnp.zeros(2))
        >>> calls
        [[0.0, 0.0]]
    """
    state, batch = copied((state, batch))
    try:
        after, _ = trainer.step(trainer.setup(state), batch)
        jax.block_until_ready(trainer.teardown(after))
    except PamiqError:
        raise
    except Exception as error:
        warnings.warn(
            f"the step could not be called before the system runs, on a first batch that is mostly zeros: {error!r}; "
            "it is compiled when it first runs. warm_up=False leaves this call out",
            RuntimeWarning,
            stacklevel=2,
        )


def copied(tree: PyTree) -> PyTree:
    """Return a tree whose arrays are copies, made by one program: nothing done to one tree is seen in the other.

    Example:
        >>> x = jnp.ones(2)
        >>> copied({"x": x})["x"] is x
        False
    """
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, _copied_at(range(len(leaves)), leaves))


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


def _copied_at(places: Collection[int], leaves: Sequence[Any]) -> list[Any]:
    """Return leaves with copies at some places."""
    arrays = [leaf if place in places and isinstance(leaf, jax.Array) else None for place, leaf in enumerate(leaves)]
    copies: list[Any] = _copy_arrays(arrays) if any(array is not None for array in arrays) else arrays
    for place, leaf in enumerate(leaves):
        if copies[place] is None:
            copies[place] = np.copy(cast(Any, leaf)) if place in places and isinstance(leaf, np.ndarray) else leaf
    return copies


def _is_deleted(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and leaf.is_deleted()
