"""Refuse a step that returns another form of state than it was given, or metrics that are no scalars."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepStructureError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.priorities import take_priorities, with_indices
from pamiq_jax.types import Metrics, PyTree


def check_step(trainer: Trainer[Any, Any], state: Any, batch: PyTree, indices: Any = MappingProxyType({})) -> None:
    """Raise if a step, traced but not run, returns a state of another form, a metric `[...]`, or unfit priorities.

    Raises:
        StepStructureError: naming the leaf, what was expected and what came.
    """
    output = jax.eval_shape(trainer.step, state, batch)
    if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Mapping)):
        raise StepStructureError(
            f"step returned {type(output).__name__}, expected (state, metrics); return `state, {{}}`"
        )
    new_state, metrics = output
    check_same_form("step", state, new_state)
    check_scalars(with_indices(metrics, indices))


def check_scalars(metrics: Metrics) -> None:
    """Raise if a metric that is no priority is no scalar."""
    scalars, _ = take_priorities(metrics)
    for name, metric in zip(trees.leaf_names(scalars), jax.tree.leaves(scalars), strict=True):
        if np.shape(metric) != ():
            raise StepStructureError(
                f"step returned the metric {name} as {trees.describe_leaf(metric)}, expected a scalar; "
                "reduce it, for example with jnp.mean"
            )


def check_same_form(function: str, state: Any, new_state: Any) -> None:
    """Raise if a function has returned a state of another form than it was given."""
    if (problem := trees.difference(state, new_state)) is not None:
        raise StepStructureError(
            f"{function} returned a state of another form: {problem}; "
            "return every leaf with the shape and dtype it came with (`.astype(old.dtype)`)"
        )
