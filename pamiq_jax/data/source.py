"""Data that is there already, as a buffer that is full from the start."""

from __future__ import annotations

from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.arguments import checked_integer
from pamiq_jax.data.buffer import Buffer, Placement, Record, record_spec
from pamiq_jax.data.ring import RingState, Sampling, ring_buffer
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import describe_leaf, difference, leaf_names, spec_of
from pamiq_jax.types import PyTree


def array_source(
    arrays: PyTree, *, sampling: Sampling = "epochs", capacity: int | None = None, placement: Placement = "device"
) -> Buffer[RingState[Any], Any, Any]:
    """Return a buffer that holds these records from the start: a data set, or what was recorded, to learn from offline.

    Trainers, conditions and drivers take it like any other buffer; a system needs no interaction for it. Batches of a
    trainer are numbered over all of its runs, so that its second run goes on in the epoch in which the first one
    ended, and a resumed one with the batch that would have come next: the place is the trainer's number of steps,
    nothing else is stored for it. With "uniform" each run has a key of its own, as in a `ring_buffer`.

    With a larger `capacity` it is a ring that an interaction can add to: begin with old data, go on live. The place
    then refers to what is there at that moment.

    The arrays are copied when a system is compiled. A saved state contains them; blocks that have not changed are
    stored once for all states of a directory.

    Args:
        arrays: leaves `[n, ...]`, or a `Record` of them as `Recording.records` returns.
        sampling: "epochs", each record once in each shuffled pass; "in_order", again and again; or "uniform".
        capacity: records that it can hold, from `n`, which is the default.
        placement: as in `ring_buffer`.

    Raises:
        InvalidValueError: leaves of different lengths, no records, numbers that do not fit into the dtype that JAX
            stores them in, a capacity below `n`, an unknown `sampling`.
        RecordMismatchError: a leaf that cannot be stored; when a system is built, another form of what feeds it.

    Example:
        >>> source = array_source({"x": np.arange(6.0), "label": np.arange(6) % 2}, sampling="in_order")
        >>> state = source.init(source.example)
        >>> [source.sample(state, 4, position, jax.random.key(0))["x"].tolist() for position in (0, 1)]
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 0.0, 1.0]]
    """
    if sampling not in (names := get_args(Sampling.__value__)):
        raise InvalidValueError("array_source(sampling)", sampling, f"one of {', '.join(map(repr, names))}")
    records, rows = _records(arrays)
    room = rows if capacity is None else checked_integer("array_source(capacity)", capacity, least=rows)
    example = record_spec(_row_form(records.data))
    ring = ring_buffer(room, sampling=sampling, placement=placement, example=example)

    def init(wanted: Any) -> RingState[Any]:
        filled = records if isinstance(wanted, Record) else records.data
        if problem := difference(record_spec(wanted), _row_form(filled)):
            raise RecordMismatchError(f"an array_source holds other records than it is to be fed: {problem}")
        empty = ring.init(wanted)
        full = jax.tree.map(lambda zeros, leaf: zeros.at[:rows].set(jnp.asarray(leaf)), empty.records, filled)
        return RingState(full, head=jnp.int32(rows % room), size=jnp.int32(rows))

    # Uniform draws have no place in an epoch: a key of its own is all that a run needs.
    return ring._replace(kind="array_source", init=init, filled=rows, goes_on=sampling != "uniform")


def _records(arrays: PyTree) -> tuple[Record[Any], int]:
    """Return the arrays as records, and how many there are."""
    leaves = jax.tree.leaves(arrays)
    lengths = {name: np.shape(leaf)[:1] for name, leaf in zip(leaf_names(arrays), leaves, strict=True)}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        forms = {name: describe_leaf(leaf) for name, leaf in zip(lengths, leaves, strict=True)}
        remedy = "a list is a tree of numbers: make an array of it by np.asarray" if () in lengths.values() else ""
        raise InvalidValueError("array_source(arrays)", forms, "leaves [n, ...], all of one length", remedy)
    for name, leaf in zip(lengths, leaves, strict=True):
        _check_numbers(f"array_source(arrays) {name}", leaf)
    (rows,) = next(iter(lengths.values()))
    if not rows:
        raise InvalidValueError("array_source(arrays)", "0 records", "at least one")
    if isinstance(arrays, Record):
        return cast(Record[Any], arrays), rows
    return Record(arrays, np.zeros(rows, np.int32), np.arange(rows) == 0), rows


def _check_numbers(name: str, leaf: Any) -> None:
    """Raise unless an array's numbers are numbers, and stay what they are in the dtype that JAX stores them in."""
    if not isinstance(leaf, np.ndarray):
        return
    if leaf.dtype.kind in "OSUMm":
        raise RecordMismatchError(f"{name} is an array of {leaf.dtype}, expected one of numbers; encode it as integers")
    stored = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if stored == leaf.dtype or not leaf.size or np.iscomplexobj(leaf):
        return
    low, high = leaf.min(), leaf.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # those that it has on purpose
        finite = leaf[np.isfinite(leaf)]
        low, high = finite.min(initial=0), finite.max(initial=0)
    limits = jnp.finfo(stored) if jnp.issubdtype(stored, jnp.floating) else jnp.iinfo(stored)
    if low < limits.min or high > limits.max:
        remedy = "scale them, or set jax.config.update('jax_enable_x64', True) first"
        expected = f"numbers that {stored} holds, which is what JAX stores {leaf.dtype} in"
        raise InvalidValueError(name, f"from {low} to {high}", expected, remedy)


def _row_form(arrays: PyTree) -> PyTree:
    return jax.tree.map(lambda form: jax.ShapeDtypeStruct(form.shape[1:], form.dtype), spec_of(arrays))
