"""How far a function's output moves when its input moves by as much as rounding does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.testing.comparing import value_difference
from pamiq_jax.types import PyTree

type SpreadFn = Callable[[], Sequence[float] | None]
"""`() -> how far each leaf may be off`, or None."""

_NUDGES = 3
_UNITS = 4.0
_MARGIN = 8.0


def nudged(tree: PyTree, seed: int) -> PyTree:
    """Return a tree whose floating-point numbers are other ones by a few units in the last place.

    Args:
        tree: of arrays; integers, bools and keys in it stay, and so does 0.
        seed: of the change.

    Example:
        >>> one = nudged({"w": jnp.float32(1), "count": 3}, seed=0)
        >>> 0 < abs(float(one["w"]) - 1) < 1e-6, one["count"]
        (True, 3)
    """
    random = np.random.default_rng(seed)

    def nudge(leaf: Any) -> Any:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            return leaf
        wide = np.asarray(leaf).astype(
            np.result_type(np.float64, np.complex64 if np.iscomplexobj(leaf) else np.float64)
        )
        moved = wide * (1 + random.uniform(-_UNITS, _UNITS, wide.shape) * float(jnp.finfo(dtype).eps))
        return jnp.asarray(moved, dtype) if isinstance(leaf, jax.Array) else moved.astype(dtype)

    return jax.tree.map(nudge, tree)


def rounding_spread(function: Callable[..., Any], arguments: tuple[Any, ...], *, compiled: bool = True) -> list[float]:
    """Return, for each leaf of a function's output, how far rounding in its input may move it.

    Where a gradient is 0 but for rounding, an optimizer that divides by its size makes a whole step of it, in any
    direction. That is no more than what two correct programs of the same function may differ by.

    Args:
        function: of arrays.
        arguments: its arguments.
        compiled: whether it can be compiled, and is looked at in that form too.

    Example:
        >>> spread = rounding_spread(lambda x: (x, jnp.sign(x - 1)), (jnp.float32(1),))
        >>> spread[0] < 1e-4, spread[1] >= 1
        (True, True)
    """
    forms = [function, jax.jit(lambda *arguments: function(*arguments))] if compiled else [function]
    spread: list[float] = []
    for form in forms:
        with contextlib.suppress(Exception):  # what it can't take moves nothing
            outputs = [jax.tree.leaves(form(*nudged(arguments, seed))) for seed in range(_NUDGES)]
            usual = jax.tree.leaves(form(*arguments))
            moved = [
                max(map(_distance, [leaf] * _NUDGES, others)) for leaf, *others in zip(usual, *outputs, strict=True)
            ]
            spread = [*map(max, spread, moved)] if spread else moved
    return [_MARGIN * distance for distance in spread]


def _distance(first: Any, second: Any) -> float:
    if not jnp.issubdtype(jnp.result_type(first), jnp.inexact):
        return 0.0
    wide = np.complex128 if np.iscomplexobj(first) else np.float64
    distance = np.abs(np.asarray(first).astype(wide) - np.asarray(second).astype(wide))
    return float(np.max(distance, initial=0.0, where=np.isfinite(distance)))


def difference_beyond_rounding(expected: PyTree, actual: PyTree, tolerance: float, get_spread: SpreadFn) -> str | None:
    """Return which leaf is further off than the tolerance, and than rounding explains, or None.

    Args:
        expected: a function's output.
        actual: the same, as another program computes it.
        tolerance: as in `value_difference`.
        get_spread: returns `rounding_spread` of the function; asked where the tolerance does not do.

    Example:
        >>> difference_beyond_rounding(jnp.float32(1), jnp.float32(1.1), 1e-5, lambda: [0.2])
        >>> difference_beyond_rounding(jnp.float32(1), jnp.float32(1.1), 1e-5, lambda: [0.01])
        'leaf the tree itself is off by 0.1'
    """
    problem = value_difference(expected, actual, tolerance)
    return problem and value_difference(expected, actual, tolerance, get_spread())


def no_spread() -> None:
    """Return that nothing but the tolerance is allowed.

    Example:
        >>> no_spread()
    """


def spread_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> SpreadFn:
    """Return `rounding_spread` of a function for when it is asked for; it is computed once.

    Example:
        >>> spread_of(lambda x: x, (3,))()
        [0.0]
    """
    return functools.cache(lambda: rounding_spread(function, arguments) or None)
