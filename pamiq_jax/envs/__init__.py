"""Environments: Gymnasium's, those written in JAX, iterators, and those put together from sensors and actuators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pamiq_jax.envs.episodes import EpisodeStatistics
from pamiq_jax.envs.jax_environment import JaxEnvironment, JaxWorld
from pamiq_jax.envs.modular import Actuator, ModularEnvironment, Sensor, map_actuator, map_sensor
from pamiq_jax.envs.stream import IteratorEnvironment, MakeFn, ResumableIterator, iterator_source

if TYPE_CHECKING:
    from pamiq_jax.envs.gymnasium import GymnasiumEnvironment, GymnasiumVectorEnvironment
    from pamiq_jax.envs.state import EnvironmentState, python_state, state_of

__all__ = [
    "Actuator",
    "EnvironmentState",
    "EpisodeStatistics",
    "GymnasiumEnvironment",
    "GymnasiumVectorEnvironment",
    "IteratorEnvironment",
    "JaxEnvironment",
    "JaxWorld",
    "MakeFn",
    "ModularEnvironment",
    "ResumableIterator",
    "Sensor",
    "iterator_source",
    "map_actuator",
    "map_sensor",
    "python_state",
    "state_of",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a robot needs no Gymnasium.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "gymnasium" if name.startswith("Gymnasium") else "state"
    return getattr(importlib.import_module(f"pamiq_jax.envs.{module}"), name)
