"""Stored leaves go into a template: every difference is named, placement is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from pamiq_jax import TrainerState, gradient_trainer
from pamiq_jax.checkpoint import StateStore, match, named_leaves
from pamiq_jax.errors import InvalidValueError, StateMismatchError, UnknownNameError
from tests.checkpoint.values import assert_same, is_key


def saved(tree: Any, directory: Path) -> dict[str, Any]:
    store = StateStore(directory)
    return store.read(store.write(named_leaves(tree), facts={}, created_at=0))


def trainer_state(seed: int) -> TrainerState[Any]:
    trainer = gradient_trainer(lambda params, batch, rng_key: (jnp.sum(params["w"]), {}), optax.adam(1e-3))
    params = {"w": jax.random.normal(jax.random.key(seed), (3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
    return trainer.init(jax.random.key(seed), params)


def test_a_trainers_state_comes_back_from_the_disk(tmp_path: Path) -> None:
    state = trainer_state(1)
    restored, report = match(trainer_state(2), saved(state, tmp_path))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for got, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert isinstance(got, jax.Array)
        assert (got.dtype, got.sharding, got.committed) == (expected.dtype, expected.sharding, expected.committed)
        assert_same(got, expected) if is_key(got) else assert_same(np.asarray(got), expected)
    assert report.taken == tuple(named_leaves(state))
    assert (report.missing, report.different, report.unexpected) == ((), {}, ())
    assert ".opt_state[0].mu['w']" in report.taken


MESH = jax.make_mesh((8,), ("x",))
PLACES = {
    "uncommitted": lambda: jnp.zeros(8),
    "committed": lambda: jax.device_put(np.zeros(8, np.float32), jax.devices()[3]),
    "sharded": lambda: jax.device_put(np.zeros(8, np.float32), NamedSharding(MESH, PartitionSpec("x"))),
    "replicated": lambda: jax.device_put(np.zeros(8, np.float32), NamedSharding(MESH, PartitionSpec())),
    "uncommitted key": lambda: jax.random.split(jax.random.key(0), 8),
    "committed key": lambda: jax.device_put(jax.random.split(jax.random.key(0), 8), jax.devices()[3]),
    "sharded key": lambda: jax.device_put(
        jax.random.split(jax.random.key(0, impl="rbg"), 8), NamedSharding(MESH, PartitionSpec("x"))
    ),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_a_leaf_goes_where_the_templates_is(make: Any) -> None:
    template = make()
    stored = template if is_key(template) else np.arange(8, dtype=np.float32)
    got, _ = match({"a": template}, {"['a']": stored})
    leaf = got["a"]
    assert (leaf.dtype, leaf.sharding, leaf.committed) == (template.dtype, template.sharding, template.committed)
    assert_same(leaf if is_key(leaf) else np.asarray(leaf), stored)


def test_a_restored_state_compiles_nothing_again(tmp_path: Path) -> None:
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf, state))
    state = trainer_state(1)
    step(state)
    restored, _ = match(state, saved(state, tmp_path))
    step(restored)
    assert step._cache_size() == 1


def test_weak_types_never_appear() -> None:
    template = {"a": jnp.asarray(1.0), "b": jnp.asarray(1)}
    assert template["a"].weak_type
    got, _ = match(template, {"['a']": np.float32(2), "['b']": np.int32(3)})
    assert not got["a"].weak_type
    assert not got["b"].weak_type


def test_nothing_is_shared_with_what_was_stored() -> None:
    stored = {"['jax']": np.zeros(4096, np.float32), "['numpy']": np.zeros(3)}
    got, _ = match({"jax": jnp.ones(4096), "numpy": np.ones(3)}, stored)
    for array in stored.values():
        array[:] = 7
    assert float(got["jax"].sum()) == 0.0
    assert float(got["numpy"].sum()) == 0.0


def test_the_leaf_is_of_the_templates_class() -> None:
    template = {"array": np.zeros(2), "scalar": np.float32(0), "int": 1, "str": "a", "flag": True, "none": None}
    stored = {"['array']": np.ones(2), "['scalar']": np.float32(3), "['int']": 5, "['str']": "b", "['flag']": False}
    got, _ = match(template, stored)
    assert_same(got["array"], np.ones(2))
    assert type(got["scalar"]) is np.float32
    assert {name: got[name] for name in ("scalar", "int", "str", "flag", "none")} == {
        "scalar": 3.0, "int": 5, "str": "b", "flag": False, "none": None,
    }  # fmt: skip


def test_a_form_without_values_is_a_template_too() -> None:
    template = jax.eval_shape(lambda: {"w": jnp.zeros(3), "key": jax.random.key(0)})
    got, _ = match(template, {"['w']": np.ones(3, np.float32), "['key']": jax.random.key(4)})
    assert isinstance(got["w"], jax.Array)
    assert_same(got["key"], jax.random.key(4))
    on_one = {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=SingleDeviceSharding(jax.devices()[2]))}
    got, _ = match(on_one, {"['w']": np.ones(3, np.float32)})
    assert got["w"].devices() == {jax.devices()[2]}


TEMPLATE = {"a": jnp.zeros(2), "b": jnp.zeros((2, 3)), "c": 1, "d": jnp.zeros(1), "key": jax.random.key(0)}
STORED = {
    "['a']": np.ones(2, np.float32),
    "['b']": np.zeros((3, 2), np.float64),
    "['c']": 1.0,
    "['extra']": np.zeros(1),
    "['key']": jax.random.key(0, impl="rbg"),
}


def test_every_difference_is_named() -> None:
    with pytest.raises(StateMismatchError) as caught:
        match(TEMPLATE, STORED)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the stored leaves differ from the template in 5 places:"
    assert lines[1:-1] == [
        "  ['d']: missing, nothing is stored under this name",
        "  ['b']: expected float32[2,3], stored is float64[3,2]",
        "  ['c']: expected int, stored is float",
        "  ['key']: expected key<fry>[], stored is key<rbg>[]",
        "  ['extra']: unexpected, the template has no leaf of this name",
    ]
    assert re.search("build the template as it was.*rename=.*or give partial=True", lines[-1])


def test_partial_keeps_the_templates_leaf_where_nothing_fits() -> None:
    got, report = match(TEMPLATE, STORED, partial=True)
    assert report.taken == ("['a']",)
    assert report.missing == ("['d']",)
    assert list(report.different) == ["['b']", "['c']", "['key']"]
    assert report.unexpected == ("['extra']",)
    assert float(got["a"].sum()) == 2.0
    for name in ("b", "c", "d", "key"):
        assert got[name] is TEMPLATE[name]


def test_names_can_be_mapped_leaf_by_leaf_and_by_their_beginning() -> None:
    stored = named_leaves({"encoder": {"w": np.ones(1), "b": np.full(1, 2.0)}, "encoder2": np.full(1, 3.0)})
    template = {"vision": {"w": np.zeros(1), "bias": np.zeros(1)}, "encoder2": np.zeros(1)}
    rename = {"['encoder']": "['vision']", "['encoder']['b']": "['vision']['bias']"}
    got, _ = match(template, stored, rename=rename)
    assert got == {"vision": {"w": 1.0, "bias": 2.0}, "encoder2": 3.0}
    with pytest.raises(UnknownNameError, match=r"match\(rename\): no stored leaf is named \"\['decoder'\]\""):
        match(template, stored, rename={"['decoder']": "['vision']"})
    with pytest.raises(InvalidValueError, match=r"two leaves would be \['encoder2'\]"):
        match(template, stored, rename={"['encoder']['w']": "['encoder2']"})


def test_what_cannot_be_stored_is_a_difference() -> None:
    with pytest.raises(StateMismatchError, match=r"\['f'\]: expected builtin_function_or_method, which cannot be"):
        match({"f": print}, {"['f']": 1})


@jax.tree_util.register_pytree_with_keys_class
class Twins(NamedTuple("Twins", [("first", Any), ("second", Any)])):
    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey("twin"), child) for child in self], None

    @classmethod
    def tree_unflatten(cls, auxiliary: Any, children: Any) -> Any:
        return cls(*children)


def test_leaves_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"named_leaves\(tree\) is \['\.twin'\], expected each name once"):
        named_leaves(Twins(1, 2))


def test_a_tree_that_is_one_leaf_has_a_name_too() -> None:
    assert named_leaves(3) == {"the tree itself": 3}
    assert match(0, named_leaves(3))[0] == 3
