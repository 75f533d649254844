"""What a buffer stores and what it is: records, a chunk at a time, and pure functions over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, override

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pamiq_jax.errors import RecordMismatchError
from pamiq_jax.facts import facts_html
from pamiq_jax.trees import leaf_names, nbytes, spec_of
from pamiq_jax.types import PyTree

type Placement = Literal["device", "host"]
"""Where the caller keeps a buffer's state: beside the trainer, or on a CPU device with its batches transferred, which
a system does a chunk ahead: within a run they then come from the buffer as it was one chunk earlier."""


class Record[X](NamedTuple):
    """One tick's data, the version of the snapshot that acted in it, and whether it goes on from the tick before.

    Attributes:
        data: any pytree of arrays and scalars; in a batch every leaf has a leading axis `[B, ...]`.
        version: int32 `[]`, in a batch `[B]`.
        is_first: bool `[]`, in a batch `[B]`, whether it does not follow the record before it: the first of all,
            the first after a pause or a restore, or after a loss.

    Example:
        >>> Record({"reward": 1.0}, version=3)
        Record(data={'reward': 1.0}, version=3, is_first=False)
    """

    data: X
    version: ArrayLike
    is_first: ArrayLike = False


def record_of[X](data: X) -> Record[X]:
    """Return a record of this data in the form that a system stores: version and mark as arrays `[]`."""
    return Record(data, np.int32(0), np.bool_(False))


class Chunk[X](flax.struct.PyTreeNode):
    """Records in a block of fixed length, so that adding them to a buffer compiles once.

    Attributes:
        records: leaves `[chunk, ...]`, oldest first; from `count` on they are zero.
        count: how many rows are valid; an int32 `[]` array once on the device.

    Example:
        >>> Chunk(Record(np.zeros(4), np.zeros(4, np.int32), np.zeros(4, bool)), count=3).count
        3
    """

    records: Record[X]
    count: Any  # int on the host, an array once on the device


def record_spec(example: PyTree) -> PyTree:
    """Return the tree of `jax.ShapeDtypeStruct` that says how one record is stored.

    The example is one record without a batch axis: Python scalars, numpy and JAX arrays, or specs.

    Raises:
        RecordMismatchError: there is no leaf at all, or a leaf cannot be stored as a numeric array.

    Example:
        >>> record_spec({"done": False})
        {'done': ShapeDtypeStruct(shape=(), dtype=bool)}
    """
    leaves = jax.tree.leaves(example)
    if not leaves:
        raise RecordMismatchError(f"the example {example!r} has no leaf; a record needs at least one array or number")
    for name, leaf in zip(leaf_names(example), leaves, strict=True):
        dtype = spec_of(leaf).dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            remedy = "which cannot be recorded; record jax.random.key_data(key)"
            raise RecordMismatchError(f"leaf {name} is a typed PRNG key ({dtype}), {remedy}")
        if not (jnp.issubdtype(dtype, np.number) or dtype == np.bool_):
            kind = type(leaf).__name__ + (f" of {leaf.dtype}" if hasattr(leaf, "dtype") else "")
            raise RecordMismatchError(f"leaf {name} is a {kind}, expected a number or a numeric array")
    return spec_of(example)


def _one(batch_size: int, /) -> int:
    return 1


class Buffer[S, X, R](NamedTuple):
    """A buffer of records `X` with state `S` that gives batches `R`. Four functions and a capacity are enough.

    Sampling remembers nothing: the same arguments give the same batch, so that trainers can share a
    buffer and a resumed run repeats its batches.

    Attributes:
        init: `(example) -> state`, empty; raises `RecordMismatchError` for a leaf that is not numeric.
        add: `(state, records [chunk, ...], count) -> state`; only the first `count` rows, int32 `[]`, are valid.
            A fixed length compiles once, a donated state is updated in place. Raises when traced:
            `RecordMismatchError` for records unlike the example, `InvalidValueError` for more than `capacity`.
        sample: `(state, batch_size, position, rng_key) -> batch [batch_size, ...]`, batch number `position`,
            int32 `[]`, of the run with this key `[]`; `batch_size` is static.
        size: `(state) -> int32 []`, how many records are stored.
        capacity: the most records it holds.
        required: `(batch_size) -> int`; with fewer records a batch is defined but not meaningful. By default 1.
        stable_in_run: sampling makes sense only if nothing is added within a run.
        placement: where the caller keeps the state; the functions are the same.
        example: one record, or None when the system takes it from agent and environment.
        can_sample: `(state) -> bool []`, for a buffer that may hold `required` records and still nothing to
            sample, such as whole windows; a batch is meaningful only while this holds too. None: it always does.
        update: `(state, indices, priorities) -> state` takes back what a step found out about the records of
            a batch, int32 and float32 like its field `indices`, or of several batches, oldest first, `[batches, ...]`;
            None for a buffer that does not care.
        fresh: the records that must be new since a trainer's last run, for a buffer that is learned from once.
        is_ordered: its records must come from one stream, in order, since what lies side by side in it is taken
            for consecutive: windows, rollouts.
        filled: how many records `init` puts into it, for a source of data that is there already.
        goes_on: batches are numbered over all of a trainer's runs, under one key, so that the second run goes on in
            the epoch where the first one ended; else each run begins anew.
        keeps_all: `size` is always the number of records added, up to the capacity, so that nobody need ask for it.
        kind: what made it, for its text.

    Example:
        One that holds the newest record alone, whatever its form; in a system that is a `Record`:

        >>> newest = Buffer(
        ...     init=lambda example: (jax.tree.map(jnp.asarray, example), jnp.int32(0)),
        ...     add=lambda state, records, count: (
        ...         jax.tree.map(lambda old, rows: jnp.where(count > 0, rows[count - 1], old), state[0], records),
        ...         jnp.minimum(state[1] + count, 1),
        ...     ),
        ...     sample=lambda state, batch_size, position, rng_key: jax.tree.map(
        ...         lambda leaf: jnp.broadcast_to(leaf, (batch_size, *leaf.shape)), state[0]
        ...     ),
        ...     size=lambda state: state[1],
        ...     capacity=1,
        ... )
        >>> state = newest.add(newest.init(0.0), jnp.array([3.0, 4.0, 0.0]), 2)
        >>> print(newest.sample(state, 3, 0, jax.random.key(0)), newest.size(state))
        [4. 4. 4.] 1
    """

    init: Callable[[X], S]
    add: Callable[[S, X, ArrayLike], S]
    sample: Callable[[S, int, ArrayLike, jax.Array], R]
    size: Callable[[S], jax.Array]
    capacity: int
    required: Callable[[int], int] = _one
    stable_in_run: bool = False
    placement: Placement = "device"
    example: X | None = None
    can_sample: Callable[[S], jax.Array] | None = None
    update: Callable[[S, jax.Array, jax.Array], S] | None = None
    is_ordered: bool = False
    fresh: int = 0
    filled: int = 0
    goes_on: bool = False
    keeps_all: bool = False
    kind: str = "Buffer"
    _repr_html_ = facts_html

    @override
    def __repr__(self) -> str:
        place = "" if self.placement == "device" else f", placement={self.placement!r}"
        return f"{self.kind}(capacity={self.capacity}{place})"


def buffer_bytes[S, X, R](buffer: Buffer[S, X, R], example: PyTree) -> int:
    """Return the bytes that the buffer's state takes for records like the example, without making it.

    The example is taken as it is: for what a system holds, give a whole `Record`.

    Example:
        >>> from pamiq_jax.data import ring_buffer
        >>> buffer_bytes(ring_buffer(capacity=1000), {"image": np.zeros((64, 64), np.uint8)})
        4096008
    """
    return nbytes(jax.eval_shape(lambda: buffer.init(example)))
