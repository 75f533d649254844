import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import prioritized_buffer
from pamiq_jax.errors import InvalidValueError

KEY = jax.random.key(0)
SIX = prioritized_buffer(capacity=6, alpha=1.0)
ADD, UPDATE = jax.jit(SIX.add), jax.jit(SIX.update)  # pyright: ignore[reportArgumentType]  # it has one

COUNTS = st.tuples(st.just("add"), st.integers(0, 4), st.none())
PRIORITIES = st.lists(st.integers(0, 50) | st.sampled_from((-2, math.nan, math.inf)), min_size=3, max_size=3)
UPDATES = st.tuples(st.just("update"), st.lists(st.integers(-2, 8), min_size=3, max_size=3), PRIORITIES)


def model_update(model: list[float], largest: float, indices: list[int], priorities: list[float]) -> float:
    """Set priorities in a list, the last one for a slot counting, and return the largest so far."""
    masses = [
        largest if math.isinf(number) else number if math.isnan(number) else max(number, 0.0) for number in priorities
    ]
    for index, mass in zip(indices, masses, strict=True):
        if 0 <= index < len(model) and not math.isnan(mass):
            model[index] = mass
            largest = max(largest, mass)
    return largest


@settings(max_examples=60)
@given(st.lists(COUNTS | UPDATES, max_size=10))
def test_agrees_with_a_list(actions: list[Any]) -> None:
    state, model, largest, number = SIX.init(jnp.int32(0)), list[float](), 1.0, 0
    for action, argument, priorities in actions:
        if action == "update":
            state = UPDATE(state, jnp.array(argument), jnp.array(priorities, jnp.float32))
            largest = model_update(model, largest, argument, priorities)
            continue
        state = ADD(state, jnp.arange(number, number + 4), argument)
        for record in range(number, number + argument):
            model[record % 6 : record % 6 + 1] = [largest]
        number += argument
    assert state.sums[8 : 8 + 6].tolist() == model + [0.0] * (6 - len(model))
    assert (float(state.sums[1]), float(state.largest)) == (sum(model), largest)


def filled(capacity: int, priorities: list[float], **arguments: Any) -> Any:
    buffer: Any = prioritized_buffer(capacity, **arguments)
    rows = len(priorities)
    state = jax.jit(buffer.add)(buffer.init(jnp.int32(0)), 10 * jnp.arange(rows), rows)
    return buffer, jax.jit(buffer.update)(state, jnp.arange(rows), jnp.array(priorities, jnp.float32))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sampling_is_proportional_to_priority_to_the_alpha(alpha: float) -> None:
    priorities = [1.0, 4.0, 9.0, 16.0, 25.0]
    buffer, state = filled(7, priorities, alpha=alpha)
    sample = jax.jit(jax.vmap(lambda position: buffer.sample(state, 4, position, KEY).indices))
    drawn = np.bincount(np.asarray(sample(jnp.arange(2500))).ravel(), minlength=5) / 10_000
    masses = np.array(priorities) ** alpha
    assert np.max(np.abs(drawn - masses / masses.sum())) < 0.02


def test_a_batch_has_its_records_and_indices_and_weights_take_back_the_bias() -> None:
    priorities = np.array([1.0, 2.0, 3.0, 10.0], np.float32)
    buffer, state = filled(4, priorities.tolist(), alpha=1.0, beta=0.5)
    batch = jax.jit(buffer.sample, static_argnums=1)(state, 64, 0, KEY)
    assert batch.records.tolist() == (10 * batch.indices).tolist()
    probabilities = priorities[batch.indices] / priorities.sum()
    weights = (4 * probabilities) ** -0.5
    np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-5)


def test_with_full_beta_a_weighted_mean_is_that_of_uniform_sampling() -> None:
    buffer, state = filled(4, [1.0, 2.0, 3.0, 10.0], alpha=1.0, beta=1.0)
    batch = jax.jit(buffer.sample, static_argnums=1)(state, 16_000, 0, KEY)
    mean = jnp.average(batch.records.astype(jnp.float32), weights=batch.weights)
    assert float(mean) == pytest.approx(np.mean([0, 10, 20, 30]), rel=0.01)


def test_a_batch_is_stratified() -> None:
    buffer, state = filled(8, [1.0] * 8)
    assert buffer.sample(state, 8, 3, KEY).indices.tolist() == list(range(8))


def test_what_a_program_of_several_steps_returns_can_be_given_back_at_once() -> None:
    buffer, state = filled(4, [1.0] * 4, alpha=1.0)
    state = buffer.update(state, jnp.array([[0, 1], [1, 3]]), jnp.array([[5.0, 6.0], [7.0, 8.0]]))
    assert state.sums[4:].tolist() == [5.0, 7.0, 1.0, 8.0]


def test_nan_changes_nothing_not_even_an_earlier_priority_of_the_same_record() -> None:
    buffer, state = filled(4, [1.0] * 4, alpha=1.0)
    state = buffer.update(state, jnp.array([[0, 1], [0, 2]]), jnp.array([[5.0, 6.0], [jnp.nan, jnp.nan]]))
    assert state.sums[4:].tolist() == [5.0, 6.0, 1.0, 1.0]


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_sums_of_large_priorities_are_finite_and_equal_ones_equally_likely(alpha: float) -> None:
    buffer, state = filled(9, [1e38] * 9, alpha=alpha)
    batch = buffer.sample(state, 9, 0, KEY)
    assert np.isfinite([float(state.sums[1]), float(state.largest)]).all()
    assert (batch.indices.tolist(), batch.weights.tolist()) == (list(range(9)), [1.0] * 9)


def test_there_is_nothing_to_sample_where_all_priorities_are_0() -> None:
    buffer, state = filled(4, [0.0, 0.0], alpha=1.0)
    can_sample: Any = jax.jit(buffer.can_sample)
    assert not can_sample(buffer.init(jnp.int32(0)))
    assert not can_sample(state)
    assert can_sample(buffer.add(state, jnp.array([3]), 1))


def test_a_batch_without_any_priority_weighs_nothing() -> None:
    empty: Any = prioritized_buffer(capacity=4)
    for state in (empty.init(jnp.int32(0)), filled(4, [0.0, 0.0])[1]):
        batch = empty.sample(state, 3, 0, KEY)
        assert batch.weights.tolist() == [0.0, 0.0, 0.0]
        assert batch.records.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, r"prioritized_buffer\(capacity\) is 0"),
        ({"capacity": 2**30}, r"prioritized_buffer\(capacity\) is 1073741824, expected 1 to 536870912"),
        ({"alpha": -0.1}, r"prioritized_buffer\(alpha\) is -0.1"),
        ({"beta": 1.5}, r"prioritized_buffer\(beta\) is 1.5, expected 0 to 1"),
        ({"placement": "disk"}, r"prioritized_buffer\(placement\) is 'disk'"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        prioritized_buffer(**{"capacity": 4, **arguments})


def test_priorities_must_be_one_for_each_index() -> None:
    buffer, state = filled(4, [1.0] * 4)
    with pytest.raises(
        InvalidValueError, match=r"update\(priorities\) is \(2,\), expected the shape \(3,\) of indices"
    ):
        buffer.update(state, jnp.arange(3), jnp.ones(2))
