"""Call a function under `jit` without copying what it hands through.

A jitted program copies an input that it returns as it is. Publishing is mostly that, so the
leaves handed through are found when tracing and passed around the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.extend.core

from pamiq_jax.types import PyTree


def forwarded_leaves(function: Callable[[Any], PyTree], argument: PyTree) -> dict[int, int]:
    """Return which leaves of its result a function hands through: {output index: input index}.

    Example:
        >>> import jax.numpy as jnp
        >>> forwarded_leaves(lambda x: (x["b"], x["a"] * 2), {"a": jnp.ones(3), "b": jnp.ones(2)})
        {0: 1}
    """
    jaxpr = jax.make_jaxpr(function)(argument).jaxpr
    inputs = {variable: index for index, variable in enumerate(jaxpr.invars)}
    # A constant is a Literal, which has no hash.
    variables = [(index, out) for index, out in enumerate(jaxpr.outvars) if isinstance(out, jax.extend.core.Var)]
    return {index: inputs[out] for index, out in variables if out in inputs}


def calls_python(jaxpr: Any) -> bool:
    """Return whether a traced function calls back into Python, as `jax.pure_callback` does.

    Args:
        jaxpr: what was traced.

    Example:
        >>> import jax.numpy as jnp
        >>> calls_python(jax.make_jaxpr(lambda x: jax.lax.scan(lambda x, _: (x + 1, None), x, length=2))(1.0))
        False
        >>> calls_python(jax.make_jaxpr(jax.jit(lambda x: jax.pure_callback(lambda x: x, x, x)))(jnp.ones(())))
        True
    """
    for equation in jaxpr.eqns:
        if "callback" in equation.primitive.name or equation.primitive.name == "debug_print":
            return True
        parts = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns"))
        if any(hasattr(part, "eqns") and calls_python(part) for part in parts):
            return True
    return False


def jit_forwarding[A, R](function: Callable[[A], R], argument: A, *, in_place: bool = False) -> Callable[[A], R]:
    """Return a function compiled ahead of time that hands unchanged leaves through uncopied.

    Args:
        function: a function that can be traced.
        argument: of the form that will be used, with real arrays.
        in_place: copy a leaf that is handed through to another place than it came from. In a state that
            is partly donated, one array must not stand in two places, nor change from kept to donated.

    Example:
        >>> import jax.numpy as jnp
        >>> state = {"params": jnp.ones(3), "step": jnp.int32(0)}
        >>> publish = jit_forwarding(lambda state: {"model": state["params"]}, state)
        >>> publish(state)["model"] is state["params"]
        True
    """
    forwarded = forwarded_leaves(function, argument)
    if in_place:
        forwarded = {index: source for index, source in forwarded.items() if index == source}
    treedef = jax.tree.structure(jax.eval_shape(function, argument))
    computed = [index for index in range(treedef.num_leaves) if index not in forwarded]
    if not computed and in_place:
        return lambda argument: cast(R, argument)

    def compute(argument: A) -> list[jax.Array]:
        leaves = jax.tree.leaves(function(argument))
        return [leaves[index] for index in computed]

    program = jax.jit(compute).lower(argument).compile() if computed else None

    def call(argument: A) -> R:
        inputs = jax.tree.leaves(argument)
        results = dict(zip(computed, program(argument) if program else (), strict=True))
        leaves = [inputs[forwarded[i]] if i in forwarded else results[i] for i in range(treedef.num_leaves)]
        return cast(R, jax.tree.unflatten(treedef, leaves))

    return call
