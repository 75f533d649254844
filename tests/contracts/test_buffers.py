"""Every buffer passes the public suite: a new one is one more row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.data import (
    Buffer,
    Record,
    mixed_buffer,
    prioritized_buffer,
    reservoir_buffer,
    ring_buffer,
    rollout_buffer,
    sequence_buffer,
)
from pamiq_jax.errors import ContractError
from pamiq_jax.testing import check_buffer

EXAMPLES = {
    "scalar": 0.0,
    "integer": np.int32(0),
    "nested": {"observation": {"image": np.zeros((2, 3), np.uint8), "pose": np.zeros(3)}, "done": False, "action": 0},
    "half": (jnp.zeros((2,), jnp.bfloat16), jnp.zeros((), jnp.float16)),
    "record": Record({"x": np.zeros(2, np.float32)}, np.int32(0)),
}


def newest(capacity: int) -> Buffer[Any, Any, Any]:
    """Return a buffer as a user may write one: four functions over `(records, count)`."""

    def init(example: Any) -> Any:
        return ring_buffer(capacity).init(example).records, jnp.int32(0)

    def add(state: Any, records: Any, count: Any) -> Any:
        both = jax.tree.map(lambda old, new: jnp.concatenate([old, new.astype(old.dtype)]), state[0], records)
        rows = count + jnp.arange(capacity)  # the last `capacity` of the valid ones
        return jax.tree.map(lambda leaf: leaf[rows], both), jnp.minimum(state[1] + count, capacity).astype(jnp.int32)

    def sample(state: Any, batch_size: int, position: Any, rng_key: Any) -> Any:
        ages = jax.random.randint(jax.random.fold_in(rng_key, position), (batch_size,), 0, jnp.maximum(state[1], 1))
        return jax.tree.map(lambda leaf: leaf[capacity - 1 - ages], state[0])

    return Buffer(init=init, add=add, sample=sample, size=lambda state: state[1], capacity=capacity)


BUFFERS: dict[str, Buffer[Any, Any, Any]] = {
    "uniform": ring_buffer(6),
    "epochs": ring_buffer(6, sampling="epochs"),
    "in order": ring_buffer(6, sampling="in_order"),
    "on the host": ring_buffer(6, placement="host"),
    "of one": ring_buffer(1),
    "reservoir": reservoir_buffer(6),
    "rarely replacing": reservoir_buffer(6, expected_survival_length=100),
    "sequence": sequence_buffer(6, window=3),
    "episodes": sequence_buffer(6, window=1, burn_in=1, carry="action", ends_segment=lambda data: data["done"]),
    "strided": sequence_buffer(6, window=2, stride=3, carry="action"),
    "rollout": rollout_buffer(3, bootstrap=1),
    "prioritized": prioritized_buffer(6),
    "of one's own": newest(6),
    "mixed": mixed_buffer([ring_buffer(6), reservoir_buffer(9), ring_buffer(4, sampling="epochs")], [2, 1, 1]),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"can_sample": lambda state: state.size}, r"can_sample: .*it gives a bool: .*expected bool\[\], got int32"),
        ({"can_sample": lambda state: bool(state.size)}, "can_sample: .*it works under jax.jit"),
        ({"update": lambda state, indices, priorities: state.size}, "update: .*are kept"),
    ],
)
def test_what_a_buffer_may_have_is_checked_if_it_has_it(change: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_buffer(ring_buffer(6)._replace(**change), 0.0)
