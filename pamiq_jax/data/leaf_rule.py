"""What one leaf of a record must look like."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.errors import RecordMismatchError
from pamiq_jax.trees import describe_leaf

_WIDE_DTYPES = tuple(np.dtype(name) for name in ("int64", "uint64", "float64", "complex128"))
_SCALAR_TYPES = ((np.bool_, bool), (np.integer, int), (np.floating, float), (np.complexfloating, complex))


@dataclasses.dataclass(frozen=True, slots=True)
class LeafRule:
    """The shape and dtypes that are accepted for a leaf; the rest is refused by name.

    Attributes:
        name: the leaf's path, for the error.
        shape: the only accepted shape.
        dtype: what it is stored as.
        dtypes: what it may come as: `dtype`, and those which JAX would turn into it.
        scalar_type: the Python type accepted for a leaf of shape `()`.

    Example:
        >>> rule = LeafRule.of("['reward']", jax.ShapeDtypeStruct((), np.float32))
        >>> float(rule.convert(0.5))
        0.5
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dtypes: frozenset[np.dtype[Any]]
    scalar_type: type

    @classmethod
    def of(cls, name: str, spec: jax.ShapeDtypeStruct) -> Self:
        """Return the rule for a leaf of this path and spec."""
        wide = (dtype for dtype in _WIDE_DTYPES if jax.dtypes.canonicalize_dtype(dtype) == spec.dtype)
        scalar_type = next(scalar for kind, scalar in _SCALAR_TYPES if jnp.issubdtype(spec.dtype, kind))
        return cls(name, spec.shape, np.dtype(spec.dtype), frozenset((spec.dtype, *wide)), scalar_type)

    def accepts(self, leaf: Any) -> bool:
        """Return whether the leaf is a numpy array that can be written into a row as it is."""
        return type(leaf) is np.ndarray and leaf.shape == self.shape and leaf.dtype in self.dtypes

    def convert(self, leaf: Any) -> np.ndarray[Any, Any]:
        """Return the leaf as a numpy array. A JAX array is waited for and read to the host.

        Raises:
            RecordMismatchError: it has another shape or dtype, or does not fit into the dtype.
        """
        if isinstance(leaf, np.ndarray | np.generic | jax.Array):
            if leaf.shape == self.shape and leaf.dtype in self.dtypes:
                return np.asarray(leaf)
        elif self.shape == () and type(leaf) is self.scalar_type:
            try:
                return np.asarray(leaf, self.dtype)
            except OverflowError as error:
                raise self._mismatch(_describe(leaf)) from error
        raise self._mismatch(_describe(leaf))

    def _mismatch(self, actual: str) -> RecordMismatchError:
        expected = describe_leaf(jax.ShapeDtypeStruct(self.shape, self.dtype))
        return RecordMismatchError(f"leaf {self.name}: expected {expected}, got {actual}; nothing was inserted")


def _describe(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray | np.generic | jax.Array):
        return describe_leaf(leaf)
    return f"the Python {type(leaf).__name__} {leaf!r:.60}"
