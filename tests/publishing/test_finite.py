from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pamiq_jax.errors import NonFiniteError
from pamiq_jax.publishing import check_finite
from pamiq_jax.publishing.finite import all_finite


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_one_number_is_enough(bad: float, dtype: Any) -> None:
    assert not all_finite({"a": jnp.ones(3), "b": jnp.array([1.0, bad]).astype(dtype)})


@pytest.mark.parametrize("tree", [{}, {"count": jnp.int32(3)}, {"key": jax.random.key(0)}, {"is": jnp.array([True])}])
def test_what_is_no_number_with_a_fraction_is_finite(tree: Any) -> None:
    assert all_finite(tree)
    check_finite(tree)


def test_models_may_lie_on_different_devices() -> None:
    there = jax.device_put(jnp.array([1.0, jnp.nan]), jax.devices()[1])
    check_finite({"here": jnp.ones(3), "there": jax.device_put(jnp.ones(2), jax.devices()[1])})
    with pytest.raises(NonFiniteError, match=r"\['there'\] \(1 of 2 numbers\)"):
        check_finite({"here": jnp.ones(3), "there": there})


def test_the_leaves_at_fault_are_named() -> None:
    params = {
        "good": {"w": jnp.ones(3), "key": jax.random.key(0)},
        "policy": {"b": jnp.array([jnp.nan, 1.0, jnp.inf]), "w": jnp.full((2, 2), -jnp.inf, jnp.bfloat16)},
    }
    problem = r"not published: \['policy'\]\['b'\] \(2 of 3 numbers\), \['policy'\]\['w'\] \(4 of 4 numbers\); the last"
    with pytest.raises(NonFiniteError, match=problem):
        check_finite(params)
