"""What is promised of every function of the pure core, whatever it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp

from pamiq_jax import trees
from pamiq_jax.errors import ContractError
from pamiq_jax.testing.comparing import bit_difference, form_difference, frozen
from pamiq_jax.testing.rounding import SpreadFn, difference_beyond_rounding, no_spread
from pamiq_jax.types import PyTree

type Arguments = tuple[Any, ...]


def require(function: str, promise: str, problem: str | None) -> None:
    """Raise a `ContractError` if there is a problem.

    Example:
        >>> require("step", "it is pure", None)
    """
    if problem is not None:
        raise ContractError(function, promise, problem)


@contextlib.contextmanager
def promised(function: str, promise: str) -> Generator[None]:
    """Turn whatever is raised within into a `ContractError` with that cause.

    Example:
        >>> with promised("step", "it works under jax.jit"):
        ...     raise TypeError("no")
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.ContractError: step: it does not hold that it works under jax.jit: TypeError: no
    """
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ContractError(function, promise, f"{type(error).__name__}: {first_line}") from error


def check_pure(name: str, function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the function's result, having called it twice to see that nothing was changed by that.

    Example:
        >>> check_pure("double", lambda x: 2 * x, (3,))
        6
    """
    before = frozen(arguments)
    with promised(name, "it can be called"):
        first = function(*arguments)
    require(name, "its input is not changed", bit_difference(before, frozen(arguments)))
    result = frozen(first)
    with promised(name, "it can be called again with the same input"):
        second = function(*arguments)
    require(name, "its input is not changed", bit_difference(before, frozen(arguments)))
    require(name, "the same input gives the same output", bit_difference(result, frozen(second)))
    # The caller goes on with `first`, so a function that reuses its output's memory must show here.
    require(name, "its output is not changed by the next call", bit_difference(result, frozen(first)))
    return first


def check_traced(
    name: str,
    function: Callable[..., Any],
    arguments: Arguments,
    expected: PyTree,
    *,
    later: Arguments | None = None,
    tolerance: float = 1e-5,
    get_spread: SpreadFn = no_spread,
) -> None:
    """Check that a function means the same under `jit`, `vmap` and `eval_shape`, and is traced once.

    Values are compared with a tolerance, not bit for bit: within one program XLA fuses operations, contracts
    `a * b + c` and sums in another order, which is allowed to round differently.

    Args:
        name: for the error.
        function: of arrays.
        arguments: its arguments.
        expected: what it gives for them without tracing.
        later: arguments that come later; the same ones by default.
        tolerance: relative and absolute.
        get_spread: for a function that magnifies rounding, see `spread_of`.

    Example:
        >>> check_traced("double", lambda x: 2 * x, (jnp.ones(3),), 2 * jnp.ones(3))
    """

    def differing(actual: PyTree) -> str | None:
        return difference_beyond_rounding(expected, actual, tolerance, get_spread)

    actual = _check_jit(name, function, arguments, arguments if later is None else later)
    require(name, "jit(f) == f", differing(actual))
    require(name, "jit keeps the form of its output", form_difference(expected, actual))
    with promised(name, "it works under jax.eval_shape"):
        abstract = jax.eval_shape(function, *arguments)
    require(name, "jax.eval_shape tells the form of its output", trees.difference(expected, abstract))

    def rows_of_two(*arguments: Any) -> list[Any]:
        pairs = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), arguments)
        mapped = jax.vmap(function)(*pairs)
        return [jax.tree.map(lambda leaf: leaf[0], mapped), jax.tree.map(lambda leaf: leaf[1], mapped)]

    with promised(name, "it works under jax.vmap"):
        rows = jax.jit(rows_of_two)(*arguments)
    for row in rows:
        require(name, "vmap(f) == f", differing(row))


def _check_jit(name: str, function: Callable[..., Any], arguments: Arguments, later: Arguments) -> PyTree:
    """Return the compiled function's output, having seen that it is traced once."""
    traces = 0

    def counted(*arguments: Any) -> Any:
        nonlocal traces
        traces += 1
        return function(*arguments)

    compiled = jax.jit(counted)
    with promised(name, "it works under jax.jit"):
        actual = compiled(*arguments)
        compiled(*later)
    if traces > 1:
        changed = form_difference(arguments, later) or "its arguments have the same form"
        raise ContractError(name, "it is traced once", f"two calls traced it {traces} times; {changed}")
    return actual


def check_kept(name: str, before: PyTree, after: PyTree) -> None:
    """Check that a state comes out in the form it went in, so that nothing has to compile again.

    Example:
        >>> check_kept("step", jnp.ones(3), jnp.zeros(3))
    """
    require(name, "structure, shapes, dtypes, weak types and sharding are kept", form_difference(before, after))
