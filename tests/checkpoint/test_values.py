"""What is saved comes back: every kind of leaf, any nesting, bit for bit."""

from __future__ import annotations

import enum
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import hypothesis.extra.numpy as array_strategies
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import pamiq_jax.checkpoint
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.checkpoint.blocks import cut, cut_sizes
from pamiq_jax.checkpoint.values import DTYPES
from pamiq_jax.errors import InvalidValueError, UnstorableValueError
from tests.checkpoint.disk import MemoryDisk
from tests.checkpoint.values import assert_same

DIRECTORY = Path("/states")


def round_trip(value: Any, block_bytes: int = 64) -> Any:
    files = MemoryDisk().files()
    info = StateStore(DIRECTORY, files, block_bytes=block_bytes).write(value, facts={}, created_at=0.0)
    reader = StateStore(DIRECTORY, files)
    assert all(report.is_sound for report in reader.verify())
    return reader.read(info)


LEAVES = {
    "jax": lambda: jnp.arange(6.0).reshape(2, 3),
    "on several devices": lambda: jax.device_put(
        np.arange(16.0, dtype=np.float32),
        jax.sharding.NamedSharding(jax.make_mesh((8,), ("x",)), jax.sharding.PartitionSpec("x")),
    ),
    "key": lambda: jax.random.key(3),
    "keys of another implementation": lambda: jax.random.split(jax.random.key(3, impl="rbg"), 5),
    "bfloat16": lambda: jnp.linspace(-1, 1, 200, dtype=jnp.bfloat16),
    "one number": lambda: jnp.float32(2.5),
    "weakly typed": lambda: jnp.asarray(2.5),
    "numpy's scalar": lambda: np.float64(2.5),
    "empty": lambda: np.zeros((0, 3), np.int16),
    "big-endian": lambda: np.arange(5, dtype=">i4"),
    "Fortran order": lambda: np.asfortranarray(np.arange(60.0).reshape(3, 20)),
    "a view with steps": lambda: np.arange(60)[::-2],
    "read-only": lambda: np.broadcast_to(np.float32(3), (4, 5)),
    "NaN with a payload": lambda: np.array([0x7FC00123, 0xFF800001], np.uint32).view(np.float32),
}


@pytest.mark.parametrize("make", LEAVES.values(), ids=LEAVES)
def test_arrays_come_back(make: Any) -> None:
    assert_same(round_trip(make()), make())


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back(name: str) -> None:
    array = (np.arange(9) % 2).astype(DTYPES[name]).reshape(3, 3)
    got = round_trip({"small": array[:1, :1], "large": array})
    assert_same(got, {"small": array[:1, :1], "large": array})


def test_every_small_dtype_of_the_library_is_known() -> None:
    small = {str(np.dtype(kind)) for kind in vars(ml_dtypes).values() if isinstance(kind, type)} - {"object"}
    assert small - DTYPES.keys() <= {"int1", "uint1", "bcomplex32", "complex32"}  # JAX has no such arrays


@pytest.mark.parametrize(
    "number", [0, -1, 2**53 + 1, -(2**128), 0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan, 1e16]
)
def test_python_numbers_are_exact(number: float) -> None:
    assert_same(round_trip([number]), [number])


def test_integers_have_no_greatest_length() -> None:
    assert round_trip(10**5000) == 10**5000


numbers = st.integers() | st.floats() | st.booleans() | st.none() | st.text()
arrays = array_strategies.arrays(
    st.sampled_from([np.dtype(name) for name in ("bool", "int8", "uint16", "int64", "float16", "float64", "complex64")])
    | st.just(np.dtype(ml_dtypes.bfloat16)),
    array_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    elements=st.just(0) | st.just(1),
)
trees = st.recursive(
    numbers | arrays,
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), parts, max_size=4)
    ),
    max_leaves=12,
)


@hypothesis.given(trees)
@hypothesis.settings(max_examples=150)
def test_any_tree_comes_back(value: Any) -> None:
    assert_same(round_trip(value, block_bytes=32), value)


@hypothesis.given(st.lists(st.binary(max_size=20)), st.integers(1, 12))
def test_pieces_are_cut_into_blocks_of_equal_size(pieces: list[bytes], block_bytes: int) -> None:
    blocks = list(cut(map(memoryview, pieces), block_bytes))
    assert b"".join(blocks) == b"".join(pieces)
    assert [len(block) for block in blocks] == cut_sizes(sum(map(len, pieces)), block_bytes)


def test_a_block_within_one_array_is_not_copied() -> None:
    array = np.arange(100, dtype=np.uint8)
    for block in cut([memoryview(array)], 30):
        assert np.shares_memory(np.frombuffer(block, np.uint8), array)


