"""Priorities that a step gives the records of its batch, and how a chunk hands them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepStructureError
from pamiq_jax.types import Metrics, PyTree

PRIORITIES = "priorities"
"""The one metric of a step that is no scalar: float32 `[B]`, or a dict of them by source."""


class Drawn(NamedTuple):
    """A batch, and which records it is made of: what a `SampleFn` returns where priorities are taken.

    Attributes:
        batch: leaves `[B, ...]`, all that the step is given.
        indices: int32 `[B]` by source, "" being the one of an undivided batch; None where a buffer takes none.
    """

    batch: PyTree
    indices: Mapping[str, jax.Array | None]


class RecordPriorities(NamedTuple):
    """New priorities of records, oldest step first: `buffer.update(state, indices, priorities)` stores them.

    Attributes:
        indices: int32 `[B]`, of a chunk `[steps, B]`.
        priorities: float32 of the same shape.
    """

    indices: jax.Array
    priorities: jax.Array


def split_drawn(drawn: PyTree) -> tuple[PyTree, Mapping[str, jax.Array | None]]:
    """Return the batch, and the indices of its records if it came with them.

    Example:
        >>> split_drawn(Drawn("batch", {"": None})), split_drawn("batch")
        (('batch', {'': None}), ('batch', {}))
    """
    return (drawn.batch, drawn.indices) if isinstance(drawn, Drawn) else (drawn, {})


def with_indices(metrics: Metrics, indices: Mapping[str, jax.Array | None]) -> Metrics:
    """Return a step's metrics with its priorities, if it gives any, as `{source: RecordPriorities}`.

    Raises:
        StepStructureError: priorities that no buffer takes, or of another form than the batch.

    Example:
        >>> metrics = {"loss": jnp.float32(0), "priorities": jnp.ones(2)}
        >>> with_indices(metrics, {"": jnp.arange(2)})["priorities"][""].indices.tolist()
        [0, 1]
    """
    if PRIORITIES not in metrics:
        return metrics
    given: Any = metrics[PRIORITIES]
    check_priorities(given, indices)
    by_source = {source: RecordPriorities(cast(Any, indices[source]), new) for source, new in _by_source(given).items()}
    return {**metrics, PRIORITIES: cast(Any, by_source)}


def reduce_metrics(metrics: Metrics, reduce: Callable[[Any], Any]) -> Metrics:
    """Return a chunk's metrics with each scalar's history `[steps]` reduced, and the priorities as they are.

    Example:
        >>> given = {"": RecordPriorities(jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1)))}
        >>> metrics = reduce_metrics({"loss": jnp.array([1.0, 3.0]), "priorities": given}, jnp.mean)
        >>> print(metrics["loss"], metrics["priorities"][""].priorities.shape)
        2.0 (2, 1)
    """
    return jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, RecordPriorities) else reduce(leaf),
        metrics,
        is_leaf=lambda node: isinstance(node, RecordPriorities),
    )


def take_priorities(metrics: Metrics) -> tuple[Metrics, Mapping[str, RecordPriorities]]:
    """Return a chunk's metrics without the priorities, and these by source.

    Example:
        >>> take_priorities({"loss": 1.0, "priorities": {"": "new"}}), take_priorities({"loss": 1.0})
        (({'loss': 1.0}, {'': 'new'}), ({'loss': 1.0}, {}))
    """
    if PRIORITIES not in metrics:
        return metrics, {}
    given = cast(Mapping[str, RecordPriorities], metrics[PRIORITIES])
    return {name: metric for name, metric in metrics.items() if name != PRIORITIES}, given


def check_priorities(given: Any, indices: Mapping[str, Any]) -> None:
    """Raise unless a step's priorities are float32, one for each record of what it was given of a source.

    Args:
        given: what the step returned: an array, or a dict by source.
        indices: arrays or specs by source, None where a buffer takes no priorities.

    Raises:
        StepStructureError: saying what came, and what to return.

    Example:
        >>> check_priorities(jnp.ones(4), {"": jnp.arange(4)})
        >>> check_priorities(jnp.ones(4), {})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.StepStructureError: step returned priorities, but no buffer of its batch takes any; sample ...
    """
    takers = [source for source, rows in indices.items() if rows is not None]
    if not takers:
        raise StepStructureError(
            "step returned priorities, but no buffer of its batch takes any; "
            "sample from a prioritized_buffer, or give the metric another name"
        )
    if isinstance(given, Mapping) == ("" in indices):
        form = "an array, since the batch is undivided" if "" in indices else f"a dict with names out of {takers}"
        raise StepStructureError(f"step returned priorities as {type(given).__name__}, expected {form}")
    for source, new in _by_source(given).items():
        if source not in takers:
            raise StepStructureError(
                f"step returned priorities for {source!r}, whose buffer takes none; those that do: {takers}"
            )
        expected = jax.ShapeDtypeStruct(np.shape(indices[source]), jnp.float32)
        if np.shape(new) != expected.shape or jnp.result_type(new) != expected.dtype:
            of = f" for {source!r}" if source else ""
            raise StepStructureError(
                f"step returned priorities{of} as {trees.describe_leaf(new)}, expected "
                f"{trees.describe_leaf(expected)}, one for each record of the batch; reduce other axes, "
                "for example with jnp.max, and cast with .astype(jnp.float32)"
            )


def _by_source(given: Any) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], given) if isinstance(given, Mapping) else {"": given}
