"""What the suites share: comparing trees, and what is promised of every function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.errors import ContractError
from pamiq_jax.testing.comparing import bit_difference, form_difference, frozen, value_difference
from pamiq_jax.testing.functions import check_pure, check_traced
from pamiq_jax.testing.rounding import difference_beyond_rounding, spread_of


def test_a_second_trace_is_caught() -> None:
    with pytest.raises(
        ContractError, match=r"double: .*traced once: .* 2 times; leaf \[0\]: weak type False became True"
    ):
        check_traced("double", lambda x: 2 * x, (jnp.float32(1),), jnp.float32(2), later=(jnp.asarray(1.0),))


def test_an_output_that_the_next_call_writes_to_is_caught() -> None:
    output = np.zeros(2)
    calls: list[int] = []

    def count() -> np.ndarray:
        calls.append(0)
        output[0] = len(calls)
        return output if len(calls) == 1 else np.array([1.0, 0.0])

    with pytest.raises(ContractError, match=r"count: .*its output is not changed by the next call: .* 1 of 2 numbers"):
        check_pure("count", count, ())


def test_bits_tell_apart_what_numbers_do_not() -> None:
    nan = jnp.array([jnp.nan, 1.0])
    assert bit_difference(frozen(nan), frozen(jnp.array([jnp.nan, 1.0]))) is None
    assert bit_difference(frozen(0.0), frozen(-0.0)) == "leaf the tree itself differs in 1 of 1 numbers"
    assert bit_difference(frozen(jax.random.key(0)), frozen(jax.random.key(1))) is not None
    deleted = jnp.ones(2)
    before = frozen(deleted)
    deleted.delete()
    assert bit_difference(before, frozen(deleted)) == "leaf the tree itself was deleted"
    assert bit_difference(before, frozen(jnp.ones(3))) == "leaf the tree itself was float32[2], is float32[3]"


def test_forms_differ_by_sharding() -> None:
    here, there = (jax.device_put(jnp.ones(2), device) for device in jax.devices()[:2])
    assert form_difference(here, jnp.zeros(2)) is None
    assert "expected on" in str(form_difference(here, there))


def test_values_are_compared_as_precisely_as_their_dtype_allows() -> None:
    one, next_to_one = jnp.bfloat16(1), jnp.bfloat16(1.01)
    assert value_difference(one, next_to_one, 1e-5) is None
    assert value_difference(jnp.float32(1), jnp.float32(1.0001), 1e-5) == "leaf the tree itself is off by 0.0001"
    assert value_difference(jnp.int32(1), jnp.int32(2), 10.0) == "leaf the tree itself differs in 1 of 1 numbers"
    assert value_difference(jnp.ones(2), jnp.ones(3), 1e-5) is not None


def test_what_rounding_moves_is_told_from_what_is_another_function() -> None:
    def step(x: jax.Array) -> dict[str, jax.Array]:
        noise = jnp.sum(x) - jnp.sum(x[::-1])  # 0, but for rounding
        return {"moved": 0.01 * noise / (jnp.abs(noise) + 1e-8), "still": jnp.sum(x)}

    x = jax.random.normal(jax.random.key(0), (1000,))
    usual, get_spread = step(x), spread_of(step, (x,))
    other = {**usual, "moved": jnp.float32(-0.01)}
    assert difference_beyond_rounding({**usual, "moved": jnp.float32(0.01)}, other, 1e-5, get_spread) is None
    changed = {**usual, "still": usual["still"] + 0.01}
    assert "leaf ['still'] is off" in str(difference_beyond_rounding(usual, changed, 1e-5, get_spread))
