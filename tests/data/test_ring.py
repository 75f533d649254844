from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import Record, RingState, buffer_bytes, ring_buffer
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from pamiq_jax.trees import spec_of

SAMPLINGS = ("uniform", "epochs", "in_order")
KEY = jax.random.key(0)
EXAMPLE = Record({"image": np.zeros((2, 3), np.uint8), "inner": {"done": False, "reward": 0.0}, "action": 0}, 0)

SIX = ring_buffer(capacity=6, sampling="in_order")
ADD_TO_SIX = jax.jit(SIX.add)
SAMPLE_FROM_SIX = jax.jit(SIX.sample, static_argnums=1)


def chunk_of(start: int, rows: int) -> Record[Any]:
    number = np.arange(start, start + rows)
    data = {
        "image": np.broadcast_to(number[:, None, None], (rows, 2, 3)).astype(np.uint8),
        "inner": {"done": number % 2 == 0, "reward": number.astype(np.float32)},
        "action": number.astype(np.int32),
    }
    return Record(data, number.astype(np.int32), number % 3 == 0)


def filled(buffer: Any, count: int) -> Any:
    state = buffer.init(jnp.int32(0))
    for start in range(0, count, 5):
        state = buffer.add(state, jnp.arange(start, start + 5), min(5, count - start))
    return state


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=12))
def test_agrees_with_a_deque(counts: list[int]) -> None:
    state, model, number = SIX.init(EXAMPLE), deque[int](maxlen=6), 0
    for count in counts:
        state = ADD_TO_SIX(state, chunk_of(number, 4), count)
        model.extend(range(number, number + count))
        number += count
    assert int(SIX.size(state)) == len(model)
    if not model:
        return
    batch = SAMPLE_FROM_SIX(state, 12, 0, KEY)  # at least twice around
    expected = (list(model) * 12)[:12]
    assert batch.version.tolist() == expected
    assert batch.data["action"].tolist() == expected
    assert batch.data["image"][:, 1, 2].tolist() == expected
    assert batch.data["inner"]["reward"].tolist() == expected
    assert batch.data["inner"]["done"].tolist() == [number % 2 == 0 for number in expected]


def test_stores_the_dtypes_jax_would_use() -> None:
    records = ring_buffer(capacity=4).init(EXAMPLE).records
    dtypes = [leaf.dtype.name for leaf in jax.tree.leaves(records)]
    assert dtypes == ["int32", "uint8", "bool", "float32", "int32", "bool"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(records))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_is_pure_jax(sampling: Any) -> None:
    buffer = ring_buffer(capacity=8, sampling=sampling)
    traces: list[str] = []

    def add_and_sample(state: Any, records: Any, count: Any, position: Any) -> Any:
        traces.append("trace")
        state = buffer.add(state, records, count)
        return state, buffer.sample(state, 3, position, KEY)

    compiled, state = jax.jit(add_and_sample), buffer.init(EXAMPLE)
    for step in range(3):
        arguments = state, chunk_of(3 * step, 4), np.int32(3), np.int32(step)
        eager, (state, batch) = add_and_sample(*arguments), compiled(*arguments)
        jax.tree.map(np.testing.assert_array_equal, eager, (state, batch))
        assert jax.eval_shape(add_and_sample, *arguments) == spec_of(eager)
    assert traces.count("trace") == 3 + 1  # eager ones, and one that jit and eval_shape share
    assert spec_of(state) == spec_of(buffer.init(EXAMPLE))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_scan_and_vmap_give_what_a_loop_gives(sampling: Any) -> None:
    buffer = ring_buffer(capacity=8, sampling=sampling)
    state = filled(buffer, 7)
    sample = jax.jit(buffer.sample, static_argnums=1)
    loop = jnp.stack([sample(state, 3, position, KEY) for position in range(5)])
    positions = jnp.arange(5)
    _, scanned = jax.lax.scan(lambda carry, position: (carry, buffer.sample(carry, 3, position, KEY)), state, positions)
    vmapped = jax.vmap(lambda position: buffer.sample(state, 3, position, KEY))(positions)
    np.testing.assert_array_equal(scanned, loop)
    np.testing.assert_array_equal(vmapped, loop)


def test_a_population_of_rings_is_a_vmap() -> None:
    buffer = ring_buffer(capacity=4, sampling="in_order")
    states = jax.vmap(buffer.init)(jnp.zeros(2, jnp.int32))
    states = jax.vmap(buffer.add)(states, jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([3, 2]))
    assert states.size.tolist() == [3, 2]
    assert states.records.tolist() == [[1, 2, 3, 0], [4, 5, 0, 0]]


def test_adding_with_donation_happens_in_place() -> None:
    buffer = ring_buffer(capacity=1000)
    state = jax.block_until_ready(buffer.init(EXAMPLE))
    before = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state.records)}
    added = jax.jit(buffer.add, donate_argnums=0)(state, chunk_of(0, 4), np.int32(4))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(added.records)} == before
    assert int(added.size) == 4


def test_counters_stay_bounded() -> None:
    buffer = ring_buffer(capacity=7)
    add = jax.jit(buffer.add)
    state = buffer.init(jnp.int32(0))
    for _ in range(20):
        state = add(state, jnp.arange(5), np.int32(5))
        assert 0 <= int(state.head) < 7
    assert int(state.size) == 7


