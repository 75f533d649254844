"""How a trainer's batches are drawn: by a function of the buffer, the place in the run, and a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.types import PyTree

type SampleFn = Callable[[PyTree, Any, jax.Array], PyTree]
"""`(buffer_state, position, rng_key) -> batch [B, ...]`, or `Drawn`; position `int32[]` counts the run's batches."""

NO_RUN = -1
"""In the place of a run's number: batches are drawn with the key as it is."""


def place_of(position: int = 0, run: int = NO_RUN) -> np.ndarray[Any, Any]:
    """Return where a batch is drawn, int32 `[2]`: its number, counted from the beginning of the run, and the run's.

    Example:
        >>> place_of(3, run=1).tolist(), place_of().tolist()
        ([3, 1], [0, -1])
    """
    return np.array([position, run], np.int32)


def drawing_key(rng_key: jax.Array, run: Any) -> jax.Array:
    """Return the key that a run's batches are drawn with, from the trainer's; traced: no program of its own.

    Example:
        >>> key = jax.random.key(0)
        >>> bool(drawing_key(key, jnp.int32(NO_RUN)) == key), bool(drawing_key(key, jnp.int32(3)) == key)
        (True, False)
    """
    return jnp.where(run == NO_RUN, rng_key, jax.random.fold_in(rng_key, run))


def sample_at(sample: SampleFn) -> Callable[[PyTree, Any, jax.Array], PyTree]:
    """Return `(buffer_state, place, rng_key) -> batch`; the place is a `place_of`."""
    return lambda buffer_state, place, rng_key: sample(buffer_state, place[0], drawing_key(rng_key, place[1]))
