"""The state of Gymnasium environments, as plain values that can be saved."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from pamiq_jax.envs.require import gymnasium
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.types import PyTree

_PURE_PYTHON = ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text")
_GENERATOR, _SCALAR, _QUEUE, _OBJECT = "numpy bit generator", "numpy scalar", "deque", "attributes of an object"
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, np.ufunc, partial)
_STATIC_TYPES = (*_FUNCTIONS, types.ModuleType, type, np.dtype)
_NOT_SAVED = ("env", "envs", "spec", "_cached_spec")
_STATIC_NAMES = (*_NOT_SAVED, "_saved_kwargs", "_metadata", "_previous_data")
"""What a wrapper was built from, and what `PassiveEnvChecker` compares with, which no observation depends on."""


class EnvironmentState(NamedTuple):
    """How the state of an environment is saved and loaded.

    Attributes:
        save: `(environment) -> state`: dicts, lists and tuples of arrays, numbers, str and None.
        load: `(environment, state)`, on an environment that has been reset.

    Example:
        >>> from types import SimpleNamespace
        >>> by_attribute = EnvironmentState(lambda env: env.seconds, lambda env, state: setattr(env, "seconds", state))
        >>> by_attribute.save(SimpleNamespace(seconds=3))
        3
    """

    save: Callable[[Any], PyTree]
    load: Callable[[Any, PyTree], None]


def state_of(environment: Any) -> EnvironmentState | None:
    """Return how an environment's state is saved, or None if it is not known.

    It is known for Gymnasium's own environments in pure Python (`classic_control`, `toy_text`), in any of
    Gymnasium's wrappers, in a `SyncVectorEnv`, and for those of them that are vector environments by themselves.
    It is not known in a wrapper that keeps something else than plain values, deques of them, objects whose attributes
    are plain values (as the running statistics of `NormalizeObservation`), spaces and functions.

    Args:
        environment: an environment or a vector environment.

    Example:
        >>> state_of(gymnasium.make("CartPole-v1")) is python_state
        True
    """
    is_whole = isinstance(environment, gymnasium.vector.VectorEnv) and _is_pure_python(environment)
    members = _members(environment)
    is_plain = is_whole or (bool(members) and all(_is_known(one) for one in members))
    return python_state if is_plain else None


def _is_known(environment: Any) -> bool:
    *wrappers, inner = _levels(environment)
    return _is_pure_python(inner) and not any(_unknown(wrapper) for wrapper in wrappers)


def _unknown(wrapper: Any) -> list[str]:
    """Return the names of a wrapper's attributes that are neither saved nor known to stay as they are."""
    others = {name: value for name, value in vars(wrapper).items() if name not in _STATIC_NAMES}
    return [name for name, value in others.items() if not _is_static(value) and _stateful(value) is _NOT_PLAIN]


def _is_static(value: Any) -> bool:
    return isinstance(value, (gymnasium.Space, *_STATIC_TYPES))


def _is_pure_python(environment: Any) -> bool:
    return type(environment).__module__.startswith(_PURE_PYTHON)


def _members(environment: Any) -> list[Any]:
    if isinstance(environment, gymnasium.vector.SyncVectorEnv):
        return list(environment.envs)
    return [environment] if isinstance(environment, gymnasium.Env) else []


def _levels(environment: Any) -> list[Any]:
    """Return an environment with all that it wraps, the outermost first."""
    levels = [environment]
    while isinstance(levels[-1], gymnasium.Wrapper):
        levels.append(levels[-1].env)
    return levels


def _save(environment: Any) -> dict[str, Any] | None:
    wrappers = [level for member in _members(environment) for level in _levels(member)[:-1]]
    if any(_unknown(wrapper) for wrapper in wrappers):  # one has come to hold something else since it was made
        return None
    own: list[Any] = [environment] if isinstance(environment, gymnasium.vector.VectorEnv) else []
    return {
        "vector": [_attributes(one) for one in own],
        "members": [[_attributes(level) for level in _levels(member)] for member in _members(environment)],
    }


