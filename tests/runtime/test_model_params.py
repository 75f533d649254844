"""What is no pytree of arrays is refused as a model's parameters when the model is built."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.flax import split_module
from tests.test_house import run_python

NET = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
MLP = eqx.nn.MLP(2, 1, width_size=2, depth=1, key=jax.random.key(0))
CLOSED = r"expected an array; keep what is no array in a closure"


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        (NET, r"Model\(params\) is <class '.*Linear'>, expected a pytree of arrays; .*crosses threads; .*split_module"),
        ({"a": [NET]}, r"Model\(params\)\['a'\]\[0\] is <class '.*Linear'>, .*nnx_trainer"),
        ({"rngs": nnx.Rngs(0)}, r"Model\(params\)\['rngs'\] is <class '.*Rngs'>, .*split_module"),
        (nn.Dense(1), r"Model\(params\) is <class '.*Dense'>, .*`module.init\(key, x\)`"),
        (
            {"net": MLP},
            r"Model\(params\)\['net'\].activation is .*, expected an array; .*pamiq_jax.equinox.split_module",
        ),
        ({"w": "a"}, rf"Model\(params\)\['w'\] is 'a', {CLOSED}"),
        ({"w": object()}, rf"Model\(params\)\['w'\] is <class 'object'>, {CLOSED}"),
        (jnp.tanh, rf"Model\(params\) is <class .*>, {CLOSED}"),
        ({"w": np.array(["a"])}, r"Model\(params\)\['w'\] is 'of dtype <U1', expected an array of numbers"),
        ({"w": np.array([None])}, r"Model\(params\)\['w'\] is 'of dtype object', expected an array of numbers"),
    ],
)
def test_what_is_no_pytree_of_arrays_is_refused(params: Any, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        pj.Model(params)


@pytest.mark.parametrize(
    "params",
    [
        {"w": None, "count": 3, "flag": True, "rate": 0.5, "phase": 1j},
        {"numpy": np.zeros(2), "scalar": np.float32(1), "key": jax.random.key(0), "half": jnp.zeros(2, jnp.bfloat16)},
        {"numpy half": np.zeros(2, jnp.bfloat16)},
        eqx.nn.Linear(2, 1, key=jax.random.key(0)),
        eqx.partition(MLP, eqx.is_array)[0],
        split_module(NET).params,
        nnx.state(NET),
        nn.Dense(1).init(jax.random.key(0), jnp.zeros(2)),
    ],
)
def test_any_pytree_of_arrays_is_taken(params: Any) -> None:
    assert pj.Model(params).params is params


def test_no_library_of_modules_is_imported_for_it() -> None:
    code = """
import sys, pamiq_jax as pj
pj.Model  # imported when first used
before = set(sys.modules)
try:
    pj.Model({"w": print})
except ValueError:
    print(sorted(set(sys.modules) - before))
"""
    result = run_python(code)
    assert result.stdout.strip() == "[]", result.stderr
