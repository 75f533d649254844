from typing import Any

import jax
import numpy as np
import pytest

from pamiq_jax.data import (
    Record,
    buffer_bytes,
    describe_buffer,
    mixed_buffer,
    prioritized_buffer,
    reservoir_buffer,
    ring_buffer,
)
from pamiq_jax.errors import RecordMismatchError

EXAMPLE = Record({"image": np.zeros((2, 3), np.uint8), "reward": 0.0}, 0)


@pytest.mark.parametrize("make", [ring_buffer, reservoir_buffer, prioritized_buffer])
def test_the_leaves_add_up_to_what_a_state_takes(make: Any) -> None:
    buffer = make(10)
    header, *lines = describe_buffer(buffer, EXAMPLE).splitlines()
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, buffer.init(EXAMPLE).replace(**without_key(buffer))))
    total = buffer_bytes(buffer, EXAMPLE)
    assert f" take {total} bytes ({total} B) on the device:" in header
    assert sum(int(line.split()[0]) for line in lines) == total == sum(leaf.nbytes for leaf in leaves)


def without_key(buffer: Any) -> dict[str, Any]:
    """What to replace a typed key by, of which numpy knows no bytes: its data."""
    state = buffer.init(EXAMPLE)
    return {"rng_key": jax.random.key_data(state.rng_key)} if hasattr(state, "rng_key") else {}


def test_says_where_how_much_and_of_what() -> None:
    text = describe_buffer(ring_buffer(2_000_000_000 // 2, placement="host"), EXAMPLE)
    assert text.splitlines() == [
        "1,000,000,000 records take 15,000,000,008 bytes (15.0 GB) in the host's memory:",
        "  6,000,000,000  .records.data['image']   uint8[1000000000,2,3]",
        "  4,000,000,000  .records.data['reward']  float32[1000000000]",
        "  4,000,000,000  .records.version         int32[1000000000]",
        "  1,000,000,000  .records.is_first        bool[1000000000]",
        "              4  .head                    int32[]",
        "              4  .size                    int32[]",
    ]


def test_names_the_parts_of_a_mix() -> None:
    text = describe_buffer(mixed_buffer([ring_buffer(4), reservoir_buffer(8)], [1, 1]), 0.0)
    assert "16  [0].records.data" in text
    assert "32  [1].records.data" in text


def test_a_plain_example_is_taken_as_the_data_of_a_record() -> None:
    buffer = ring_buffer(10)
    assert describe_buffer(buffer, EXAMPLE.data) == describe_buffer(buffer, EXAMPLE)


def test_an_example_that_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(RecordMismatchError, match="is a str, expected a number"):
        describe_buffer(ring_buffer(4), {"name": "agent"})
