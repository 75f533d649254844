import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data.sum_tree import find_slots, set_masses, zero_sums

SET_MASSES, FIND_SLOTS = jax.jit(set_masses), jax.jit(find_slots)
CHANGE = st.tuples(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.permutations(range(12)))


@settings(max_examples=60)
@given(st.lists(CHANGE, max_size=6), st.floats(0, 1, width=32))
def test_agrees_with_a_running_sum_over_a_list(changes: list[tuple[list[int], list[int]]], where: float) -> None:
    sums, model = zero_sums(12), [0] * 16
    for masses, slots in changes:
        sums = SET_MASSES(sums, jnp.array(slots[:4]), jnp.array(masses, jnp.float32))
        for slot, mass in zip(slots, masses, strict=False):
            model[slot] = mass
    assert sums[16:].tolist() == model
    assert float(sums[1]) == sum(model)
    point = np.float32(where) * np.float32(sum(model))
    slot = int(FIND_SLOTS(sums, jnp.array([point]))[0])
    if sum(model):
        assert model[slot] > 0
        assert sum(model[:slot]) <= point <= sum(model[: slot + 1])


def test_slots_past_the_end_change_nothing() -> None:
    sums = set_masses(zero_sums(3), jnp.array([1, 2]), jnp.array([1.0, 2.0]))
    after = set_masses(sums, jnp.array([8, 11, 4]), jnp.array([5.0, 6.0, 7.0]))
    assert after.tolist() == sums.tolist()


def test_rounding_never_finds_an_empty_slot() -> None:
    masses = jnp.full(1000, 0.1).at[500:].set(0.0)
    sums = set_masses(zero_sums(1000), jnp.arange(1000), masses)
    points = jnp.nextafter(sums[1], jnp.float32(jnp.inf)) * jnp.ones(3)
    assert jnp.max(find_slots(sums, points)) <= 499


def test_a_tree_of_one_leaf_is_its_root() -> None:
    sums = set_masses(zero_sums(1), jnp.array([0]), jnp.array([2.0]))
    assert sums.tolist() == [0.0, 2.0]
    assert find_slots(sums, jnp.array([1.5])).tolist() == [0]
