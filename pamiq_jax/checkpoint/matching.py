"""Put stored leaves into a tree of the form that a program wants, and name every leaf that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.errors import InvalidValueError, StateMismatchError, UnknownNameError
from pamiq_jax.trees import leaf_names
from pamiq_jax.types import PyTree

PYTHON_LEAVES = (bool, int, float, str)


class MatchReport(NamedTuple):
    """Which leaves of a template were replaced, by name.

    Attributes:
        taken: replaced by what was stored.
        missing: kept, because nothing is stored under their name.
        different: kept, because what is stored has another shape, dtype or type; with what was expected and found.
        unexpected: stored, but not in the template.
        anew: parts of a system that begin anew as a whole, and why; what would fit of them is neither taken nor
            different. `match` knows no parts: it is empty then.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    different: Mapping[str, str]
    unexpected: tuple[str, ...]
    anew: Mapping[str, str] = MappingProxyType({})

    @property
    def differences(self) -> list[str]:
        """A line for each part that begins anew, and for each leaf that did not fit."""
        return [
            *(f"{part} begins anew: {why}" for part, why in self.anew.items()),
            *(f"{name}: missing, nothing is stored under this name" for name in self.missing),
            *(f"{name}: {difference}" for name, difference in self.different.items()),
            *(f"{name}: unexpected, the template has no leaf of this name" for name in self.unexpected),
        ]


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of any pytree by name, which is a value that `StateStore.write` takes.

    Names are JAX's key paths, so they survive where a class or a library is replaced by one with equal fields.

    Args:
        tree: named tuples, dataclasses, dicts and whatever else JAX can flatten.

    Raises:
        InvalidValueError: two leaves have one name, which only a node class of one's own can bring about.

    Example:
        >>> import optax
        >>> named_leaves(optax.sgd(0.1, momentum=0.9).init({"w": np.zeros(2, np.float32)}))
        {"[0].trace['w']": Array([0., 0.], dtype=float32)}
    """
    names = leaf_names(tree)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidValueError("named_leaves(tree)", twice, "each name once", "give the node class distinct keys")
    return dict(zip(names, jax.tree.leaves(tree), strict=True))


def match(
    template: PyTree, stored: Mapping[str, Any], *, partial: bool = False, rename: Mapping[str, str] | None = None
) -> tuple[PyTree, MatchReport]:
    """Return the template with its leaves replaced by stored ones, and what became of each.

    An array gets the template's sharding and is committed to its devices if the template's is; it is a copy, so neither
    shares memory with what was stored. A key must have the template's implementation. No leaf is weakly typed.

    Args:
        template: a tree of arrays of JAX or numpy, `jax.ShapeDtypeStruct`, numbers and str.
        stored: leaves by name, as `named_leaves` returned them before they were saved.
        partial: keep the template's leaf where nothing fits, instead of raising.
        rename: the template's name for a stored one, or for the beginning of several: `{"['old']": "['new']"}`.

    Raises:
        StateMismatchError: naming each leaf that is missing, unexpected, or of another shape, dtype or type.
        UnknownNameError: `rename` names nothing that is stored.

    Example:
        >>> template = {"w": jnp.zeros(2), "b": jnp.zeros(3)}
        >>> stored = {"['w']": np.ones(2, np.float32), "['b']": np.ones(4, np.float32)}
        >>> tree, report = match(template, stored, partial=True)
        >>> tree
        {'b': Array([0., 0., 0.], dtype=float32), 'w': Array([1., 1.], dtype=float32)}
        >>> report.different
        {"['b']": 'expected float32[3], stored is float32[4]'}
    """
    wanted = named_leaves(template)
    found = _renamed(stored, rename or {})
    different = {
        name: difference for name in wanted if name in found and (difference := _difference(wanted[name], found[name]))
    }
    report = MatchReport(
        taken=tuple(name for name in wanted if name in found and name not in different),
        missing=tuple(name for name in wanted if name not in found),
        different=different,
        unexpected=tuple(name for name in found if name not in wanted),
    )
    if report.differences and not partial:
        raise StateMismatchError(report.differences)
    taken = set(report.taken)
    leaves = [_placed(found[name], leaf) if name in taken else leaf for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), report


def _renamed(stored: Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    unused = set(rename)
    renamed: dict[str, Any] = {}
    for name, leaf in stored.items():
        fitting = [old for old in rename if name == old or name.startswith((f"{old}[", f"{old}."))]
        new = name
        if fitting:
            old = max(fitting, key=len)
            unused.discard(old)
            new = rename[old] + name[len(old) :]
        if new in renamed:
            raise InvalidValueError("match(rename)", dict(rename), "distinct names", f"two leaves would be {new}")
        renamed[new] = leaf
    if unused:
        raise UnknownNameError("stored leaf", min(unused), stored, "match(rename)")
    return renamed


def _difference(wanted: Any, found: Any) -> str | None:
    want, got = _form(wanted), _form(found)
    return None if want == got else f"expected {want}, stored is {got}"


def _form(leaf: Any) -> str:
    """Return what must be equal of two leaves, in words."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    kind = type(cast(object, leaf))
    return kind.__name__ if kind in PYTHON_LEAVES else f"{kind.__qualname__}, which cannot be stored"


def _placed(found: Any, like: Any) -> Any:
    """Return a stored leaf as the template's leaf is: in its place, and of its class."""
    if isinstance(like, PYTHON_LEAVES) and not isinstance(like, np.generic):
        return found
    if isinstance(like, np.ndarray | np.generic):
        array = np.array(found)
        return array if isinstance(like, np.ndarray) else array[()]
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        copy = jnp.array(jax.random.key_data(found))
        return _on_device(jax.random.wrap_key_data(copy, impl=jax.random.key_impl(found)), like)
    return _on_device(np.asarray(found), like)


def _on_device(array: Any, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    is_committed = like.sharding is not None and (isinstance(like, jax.ShapeDtypeStruct) or like.committed)
    if is_committed:
        return jax.device_put(array, like.sharding, may_alias=False)
    return jnp.array(array)
