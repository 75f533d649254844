"""A fixed number of rows on their way from the collector to a buffer."""

from __future__ import annotations

import flax.struct
import jax
import numpy as np

from pamiq_jax.data.record import Record


class Chunk[X](flax.struct.PyTreeNode):
    """Records in a block of fixed length, so that adding them to a buffer compiles once.

    Attributes:
        records: leaves `[chunk, ...]`, oldest first; from `count` on they are zero.
        count: how many rows are valid; an int32 `[]` array once on the device.

    Example:
        >>> Chunk(Record(np.zeros(4), np.zeros(4, np.int32)), count=3).count
        3
    """

    records: Record[X]
    count: jax.typing.ArrayLike


def to_device[X](
    chunk: Chunk[X],
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jax exports the class as a variable
) -> Chunk[X]:
    """Return the chunk with JAX arrays as leaves, ready for `buffer.add`.

    Called from: training thread.

    Args:
        chunk: what `Collector.drain` returned.
        device: where to; None is the default device.

    Example:
        >>> from pamiq_jax.data import Collector
        >>> collector = Collector({"x": 0.0}, capacity=8, chunk=2)
        >>> collector.collect({"x": 1.5}, version=0)
        True
        >>> to_device(collector.drain()).records.data
        {'x': Array([1.5, 0. ], dtype=float32)}
    """
    # device_put may alias a numpy array's memory. A drained block is read-only and its collector never
    # writes to it again, so that is safe here and saves a copy; with recycled blocks it would be a race.
    return jax.device_put(Chunk(chunk.records, np.asarray(chunk.count, np.int32)), device)
