"""Values to save, and how two of them are compared."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and bool(jnp.issubdtype(value.dtype, jax.dtypes.prng_key))


def assert_same(got: Any, expected: Any, name: str = "value") -> None:
    """Compare types, structure, dtypes, shapes and bits; an array of JAX comes back as numpy's."""
    if is_key(expected):
        assert is_key(got), name
        assert got.dtype == expected.dtype, name
        got, expected = jax.random.key_data(got), jax.random.key_data(expected)
    if isinstance(expected, jax.Array | np.ndarray | np.generic):
        array = np.asarray(expected)
        got = np.asarray(got)
        assert (got.shape, got.dtype) == (array.shape, array.dtype.newbyteorder("=")), name
        assert got.tobytes() == array.astype(got.dtype).tobytes(), name
        return
    assert type(got) is type(expected), name
    if isinstance(expected, dict):
        assert list(got) == list(expected), name
        for key in expected:
            assert_same(got[key], expected[key], f"{name}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), name
        for index, part in enumerate(expected):
            assert_same(got[index], part, f"{name}[{index}]")
    elif isinstance(expected, float):
        assert (math.isnan(got) and math.isnan(expected)) or got.hex() == expected.hex(), name
    else:
        assert got == expected, name


def small_value(seed: int = 0) -> dict[str, Any]:
    """Return a value of 5 blocks of 64 bytes or less, of which another seed changes all but 2."""
    return {
        "frozen": np.arange(20, dtype=np.float32),
        "trained": np.arange(20, dtype=np.float32) + 1000 * (seed + 1),
        "small": [np.full(1, seed, np.int8), {"loss": float(seed)}],
    }
