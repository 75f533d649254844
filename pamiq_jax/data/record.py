"""What travels from the inference thread to the buffers: data, and the version that made it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.errors import RecordMismatchError
from pamiq_jax.trees import leaf_names, spec_of
from pamiq_jax.types import PyTree


class Record[X](NamedTuple):
    """One tick's data and the version of the snapshot that acted in it.

    Attributes:
        data: any pytree of arrays and scalars; in a batch every leaf has a leading axis `[B, ...]`.
        version: int32 `[]`, in a batch `[B]`.

    Example:
        >>> Record({"reward": 1.0}, version=3).version
        3
    """

    data: X
    version: jax.typing.ArrayLike


def record_spec(example: PyTree) -> PyTree:
    """Return the tree of `jax.ShapeDtypeStruct` that says how one record is stored.

    Args:
        example: one record, without a batch axis; Python scalars, numpy and JAX arrays, or specs.

    Raises:
        RecordMismatchError: there is no leaf at all, or a leaf cannot be stored as a numeric array.

    Example:
        >>> record_spec({"done": False})
        {'done': ShapeDtypeStruct(shape=(), dtype=bool)}
    """
    leaves, treedef = jax.tree.flatten(example)
    if not leaves:
        raise RecordMismatchError(f"the example {example!r} has no leaf; a record needs at least one array or number")
    return treedef.unflatten(_leaf_spec(name, leaf) for name, leaf in zip(leaf_names(example), leaves, strict=True))


def _leaf_spec(name: str, leaf: object) -> jax.ShapeDtypeStruct:
    spec = spec_of(leaf)
    if jnp.issubdtype(spec.dtype, jax.dtypes.prng_key):
        raise RecordMismatchError(
            f"leaf {name} is a typed PRNG key ({spec.dtype}), which cannot be recorded; record jax.random.key_data(key)"
        )
    if not (jnp.issubdtype(spec.dtype, np.number) or spec.dtype == np.bool_):
        raise RecordMismatchError(f"leaf {name} is a {type(leaf).__name__}, expected a number or a numeric array")
    return spec