def _load(environment: Any, state: PyTree) -> None:
    members, own = _members(environment), [environment] * len(state["vector"])
    if [len(_levels(member)) for member in members] != [len(levels) for levels in state["members"]]:
        expected = f"{len(state['members'])} environments in as many wrappers as were saved"
        raise InvalidValueError("load_state(environment)", str(environment), expected)
    for one, attributes in zip(own, state["vector"], strict=True):
        _set_attributes(one, attributes)
    for member, levels in zip(members, state["members"], strict=True):
        for level, attributes in zip(_levels(member), levels, strict=True):
            _set_attributes(level, attributes)


def _attributes(level: Any) -> dict[str, Any]:
    """Return the attributes of an object that can be saved; the others are what it was built from."""
    found = {name: _stateful(value) for name, value in vars(level).items() if name not in _NOT_SAVED}
    return {name: value for name, value in found.items() if value is not _NOT_PLAIN}


def _set_attributes(level: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if isinstance(value, Mapping) and _GENERATOR in value:
            getattr(level, name).bit_generator.state = value[_GENERATOR]
        elif isinstance(value, Mapping) and _QUEUE in value:
            queue = getattr(level, name)  # in place: it has a length that is not saved
            queue.clear()
            queue.extend(_copy(value[_QUEUE]))
        elif isinstance(value, Mapping) and _OBJECT in value:
            _set_attributes(getattr(level, name), cast(Mapping[str, Any], value[_OBJECT]))
        else:
            setattr(level, name, _copy(value))


_NOT_PLAIN = object()


def _stateful(value: Any) -> Any:
    """Return a copy of a plain value, of a deque of them or of an object's attributes, or `_NOT_PLAIN`."""
    if type(value) is deque:
        parts = _plain(list(cast(Any, value)))
        return _NOT_PLAIN if parts is _NOT_PLAIN else {_QUEUE: parts}
    if (plain := _plain_or_generator(value)) is not _NOT_PLAIN or _is_static(value) or not _is_object(value):
        return plain
    attributes = {name: _plain_or_generator(part) for name, part in vars(value).items()}
    return _NOT_PLAIN if any(part is _NOT_PLAIN for part in attributes.values()) else {_OBJECT: attributes}


def _plain_or_generator(value: Any) -> Any:
    """Return what `_plain` does; a generator is loaded in place, so it can be an attribute only, not part of a list."""
    return {_GENERATOR: value.bit_generator.state} if isinstance(value, np.random.Generator) else _plain(value)


def _is_object(value: Any) -> bool:
    """Return whether all that an instance of a Python class holds is in its attributes."""
    return hasattr(value, "__dict__") and type(value).__basicsize__ == _Empty.__basicsize__


class _Empty:
    pass


def _plain(value: Any) -> Any:
    """Return a copy of a plain value, or `_NOT_PLAIN`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value)
        if array.dtype.kind not in "biufc":
            return _NOT_PLAIN
        return array if isinstance(value, np.ndarray) else {_SCALAR: array}
    if type(value) in (list, tuple):
        parts = [_plain(part) for part in cast(list[Any], value)]
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else type(value)(parts)
    if type(value) is dict:
        items = {key: _plain(part) for key, part in cast(dict[Any, Any], value).items()}
        is_plain = all(type(key) is str and part is not _NOT_PLAIN for key, part in items.items())
        return items if is_plain else _NOT_PLAIN
    return _NOT_PLAIN


def _copy(value: Any) -> Any:
    """Return a value that the environment may write into."""
    if isinstance(value, np.ndarray):
        return np.array(value)
    if type(value) in (list, tuple):
        return type(value)(_copy(part) for part in value)
    if type(value) is dict:
        parts = cast(dict[str, Any], value)
        return parts[_SCALAR][()] if _SCALAR in parts else {key: _copy(part) for key, part in parts.items()}
    return value


python_state = EnvironmentState(_save, _load)
"""Saves all attributes that `state_of` says it can, of an environment in pure Python and of what wraps it."""
