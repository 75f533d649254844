"""The chunk of a trainer whose step is not traced: a loop in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.drawing import NO_RUN, place_of
from pamiq_jax.trainer.priorities import reduce_metrics, split_drawn, with_indices
from pamiq_jax.trainer.step_checks import check_same_form, check_scalars
from pamiq_jax.types import Metrics, PyTree


def python_chunk[S](
    trainer: Trainer[S, Any], draw: Callable[[PyTree, Any, jax.Array], PyTree], steps: int
) -> Callable[..., tuple[S, Metrics]]:
    """Return a function that does `steps` times draw (`sample_at`) and step in a Python loop, untraced."""

    def chunk(
        state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, run: int = NO_RUN, /
    ) -> tuple[S, Metrics]:
        history: list[Metrics] = []
        for offset in range(steps):
            batch, indices = split_drawn(draw(buffer_state, place_of(position + offset, run), rng_key))
            new_state, metrics = trainer.step(state, batch)
            check_same_form("step", state, new_state)
            check_scalars(metrics := with_indices(metrics, indices))
            state = new_state
            history.append(jax.device_get(metrics))
        # In numpy: a jax operation here would be compiled while the agent acts.
        stacked = jax.tree.map(lambda *values: np.stack(values), *history)
        return state, reduce_metrics(stacked, lambda values: np.mean(values, dtype=np.float32))

    return chunk
