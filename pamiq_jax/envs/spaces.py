"""Gymnasium spaces as pytrees: what values of a space look like, and the way there and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from pamiq_jax.envs.require import gymnasium
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.types import PyTree

_spaces = gymnasium.spaces
_ARRAYS = (_spaces.Box, _spaces.Discrete, _spaces.MultiDiscrete, _spaces.MultiBinary)

type Space = gymnasium.spaces.Space[Any]
"""Any space of Gymnasium."""


def space_spec(space: Space, name: str) -> PyTree:
    """Return what values of a space look like: `jax.ShapeDtypeStruct`s in dicts and tuples.

    Dtypes are those that JAX computes with: `Discrete` is `int32[]`, a `Box` of float64 is float32.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of such, nested as you like.
        name: what to call it in an error.

    Raises:
        InvalidValueError: a space whose values are not arrays of a fixed shape, that has no part, or that counts from
            another number than 0: an agent would act in it, off by that number, without an error.

    Example:
        >>> space_spec(gymnasium.spaces.Dict(position=gymnasium.spaces.Discrete(3)), "observation_space")
        {'position': ShapeDtypeStruct(shape=(), dtype=int32)}
    """
    if isinstance(space, _spaces.Dict | _spaces.Tuple) and not space.spaces:
        raise InvalidValueError(name, space, "a Dict or Tuple of at least one space", "leave it out, or give it a part")
    if isinstance(space, _spaces.Dict):
        return {key: space_spec(part, f"{name}[{key!r}]") for key, part in space.spaces.items()}
    if isinstance(space, _spaces.Tuple):
        return tuple(space_spec(part, f"{name}[{index}]") for index, part in enumerate(space.spaces))
    if not isinstance(space, _ARRAYS):
        raise InvalidValueError(
            name,
            space,
            "a Box, Discrete, MultiDiscrete or MultiBinary space, or a Dict or Tuple of them",
            "wrap the environment so that its values are arrays of a fixed shape "
            "(gymnasium.wrappers.TransformObservation, TransformAction, FlattenObservation)",
        )
    if np.any(getattr(space, "start", 0)):
        kind, value = ("Observation", "seen - start") if "observation" in name else ("Action", "action + start")
        wrapper = f"Transform{kind}(environment, lambda {value.split()[0]}: {value}, space from 0)"
        expected = "a space that counts from 0, as one-hot codes and an agent's argmax do"
        raise InvalidValueError(name, space, expected, f"wrap the environment: gymnasium.wrappers.{wrapper}")
    return jax.ShapeDtypeStruct(space.shape or (), jax.dtypes.canonicalize_dtype(space.dtype))


def from_space(space: Space, value: Any) -> PyTree:
    """Return a value of a space as numpy arrays in plain dicts and tuples.

    An array that has the right dtype already is not copied.

    Args:
        space: one that `space_spec` accepts.
        value: what an environment gave.

    Example:
        >>> from_space(gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)]), (2,))
        (array(2, dtype=int32),)
    """
    if isinstance(space, _spaces.Dict):
        return {key: from_space(part, value[key]) for key, part in space.spaces.items()}
    if isinstance(space, _spaces.Tuple):
        return tuple(from_space(part, item) for part, item in zip(space.spaces, value, strict=True))
    return np.asarray(value, jax.dtypes.canonicalize_dtype(space.dtype))


def to_space(space: Space, value: PyTree) -> Any:
    """Return arrays as the value of a space that an environment expects; undoes `from_space`.

    Args:
        space: one that `space_spec` accepts.
        value: arrays of the form that `space_spec` says.

    Example:
        >>> to_space(gymnasium.spaces.Discrete(3), np.array(2, np.int32))
        np.int64(2)
    """
    if isinstance(space, _spaces.Dict):
        return {key: to_space(part, cast(Mapping[str, Any], value)[key]) for key, part in space.spaces.items()}
    if isinstance(space, _spaces.Tuple):
        return tuple(to_space(part, item) for part, item in zip(space.spaces, value, strict=True))
    array = np.asarray(value, space.dtype)
    return array[()] if isinstance(space, _spaces.Discrete) else array
