"""Every buffer passes the public suite: a new one is one more row."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.data import Buffer, Record, ring_buffer
from pamiq_jax.testing import check_buffer

EXAMPLES = {
    "scalar": 0.0,
    "integer": np.int32(0),
    "nested": {"observation": {"image": np.zeros((2, 3), np.uint8), "pose": np.zeros(3)}, "done": False, "action": 0},
    "half": (jnp.zeros((2,), jnp.bfloat16), jnp.zeros((), jnp.float16)),
    "record": Record({"x": np.zeros(2, np.float32)}, np.int32(0)),
}

BUFFERS: dict[str, Buffer[Any, Any, Any]] = {
    "uniform": ring_buffer(6),
    "epochs": ring_buffer(6, sampling="epochs"),
    "in order": ring_buffer(6, sampling="in_order"),
    "on the host": ring_buffer(6, placement="host"),
    "of one": ring_buffer(1),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffer(name: str) -> None:
    check_buffer(BUFFERS[name], EXAMPLES["nested"], batch_size=min(4, BUFFERS[name].capacity))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_any_example(example: Any) -> None:
    check_buffer(BUFFERS["in order"], example, batch_size=4)


@pytest.mark.parametrize("chunk", [1, 5, 6])
def test_any_chunk_up_to_the_capacity(chunk: int) -> None:
    check_buffer(BUFFERS["uniform"], EXAMPLES["scalar"], chunk=chunk)
