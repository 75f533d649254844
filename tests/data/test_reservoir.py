import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import reservoir_buffer
from pamiq_jax.errors import InvalidValueError

KEY = jax.random.key(0)
HALF = reservoir_buffer(capacity=5, replace_probability=0.5, seed=3)
ADD_TO_HALF = jax.jit(HALF.add)


def lots(number: int) -> list[tuple[bool, int]]:
    """What is decided on each record, as the state's docstring says, with the half's key."""

    def lot(record: jax.Array) -> tuple[jax.Array, jax.Array]:
        whether, which = jax.random.split(jax.random.fold_in(jax.random.key(3), record))
        return jax.random.bits(whether, (), jnp.uint32) < jnp.uint32(2**31), jax.random.randint(which, (), 0, 5)

    is_replacing, victims = jax.vmap(lot)(jnp.arange(number))
    return list(zip(is_replacing.tolist(), victims.tolist(), strict=True))


LOTS = lots(60)


def added(buffer: Any, number: int, chunk: int) -> Any:
    add, state = jax.jit(buffer.add), buffer.init(jnp.int32(0))
    for start in range(0, number, chunk):
        state = add(state, jnp.arange(start, start + chunk), min(chunk, number - start))
    return state


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=12))
def test_agrees_with_a_list_whatever_the_chunks(counts: list[int]) -> None:
    state, model, number = HALF.init(jnp.int32(0)), list[int](), 0
    for count in counts:
        state = ADD_TO_HALF(state, jnp.arange(number, number + 4), count)
        for record in range(number, number + count):
            is_replacing, victim = LOTS[record]
            if len(model) < 5:
                model.append(record)
            elif is_replacing:
                model[victim] = record
        number += count
    assert state.records.tolist()[: len(model)] == model
    assert (int(HALF.size(state)), int(state.offered)) == (len(model), number)


def test_a_record_that_another_of_its_chunk_replaces_is_gone() -> None:
    at_once, one_by_one = (added(reservoir_buffer(capacity=8), 32, chunk) for chunk in (8, 1))
    assert at_once.records.tolist() == one_by_one.records.tolist()
    assert int(jnp.sum(one_by_one.records >= 24)) < 8  # of the last chunk, some were replaced at once


def test_survival_is_geometric() -> None:
    capacity, probability, later = 1000, 0.25, 4000
    records = added(reservoir_buffer(capacity, replace_probability=probability), capacity + later, 500).records
    survivors = int(jnp.sum(records < capacity))
    assert survivors == pytest.approx(capacity * math.exp(-probability * later / capacity), rel=0.1)


def test_all_old_records_are_gone_after_about_the_expected_survival_length() -> None:
    buffer = reservoir_buffer(capacity=50, expected_survival_length=1000)

    def length(rng_key: jax.Array) -> jax.Array:
        state = buffer.init(jnp.int32(0)).replace(rng_key=rng_key)
        state = buffer.add(state, jnp.zeros(50, jnp.int32), 50)

        def add(state: Any, _: None) -> Any:
            return buffer.add(state, jnp.ones(10, jnp.int32), 10), jnp.any(state.records == 0)

        return 10 * jnp.sum(jax.lax.scan(add, state, length=300)[1])

    lengths = jax.jit(jax.vmap(length))(jax.random.split(KEY, 64))
    assert np.mean(lengths) == pytest.approx(1000, rel=0.1)


def test_a_resumed_state_goes_on_as_the_other() -> None:
    half_way = added(HALF, 20, 4)
    copy = jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype, copy=True), half_way)
    chunk = jnp.arange(20, 24)
    assert ADD_TO_HALF(copy, chunk, 4).records.tolist() == ADD_TO_HALF(half_way, chunk, 4).records.tolist()


def test_samples_every_stored_record_and_no_other() -> None:
    partly = added(HALF, 3, 4)
    assert set(HALF.sample(partly, 200, 0, KEY).tolist()) == {0, 1, 2}
    full = added(HALF, 40, 4)
    assert set(HALF.sample(full, 200, 1, KEY).tolist()) == set(full.records.tolist())


def test_the_smallest_probability_is_not_rounded_away() -> None:
    assert reservoir_buffer(4, replace_probability=1e-12).capacity == 4
    never = added(reservoir_buffer(4, replace_probability=1e-12), 400, 4)
    assert never.records.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, r"reservoir_buffer\(capacity\) is 0"),
        ({"replace_probability": "x"}, r"replace_probability\) is 'x', expected more than 0 and at most 1; leave it"),
        ({"replace_probability": 0.0}, r"replace_probability\) is 0.0, expected more than 0 and at most 1; leave it"),
        ({"replace_probability": 1.1}, r"replace_probability\) is 1.1"),
        ({"replace_probability": math.nan}, r"replace_probability\) is nan"),
        ({"expected_survival_length": 5}, r"is 5, expected at least 33, where .* lower the capacity of 11"),
        ({"expected_survival_length": math.inf}, r"expected_survival_length\) is inf"),
        ({"replace_probability": 0.5, "expected_survival_length": 99}, "is 99, expected None; leave out one of it and"),
        ({"placement": "disk"}, r"reservoir_buffer\(placement\) is 'disk'"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        reservoir_buffer(**{"capacity": 11, **arguments})
