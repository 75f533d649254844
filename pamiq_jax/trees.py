"""Compare pytrees and name the leaf that differs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.types import PyTree


def leaf_names(tree: PyTree) -> list[str]:
    """Return the path of each leaf, in flattening order.

    Example:
        >>> leaf_names({"encoder": {"w": 1, "b": 2}})
        ["['encoder']['b']", "['encoder']['w']"]
    """
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path) or "the tree itself" for path, _ in paths]


def spec_of(tree: PyTree) -> PyTree:
    """Return the tree with each leaf replaced by its `jax.ShapeDtypeStruct`.

    Dtypes are those that JAX would use: a Python float is float32, a numpy float64 is
    float32 too unless `jax_enable_x64` is set. Typed keys keep their key dtype.

    Example:
        >>> spec_of({"x": np.zeros((2, 3))})
        {'x': ShapeDtypeStruct(shape=(2, 3), dtype=float32)}
    """
    return jax.tree.map(_leaf_spec, tree)


def zeros_of(specs: PyTree, *axes: int) -> PyTree:
    """Return numpy zeros of the form of specs or arrays, with further axes in front.

    Example:
        >>> zeros_of({"x": jax.ShapeDtypeStruct((2,), np.int32)}, 3)["x"].shape
        (3, 2)
    """
    return jax.tree.map(lambda spec: np.zeros((*axes, *spec.shape), spec.dtype), specs)


def _leaf_form(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype; a spec of each leaf would take most of the time of a publication."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf.shape, leaf.dtype
    array = np.asarray(leaf)
    return array.shape, jax.dtypes.canonicalize_dtype(array.dtype)


def _leaf_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(*_leaf_form(leaf))


def difference(expected: PyTree, actual: PyTree) -> str | None:
    """Return what differs between two trees of specs or arrays, or None if nothing does.

    Compares structure, then shape and dtype leaf by leaf, and names the first leaf at fault.

    Example:
        >>> difference({"x": jnp.zeros(2)}, {"x": jnp.zeros(3)})
        "leaf ['x']: expected float32[2], got float32[3]"
    """
    if jax.tree.structure(expected) != jax.tree.structure(actual):
        return _structure_difference(expected, actual)
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True)
    for number, (want, got) in enumerate(pairs):
        if want is not got and _leaf_form(want) != _leaf_form(got):
            name = leaf_names(expected)[number]
            return f"leaf {name}: expected {describe_leaf(want)}, got {describe_leaf(got)}"
    return None


def _structure_difference(expected: PyTree, actual: PyTree) -> str:
    want, got = set(leaf_names(expected)), set(leaf_names(actual))
    parts: list[str] = []
    if missing := sorted(want - got):
        parts.append(f"missing {', '.join(missing)}")
    if unexpected := sorted(got - want):
        parts.append(f"unexpected {', '.join(unexpected)}")
    if not parts:
        parts.append(f"expected {jax.tree.structure(expected)}, got {jax.tree.structure(actual)}")
    return "; ".join(parts)


def describe_leaf(leaf: Any) -> str:
    """Return dtype and shape in the short form that JAX uses.

    Example:
        >>> describe_leaf(jnp.zeros((2, 3), jnp.int32))
        'int32[2,3]'
    """
    spec = _leaf_spec(leaf)
    return f"{spec.dtype}[{','.join(str(size) for size in spec.shape)}]"


def nbytes(tree: PyTree) -> int:
    """Return the bytes that the leaves of a tree of arrays or specs hold.

    Example:
        >>> nbytes({"x": jnp.zeros((2, 3), jnp.float32)})
        24
    """

    def leaf_bytes(leaf: Any) -> int:
        spec = _leaf_spec(leaf)
        if jnp.issubdtype(spec.dtype, jax.dtypes.prng_key):
            spec = jax.eval_shape(jax.random.key_data, spec)
        return int(np.prod(spec.shape, dtype=np.int64)) * spec.dtype.itemsize

    return sum(leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def rounded_bytes(number: int) -> str:
    """Return bytes in the largest decimal unit of which there is one at least.

    Example:
        >>> rounded_bytes(4_096_008)
        '4.1 MB'
    """
    units = ("kB", "MB", "GB", "TB")
    power = min((len(str(number)) - 1) // 3, len(units))
    return f"{number} B" if power == 0 else f"{number / 1000**power:.1f} {units[power - 1]}"
