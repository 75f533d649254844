from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.data.permutation import epoch_keys, permuted_index, round_keys, walk


@jax.jit
def order_of_1000(rng_key: jax.Array, size: jax.Array) -> jax.Array:
    return jax.vmap(permuted_index, (None, 0, None))(rng_key, jnp.arange(1000), size)


def order(seed: int, size: int) -> list[int]:
    return order_of_1000(jax.random.key(seed), jnp.int32(size))[:size].tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 257, 999, 1000])
def test_is_a_bijection_of_the_range(size: int) -> None:
    for seed in range(3):
        assert sorted(order(seed, size)) == list(range(size))


def test_different_keys_give_different_orders() -> None:
    assert len({tuple(order(seed, 100)) for seed in range(20)}) == 20


def test_no_element_stays_where_it_was_more_often_than_by_chance() -> None:
    fixed = [np.mean(np.array(order(seed, 1000)) == np.arange(1000)) * 1000 for seed in range(30)]
    assert np.mean(fixed) < 2.0  # one is expected


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_a_few_elements_are_about_equally_likely(size: int) -> None:
    keys = jax.vmap(round_keys)(jax.random.split(jax.random.key(1), 4800))
    check_all_orders_are_about_equally_likely(keys, size)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("first", [0, 2**32 - 2400])
def test_so_they_are_among_the_epochs_of_one_key(size: int, first: int) -> None:
    epochs = jnp.uint32(first) + jnp.arange(4800, dtype=jnp.uint32)
    check_all_orders_are_about_equally_likely(epoch_keys(round_keys(jax.random.key(1)), epochs), size)


def test_epochs_share_no_more_places_than_by_chance() -> None:
    keys = epoch_keys(round_keys(jax.random.key(2)), jnp.arange(200, dtype=jnp.uint32))
    along = jax.vmap(walk, (None, 0, None))
    orders = np.array(jax.jit(jax.vmap(along, (0, None, None)))(keys, jnp.arange(1000), 1000))
    for apart in (1, 2, 64):
        alike = np.sum(orders[apart:] == orders[:-apart], axis=1)
        assert 0.7 < np.mean(alike) < 1.3  # one is expected


def check_all_orders_are_about_equally_likely(keys: jax.Array, size: int) -> None:
    along = jax.vmap(walk, (None, 0, None))
    orders = jax.jit(jax.vmap(along, (0, None, None)))(keys, jnp.arange(size), size).tolist()
    counts = [orders.count(list(wanted)) for wanted in permutations(range(size))]
    expected = 4800 / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_square < 50  # 23 degrees of freedom at most: p = 0.001 at 49.7


def test_the_largest_size_stays_inside_the_range() -> None:
    size = 2**31 - 1
    elements = jax.vmap(permuted_index, (None, 0, None))(jax.random.key(0), size - 1 - jnp.arange(64), size)
    assert elements.dtype == jnp.int32
    assert jnp.all(elements >= 0)
    assert len(set(elements.tolist())) == 64


def test_an_index_outside_the_range_counts_as_the_last() -> None:
    last = permuted_index(jax.random.key(0), 4, 5)
    assert permuted_index(jax.random.key(0), 900, 5) == last


def test_an_empty_range_counts_as_one_element() -> None:
    assert int(permuted_index(jax.random.key(0), 0, 0)) == 0
