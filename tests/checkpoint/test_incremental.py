"""A save writes what is new, and nothing else."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.checkpoint import StateStore
from pamiq_jax.checkpoint.files import Files
from pamiq_jax.data import ring_buffer
from tests.checkpoint.disk import MemoryDisk, counted

DIRECTORY = Path("/states")
BLOCK = 1024
MOST_OF_A_MANIFEST = 6_000


def store_on(files: Files) -> tuple[StateStore, dict[str, int]]:
    counts: dict[str, int] = {"bytes": 0}
    return StateStore(DIRECTORY, counted(counts, files), block_bytes=BLOCK), counts


def test_an_equal_value_writes_a_manifest_only() -> None:
    value = {"a": np.arange(4096, dtype=np.float32), "b": np.ones(3, np.float32), "n": 1}
    store, counts = store_on(MemoryDisk().files())
    first = store.write(value, facts={}, created_at=0)
    assert first.written_bytes == first.bytes == 4 * 4096 + 12
    assert first.bytes < counts["bytes"] < first.bytes + MOST_OF_A_MANIFEST
    counts["bytes"] = 0
    second = store.write({**value, "n": 2}, facts={}, created_at=1)
    assert (second.bytes, second.written_bytes) == (first.bytes, 0)
    assert counts["bytes"] < MOST_OF_A_MANIFEST


def test_also_another_process_writes_only_what_is_new() -> None:
    files = MemoryDisk().files()
    value = np.arange(4096, dtype=np.float32)
    store_on(files)[0].write(value, facts={}, created_at=0)
    store, counts = store_on(files)
    assert store.write(value, facts={}, created_at=1).written_bytes == 0
    assert counts["bytes"] < MOST_OF_A_MANIFEST


def test_a_ring_buffer_costs_the_blocks_that_its_new_records_touch() -> None:
    buffer = ring_buffer(capacity=1024)
    state = buffer.init({"x": jnp.zeros(64)})
    store, counts = store_on(MemoryDisk().files())
    whole = store.write(dict(enumerate(jax.tree.leaves(state))), facts={}, created_at=0)
    assert whole.bytes > 64 * 4 * 1024
    state = buffer.add(state, {"x": jnp.ones((8, 64))}, jnp.int32(8))
    counts["bytes"] = 0
    changed = store.write(dict(enumerate(jax.tree.leaves(state))), facts={}, created_at=1)
    # 8 rows of 256 bytes lie in 2 blocks; head and size share a third.
    assert changed.written_bytes <= 2 * BLOCK + 8
    assert counts["bytes"] < changed.written_bytes + 5 * MOST_OF_A_MANIFEST, "256 names of blocks are in the manifest"


def test_equal_arrays_are_stored_once_whatever_their_names() -> None:
    store, _ = store_on(MemoryDisk().files())
    weights = jnp.arange(1024.0)
    info = store.write({"snapshot": weights, "trainer": {"params": weights}}, facts={}, created_at=0)
    assert (info.bytes, info.written_bytes) == (2 * 4096, 4096)
    other = store.write({"copy": np.asarray(weights).copy(), "more": np.zeros(1024, np.int32)}, facts={}, created_at=1)
    assert other.written_bytes == 1024, "four equal blocks of zeros are one"
    np.testing.assert_array_equal(store.read(info)["trainer"]["params"], weights)


def test_the_number_of_operations_does_not_grow_with_the_states_saved_before() -> None:
    store, counts = store_on(MemoryDisk().files())
    totals: list[int] = []
    for number in range(6):
        before = sum(counts.values()) - counts["bytes"]
        store.write({"a": np.full(2048, number, np.int32)}, facts={}, created_at=number)
        totals.append(sum(counts.values()) - counts["bytes"] - before)
    # The first ones make directories.
    assert totals[-1] <= max(totals[:3])
