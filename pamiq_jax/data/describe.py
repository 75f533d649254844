"""What a buffer will take, said before it is made."""

from __future__ import annotations

from typing import Any

import jax

from pamiq_jax.data.buffer import Buffer, Record, record_of, record_spec
from pamiq_jax.trees import describe_leaf, leaf_names, nbytes, rounded_bytes, zeros_of
from pamiq_jax.types import PyTree


def describe_buffer(buffer: Buffer[Any, Any, Any], example: PyTree) -> str:
    """Return in words how much memory the buffer takes for records like the example, in all and leaf by leaf.

    It is all there at once, from `init` on: a buffer never grows. Nothing is made for this. It is what a system
    holds: beside a record's data its version and its mark `is_first`, see `Record`.

    Args:
        buffer: the buffer.
        example: one record, without a batch axis: its data, or a whole `Record`.

    Raises:
        RecordMismatchError: the example cannot be recorded.

    Example:
        >>> import numpy as np
        >>> from pamiq_jax.data import ring_buffer
        >>> print(describe_buffer(ring_buffer(capacity=1000), {"image": np.zeros((64, 64), np.uint8)}))
        1,000 records take 4,101,008 bytes (4.1 MB) on the device:
          4,096,000  .records.data['image']  uint8[1000,64,64]
              4,000  .records.version        int32[1000]
              1,000  .records.is_first       bool[1000]
                  4  .head                   int32[]
                  4  .size                   int32[]
    """
    record = example if isinstance(example, Record) else record_of(example)
    zeros = zeros_of(record_spec(record))
    state = jax.eval_shape(lambda: buffer.init(zeros))
    rows = [
        (f"{nbytes(leaf):,}", name, describe_leaf(leaf))
        for name, leaf in zip(leaf_names(state), jax.tree.leaves(state), strict=True)
    ]
    number_width, name_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    total = nbytes(state)
    place = "on the device" if buffer.placement == "device" else "in the host's memory"
    lines = [f"{buffer.capacity:,} records take {total:,} bytes ({rounded_bytes(total)}) {place}:"]
    lines += [f"  {number:>{number_width}}  {name:<{name_width}}  {form}" for number, name, form in rows]
    return "\n".join(lines)