@pytest.mark.parametrize("size", [5, 7, 12])
def test_an_epoch_has_each_record_once_even_if_batches_straddle(size: int) -> None:
    buffer = ring_buffer(capacity=10, sampling="epochs")
    state = filled(buffer, size)
    stored = list(range(max(0, size - 10), size))
    sample = jax.jit(buffer.sample, static_argnums=1)
    rows = jnp.concatenate([sample(state, 4, position, KEY) for position in range(3 * len(stored))]).tolist()
    epochs = [rows[start : start + len(stored)] for start in range(0, len(rows), len(stored))]
    assert all(sorted(epoch) == stored for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_longer_than_the_buffer_runs_through_several_epochs() -> None:
    buffer = ring_buffer(capacity=4, sampling="epochs")
    rows = buffer.sample(buffer.add(buffer.init(0), jnp.arange(3), 3), 9, 0, KEY)
    assert [sorted(rows[start : start + 3].tolist()) for start in (0, 3, 6)] == [[0, 1, 2]] * 3


@pytest.mark.parametrize(("capacity", "batch_size"), [(1, 5), (1000, 96), (2**20, 4099)])
def test_the_position_may_pass_what_a_product_of_32_bits_holds(capacity: int, batch_size: int) -> None:
    buffer = ring_buffer(capacity, sampling="in_order")
    state = RingState(jnp.arange(capacity), head=jnp.int32(0), size=jnp.int32(capacity))
    position = 2**31 - 5
    expected = [(position * batch_size + row) % capacity for row in range(batch_size)]
    assert buffer.sample(state, batch_size, position, KEY).tolist() == expected


def test_uniform_reaches_every_stored_record_and_no_other() -> None:
    buffer = ring_buffer(capacity=10)
    state = filled(buffer, 10)
    partly = buffer.add(buffer.init(jnp.int32(0)), jnp.array([1, 2, 3]), 2)
    assert set(buffer.sample(state, 200, 0, KEY).tolist()) == set(range(10))
    assert set(buffer.sample(partly, 200, 0, KEY).tolist()) == {1, 2}


def test_uniform_batches_depend_on_position_and_key_only() -> None:
    buffer = ring_buffer(capacity=100)
    state = filled(buffer, 100)
    batches = [
        tuple(buffer.sample(state, 8, position, jax.random.key(seed)).tolist())
        for seed, position in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert batches[0] == batches[3]
    assert len(set(batches)) == 3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_empty_ring_gives_zeros(sampling: Any) -> None:
    buffer = ring_buffer(capacity=4, sampling=sampling)
    assert buffer.sample(buffer.init(1.5), 3, 0, KEY).tolist() == [0.0, 0.0, 0.0]


def test_says_what_it_needs() -> None:
    uniform, epochs, in_order = (ring_buffer(capacity=4, sampling=sampling) for sampling in SAMPLINGS)
    assert [buffer.required(32) for buffer in (uniform, epochs, in_order)] == [1, 32, 32]
    assert [buffer.stable_in_run for buffer in (uniform, epochs, in_order)] == [False, True, True]
    on_host = ring_buffer(capacity=4, placement="host", example=0.0)
    assert (on_host.placement, on_host.example) == ("host", 0.0)


def test_buffer_bytes_is_what_the_state_takes() -> None:
    buffer = ring_buffer(capacity=10)
    state = buffer.init(EXAMPLE)
    assert buffer_bytes(buffer, EXAMPLE) == sum(leaf.nbytes for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"x": jnp.zeros((2, 4)), "done": jnp.zeros(2, bool)}, r"leaf \['x'\]: expected float32\[2,3\], got float32"),
        ({"x": jnp.zeros((2, 3), int), "done": jnp.zeros(2, bool)}, r"leaf \['x'\].*got int32\[2,3\]"),
        ({"x": jnp.zeros((2, 3)), "done": jnp.zeros(3, bool)}, r"leaf \['"),
        ({"x": jnp.zeros((2, 3))}, r"missing \['done'\].*nothing was inserted"),
        ({"x": 0.0, "done": False}, r"leaf \['done'\]: expected bool\[0\], got bool\[\]"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_by_leaf(chunk: Any, message: str) -> None:
    buffer = ring_buffer(capacity=4)
    state = buffer.init({"x": np.zeros(3, np.float32), "done": False})
    with pytest.raises(RecordMismatchError, match=message):
        jax.jit(buffer.add)(state, chunk, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring_buffer(0), r"ring_buffer\(capacity\) is 0"),
        (lambda: ring_buffer(2**31), r"ring_buffer\(capacity\) is 2147483648"),
        (lambda: ring_buffer(1, sampling="newest"), r"ring_buffer\(sampling\) is 'newest', expected one of 'uniform'"),
        (lambda: ring_buffer(1, placement="disk"), r"ring_buffer\(placement\) is 'disk'"),
        (
            lambda: ring_buffer(3).add(ring_buffer(3).init(0), jnp.arange(4), 4),
            r"add\(records\) is 4, expected at most 3",
        ),
        (lambda: ring_buffer(3).sample(ring_buffer(3).init(0), 0, 0, KEY), r"sample\(batch_size\) is 0"),
        (
            lambda: ring_buffer(3).sample(ring_buffer(3).init(0), 1.0, 0, KEY),
            r"sample\(batch_size\) is 1.0, .* integer",
        ),
    ],
)
def test_arguments_outside_their_range_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"key": jax.random.key(0)}, r"leaf \['key'\] is a typed PRNG key .*key_data"),
        ({"name": "agent"}, r"leaf \['name'\] is a str, expected a number"),
        ({}, "has no leaf"),
    ],
)
def test_examples_that_cannot_be_recorded_are_refused(example: Any, message: str) -> None:
    with pytest.raises(RecordMismatchError, match=message):
        ring_buffer(4).init(example)
