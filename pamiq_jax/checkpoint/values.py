"""Values as JSON with arrays beside it, and back. Nothing here can run code that a file brings along."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from pamiq_jax.errors import UnstorableValueError

type Json = Any
"""None, bool, int, float, str, and lists and dicts of them."""

type Entry = dict[str, Any]
"""What a manifest says of one array: dtype, shape, bytes, where they lie, and a key's implementation."""

MAX_PLAIN_INTEGER = 2**53
"""Up to here every reader of JSON keeps an integer exact; others are written as text."""

MAX_DEPTH = 100
"""So deep values may be nested: JSON and its reader are nested several times as deep, and must not run out of stack."""

NUMPY_DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
SMALL_DTYPES = (
    "bfloat16", "int2", "int4", "uint2", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4",
    "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
)  # fmt: skip

DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in NUMPY_DTYPES} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in SMALL_DTYPES
}
"""Dtypes by the name they have in a manifest: numpy's numbers and those of ml_dtypes."""


class HostArray(NamedTuple):
    """An array on its way into the store.

    Attributes:
        entry: what the manifest will say of it; whoever stores the bytes adds where they lie.
        data: the bytes, in C order and little-endian; the array's own memory where that is possible.
    """

    entry: Entry
    data: memoryview


def encode(value: object, give_way: Callable[[], object] = lambda: None) -> tuple[Json, list[HostArray]]:
    """Return a value as JSON, and the arrays that the JSON refers to; an array that occurs twice comes once.

    Args:
        value: dicts with str or int keys, lists and tuples of arrays, numbers, str, bool and None.
        give_way: called after each array, so that other threads need not wait for all.

    Raises:
        UnstorableValueError: naming the part that is something else.
    """
    arrays: dict[int, HostArray] = {}

    def host_array(array: Any, name: str) -> Entry:
        if id(array) not in arrays:  # one array may lie in several places, as published parameters do
            arrays[id(array)] = _host_array(array, name)
            give_way()
        return arrays[id(array)].entry

    return _encode(value, "", host_array, MAX_DEPTH), list(arrays.values())


def _encode(value: Any, name: str, host_array: Callable[[Any, str], Entry], depth: int) -> Json:
    kind = type(cast(object, value))
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) <= MAX_PLAIN_INTEGER else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if depth == 0 and kind in (dict, list, tuple):
        shown = name if len(name) < 40 else f"{name[:20]}...{name[-10:]}"
        raise UnstorableValueError(_shown(shown), f"is nested more than {MAX_DEPTH} deep", "store it flat, by names")
    if kind is dict:
        parts = [(_checked_key(key, name), part) for key, part in value.items()]
        return {"dict": [[key, _encode(part, child_name(name, key), host_array, depth - 1)] for key, part in parts]}
    if kind is list or kind is tuple:
        parts = [_encode(part, child_name(name, index), host_array, depth - 1) for index, part in enumerate(value)]
        return {kind.__name__: parts}
    if isinstance(value, np.ndarray) and kind not in (np.ndarray, np.memmap):  # what it has beside would be lost
        remedy = "convert it: x.filled(value) and its mask for a masked array, np.asarray(x) else"
        raise UnstorableValueError(_shown(name), f"is a {kind.__module__}.{kind.__qualname__}", remedy)
    if isinstance(value, np.ndarray | np.generic) or _is_of_jax(value):
        return {"array": host_array(value, name)}
    raise UnstorableValueError(
        _shown(name), f"is a {kind.__qualname__}", "store named_leaves(tree), or convert it to dicts, lists and arrays"
    )


def _is_of_jax(value: Any) -> bool:
    """Return whether it is an array of JAX; a process that only writes has none, and need not import it."""
    return "jax" in sys.modules and isinstance(value, sys.modules["jax"].Array)


def child_name(name: str, key: str | int) -> str:
    """Return the name of a part of a value; a key that is itself the name of a leaf is appended as it is."""
    return f"{name}{key}" if isinstance(key, str) and key.startswith(("[", ".")) else f"{name}[{key!r}]"


def _shown(name: str) -> str:
    return f"value{name}"


def _checked_key(key: Any, name: str) -> str | int:
    if type(key) in (str, int):
        return key
    raise UnstorableValueError(_shown(name), f"has the key {key!r}", "use keys that are str or int")


def _host_array(value: Any, name: str) -> HostArray:
    implementation = None
    if _is_of_jax(value):
        import jax

        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            implementation = str(jax.random.key_impl(value))
            value = jax.random.key_data(value)
    array = np.asarray(value, order="C")
    if (dtype := _dtype_name(array.dtype)) not in DTYPES:
        remedy = "convert it to bool, an integer, a float, a complex number or one of ml_dtypes' small ones"
        raise UnstorableValueError(_shown(name), f"has dtype {array.dtype}", remedy)
    array = array.astype(_little_endian(array.dtype), copy=False)
    entry: Entry = {"dtype": dtype, "shape": list(array.shape), "bytes": array.nbytes}
    if implementation is not None:
        entry["key"] = implementation
    return HostArray(entry, memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b""))


def decode(tree: Json, load: Callable[[str, Entry], Any], name: str = "") -> Any:
    """Return the value that `encode` made this JSON of.

    Args:
        tree: the JSON.
        load: returns an array, given its name and its entry.
        name: of the value within a larger one.
    """
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = cast(dict[str, Any], tree).items()
    match kind:
        case "int":
            return int(content, 16)
        case "float":
            return float(content)
        case "dict":
            return {key: decode(part, load, child_name(name, key)) for key, part in content}
        case "list":
            return [decode(part, load, child_name(name, index)) for index, part in enumerate(content)]
        case "tuple":
            return tuple(decode(part, load, child_name(name, index)) for index, part in enumerate(content))
        case "array":
            return load(name, content)
        case _:
            raise ValueError(f"unknown kind of value {kind!r} at {_shown(name)}")


def array_from(entry: Entry, data: np.ndarray[Any, Any]) -> Any:
    """Return the array of an entry over these `uint8` bytes: numpy's, or JAX's with its own copy for a typed key."""
    dtype = DTYPES[entry["dtype"]]
    array = data.view(_little_endian(dtype)).astype(dtype, copy=False).reshape(entry["shape"])
    if "key" in entry:
        import jax

        return jax.random.wrap_key_data(jax.numpy.array(array), impl=entry["key"])
    return array


@functools.cache  # numpy puts the name together anew each time, which takes longer than all the rest
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


@functools.cache
def _little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<") if dtype.name in NUMPY_DTYPES else dtype


def iterate_leaves(tree: Json, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and content of every leaf of what `encode` returned: the entry of an array, or a Python value."""
    kind, content = next(iter(cast(dict[str, Any], tree).items())) if isinstance(tree, dict) else ("plain", tree)
    if kind == "dict":
        for key, part in content:
            yield from iterate_leaves(part, child_name(name, key))
    elif kind in ("list", "tuple"):
        for index, part in enumerate(content):
            yield from iterate_leaves(part, child_name(name, index))
    else:
        yield name, content if kind == "array" else decode(tree, lambda name, entry: None)


def array_entries(tree: Json) -> Iterator[Entry]:
    """Yield the entry of each array, as often as it occurs in the value; names, which take longer, are not made."""
    left: list[Any] = [tree]
    while left:
        part = left.pop()
        if not isinstance(part, dict):
            continue
        ((kind, content),) = cast(dict[str, Any], part).items()
        if kind == "array":
            yield content
        elif kind == "dict":
            left.extend(value for _, value in content)
        elif kind in ("list", "tuple"):
            left.extend(content)