def test_what_was_read_is_memory_of_its_own(tmp_path: Path) -> None:
    store = StateStore(tmp_path, block_bytes=64)
    info = store.write({"a": np.arange(40.0), "b": np.ones(1, np.int8)}, facts={}, created_at=0.0)
    first, second = store.read(info), store.read(info)
    first["a"][:] = 0
    first["b"][:] = 0
    assert_same(second, {"a": np.arange(40.0), "b": np.ones(1, np.int8)})


class Point(NamedTuple):
    x: int


class Color(enum.StrEnum):
    RED = "red"


class Rows(np.ndarray[Any, Any]):
    """An array of a class of its own, as np.matrix is."""


def nested(depth: int) -> dict[str, Any]:
    """Return a dict in a dict, so many in all."""
    return {} if depth == 1 else {"a": nested(depth - 1)}


REFUSED = [
    ({"a": [object()]}, r"value\['a'\]\[0\] is a object, expected dicts.*; store named_leaves"),
    ((Point(1),), r"value\[0\] is a Point"),
    ([Color.RED], r"value\[0\] is a Color"),
    ({"a": {(1, 2): 3}}, r"value\['a'\] has the key \(1, 2\).*; use keys that are str or int"),
    ({True: 1}, "value has the key True"),
    (np.array(["a"]), "value has dtype <U1.*; convert it to bool"),
    (np.array([None]), "value has dtype object"),
    (np.zeros(2, "M8[s]"), r"value has dtype datetime64\[s\]"),
    ({"a": np.zeros(2, [("x", "f4")])}, r"value\['a'\] has dtype \[\('x', '<f4'\)\]"),
    (b"bytes", "value is a bytes"),
    ([np.ma.MaskedArray([1, 2], mask=[0, 1])], r"value\[0\] is a numpy.ma.MaskedArray.*x.filled\(value\) and its mask"),
    (np.zeros((1, 2)).view(Rows), r"value is a .*Rows.*; convert it"),
    (nested(101), r"value\['a'\].* is nested more than 100 deep.*; store it flat"),
]


def test_a_value_may_be_nested_deep_and_mapped_from_a_file(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "states")
    assert_same(store.read(store.write(nested(100), facts={}, created_at=0.0)), nested(100))
    mapped = np.memmap(tmp_path / "mapped", np.int8, "w+", shape=(3,))
    assert_same(store.read(store.write(mapped, facts={}, created_at=0.0)), np.zeros(3, np.int8))


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_what_cannot_be_stored_is_named_before_anything_is_written(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnstorableValueError, match=message):
        StateStore(tmp_path / "states").write(value, facts={}, created_at=0.0)
    assert list(tmp_path.iterdir()) == []


def test_facts_come_back(tmp_path: Path) -> None:
    facts = {"version": 3, "metrics": {"loss": math.inf, "return": 1.5}, "tags": ("a", None, True), "": {}}
    store = StateStore(tmp_path)
    info = store.write(1, facts=facts, created_at=1700000000)
    assert info == store.latest() == StateStore(tmp_path).states()[0]
    assert info.facts == {**facts, "tags": ["a", None, True]}
    assert (info.number, info.created_at, info.bytes) == (1, 1.7e9, 0)


def test_facts_that_are_not_json_are_refused(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    with pytest.raises(UnstorableValueError, match=r"facts\['metrics'\]\['loss'\] is .*write float\(x\) for a scalar"):
        store.write(1, facts={"metrics": {"loss": np.float32(1)}}, created_at=0)
    with pytest.raises(UnstorableValueError, match=r"facts\['a'\]\[0\] is \{1: 2\}.*str keys"):
        store.write(1, facts={"a": [{1: 2}]}, created_at=0)
    with pytest.raises(InvalidValueError, match=r"write\(created_at\) is nan, expected seconds since 1970"):
        store.write(1, facts={}, created_at=math.nan)
    with pytest.raises(InvalidValueError, match=r"StateStore\(block_bytes\) is 1, expected an integer from 16"):
        StateStore(tmp_path, block_bytes=1)


def test_nothing_in_the_room_can_run_code_from_a_file() -> None:
    sources = list(Path(pamiq_jax.checkpoint.__file__).parent.glob("*.py"))
    assert len(sources) > 5
    forbidden = re.compile(
        r"pickle|marshal|shelve|dill|np\.load|numpy\.load|\beval\(|\bexec\(|__import__|import_module"
    )
    assert [path.name for path in sources if forbidden.search(path.read_text())] == []
