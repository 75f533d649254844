"""What a buffer with priorities hands out: apart from it, for who tells such batches from others needs no buffer."""

from __future__ import annotations

from typing import Any, NamedTuple, override

import jax

from pamiq_jax.errors import InvalidValueError


class PrioritizedBatch[X](NamedTuple):
    """A batch by priority, and what a step needs to learn from it without bias.

    Attributes:
        records: leaves `[B, ...]`.
        indices: int32 `[B]`, for `Buffer.update`.
        weights: float32 `[B]`, importance weights from 0 to 1, the largest of the batch being 1.
    """

    records: X
    indices: jax.Array
    weights: jax.Array

    @override
    def __getitem__(self, index: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - one for all overloads
        """Return the field at an index; what is asked for by name is among the records."""
        if isinstance(index, str):
            expected = "records, indices or weights"
            raise InvalidValueError("PrioritizedBatch field", index, expected, f"write batch.records[{index!r}]")
        return tuple.__getitem__(self, index)
