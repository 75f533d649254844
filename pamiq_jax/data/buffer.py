"""What a buffer is: pure functions and static facts, whatever it stores."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import jax

from pamiq_jax.trees import nbytes
from pamiq_jax.types import PyTree

type Placement = Literal["device", "host"]
"""Where the caller keeps a buffer's state: beside the trainer, or on a CPU device with each batch transferred."""


class InitFn[S, X](Protocol):
    """Return an empty buffer for records like the example.

    Args:
        example: one record, without a batch axis; only its structure, shapes and dtypes matter.

    Raises:
        RecordMismatchError: a leaf cannot be stored as a numeric array.
    """

    def __call__(self, example: X, /) -> S:
        """Return the empty state."""
        ...


class AddFn[S, X](Protocol):
    """Return the state with a chunk's first `count` records added.

    Args:
        state: donate it when jitting, so that the storage is updated in place.
        records: leaves `[chunk, ...]`; the length is fixed, so adding compiles once.
        count: int32 `[]`; rows from `count` on are padding.

    Raises:
        RecordMismatchError: another structure, shape or dtype than the example, found when traced.
        InvalidValueError: the chunk is longer than the capacity, found when traced.
    """

    def __call__(self, state: S, records: X, count: jax.typing.ArrayLike, /) -> S:
        """Return the new state."""
        ...


class SampleFn[S, R](Protocol):
    """Return batch number `position` of a run, leaves `[batch_size, ...]`.

    Nothing is remembered between batches: the same arguments give the same batch, so that trainers
    can share a buffer and a resumed run repeats its batches.

    Args:
        state: only read. With fewer than `required(batch_size)` records the batch is defined but not
            meaningful; an empty ring gives zeros.
        batch_size: static.
        position: int32 `[]`, the number of the batch within the run.
        rng_key: the run's key `[]`, the same for all of its batches.
    """

    def __call__(self, state: S, batch_size: int, position: jax.typing.ArrayLike, rng_key: jax.Array, /) -> R:
        """Return the batch."""
        ...


class SizeFn[S](Protocol):
    """Return how many records are stored, int32 `[]`."""

    def __call__(self, state: S, /) -> jax.Array:
        """Return the number of records."""
        ...


class RequiredFn(Protocol):
    """Return how many records must be stored before a batch of `batch_size` makes sense."""

    def __call__(self, batch_size: int, /) -> int:
        """Return the least size."""
        ...


class Buffer[S, X, R](NamedTuple):
    """A buffer of records `X` with state `S` that gives batches `R`.

    Attributes:
        init: `(example) -> state`.
        add: `(state, records [chunk, ...], count) -> state`.
        sample: `(state, batch_size, position, rng_key) -> batch`.
        size: `(state) -> int32 []`.
        required: `(batch_size) -> int`.
        capacity: the most records it holds.
        stable_in_run: sampling makes sense only if nothing is added within a run.
        placement: where the caller keeps the state; the functions are the same.
        example: one record, or None when the system takes it from agent and environment.

    Example:
        >>> from pamiq_jax.data import ring_buffer
        >>> buffer = ring_buffer(capacity=4)
        >>> state = buffer.init({"x": 0.0})
        >>> int(buffer.size(state)), buffer.required(32)
        (0, 1)
    """

    init: InitFn[S, X]
    add: AddFn[S, X]
    sample: SampleFn[S, R]
    size: SizeFn[S]
    required: RequiredFn
    capacity: int
    stable_in_run: bool
    placement: Placement
    example: X | None


def buffer_bytes[S, X, R](buffer: Buffer[S, X, R], example: PyTree) -> int:
    """Return the bytes that the buffer's state takes for records like the example, without making it.

    Example:
        >>> import numpy as np
        >>> from pamiq_jax.data import ring_buffer
        >>> buffer_bytes(ring_buffer(capacity=1000), {"image": np.zeros((64, 64), np.uint8)})
        4096008
    """
    return nbytes(jax.eval_shape(lambda: buffer.init(example)))
