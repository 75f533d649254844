from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax import trees


def test_leaves_are_named_in_flattening_order() -> None:
    tree = {"b": [1, {"c": 2}], "a": (3,)}
    assert trees.leaf_names(tree) == ["['a'][0]", "['b'][0]", "['b'][1]['c']"]
    assert trees.leaf_names(5) == ["the tree itself"]
    assert trees.leaf_names({}) == []


@pytest.mark.parametrize(
    ("leaf", "described"),
    [
        (1.5, "float32[]"),
        (True, "bool[]"),
        (3, "int32[]"),
        (np.zeros((2, 3)), "float32[2,3]"),
        (np.int64(1), "int32[]"),
        (jnp.zeros(4, jnp.bfloat16), "bfloat16[4]"),
        (jax.random.key(0), "key<fry>[]"),
        (jax.ShapeDtypeStruct((5,), jnp.uint8), "uint8[5]"),
    ],
)
def test_a_leaf_is_described_as_jax_would_store_it(leaf: Any, described: str) -> None:
    assert trees.describe_leaf(leaf) == described


def test_specs_stand_in_for_arrays() -> None:
    tree = {"x": np.zeros(2), "key": jax.random.key(0)}
    specs = trees.spec_of(tree)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(specs))
    assert trees.difference(specs, tree) is None
    assert trees.spec_of(specs) == specs


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "missing ['b']"),
        ({"a": 1}, {"a": 1, "b": 2}, "unexpected ['b']"),
        ({"a": 1}, {"b": 1}, "missing ['a']; unexpected ['b']"),
        ({"x": [1, 2]}, {"x": (1, 2)}, "expected PyTreeDef({'x': [*, *]}), got PyTreeDef({'x': (*, *)})"),
        ({"a": 1, "b": 1.0}, {"a": 1, "b": 1}, "leaf ['b']: expected float32[], got int32[]"),
        (np.zeros(2), np.zeros(3), "leaf the tree itself: expected float32[2], got float32[3]"),
    ],
)
def test_the_first_difference_is_named(expected: Any, actual: Any, problem: str) -> None:
    assert trees.difference(expected, actual) == problem


def test_equal_forms_do_not_differ_whatever_the_values() -> None:
    assert trees.difference({"a": np.zeros(2), "b": 1}, {"a": jnp.ones(2), "b": np.int32(7)}) is None


def test_bytes_are_counted_with_keys_and_without_making_arrays() -> None:
    tree = {"x": jnp.zeros((2, 3), jnp.float16), "key": jax.random.key(0), "flag": True, "none": jnp.zeros((0, 4))}
    assert trees.nbytes(tree) == 12 + 8 + 1
    assert trees.nbytes(jax.ShapeDtypeStruct((2**40,), jnp.float32)) == 2**42
