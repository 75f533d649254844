"""What a buffer will take, said before it is made."""

from __future__ import annotations

from typing import Any

import jax

from pamiq_jax.data.buffer import Buffer
from pamiq_jax.trees import describe_leaf, leaf_names, nbytes
from pamiq_jax.types import PyTree


def describe_buffer(buffer: Buffer[Any, Any, Any], example: PyTree) -> str:
    """Return in words how much memory the buffer takes for records like the example, in all and leaf by leaf.

    It is all there at once, from `init` on: a buffer never grows. Nothing is made for this.

    Args:
        buffer: the buffer.
        example: one record, without a batch axis.

    Raises:
        RecordMismatchError: the example cannot be recorded.

    Example:
        >>> import numpy as np
        >>> from pamiq_jax.data import ring_buffer
        >>> print(describe_buffer(ring_buffer(capacity=1000), {"image": np.zeros((64, 64), np.uint8)}))
        1,000 records take 4,096,008 bytes (4.1 MB) on the device:
          4,096,000  .records['image']  uint8[1000,64,64]
                  4  .head              int32[]
                  4  .size              int32[]
    """
    state = jax.eval_shape(lambda: buffer.init(example))
    rows = [
        (f"{nbytes(leaf):,}", name, describe_leaf(leaf))
        for name, leaf in zip(leaf_names(state), jax.tree.leaves(state), strict=True)
    ]
    number_width, name_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    total = nbytes(state)
    place = "on the device" if buffer.placement == "device" else "in the host's memory"
    lines = [f"{buffer.capacity:,} records take {total:,} bytes ({_rounded(total)}) {place}:"]
    lines += [f"  {number:>{number_width}}  {name:<{name_width}}  {form}" for number, name, form in rows]
    return "\n".join(lines)


def _rounded(number: int) -> str:
    """Return bytes in the largest decimal unit of which there is one at least."""
    units = ("kB", "MB", "GB", "TB")
    power = min((len(str(number)) - 1) // 3, len(units))
    return f"{number} B" if power == 0 else f"{number / 1000**power:.1f} {units[power - 1]}"
