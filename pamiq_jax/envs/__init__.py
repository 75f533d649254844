"""Environments: Gymnasium's, and those put together from sensors and actuators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pamiq_jax.envs.episodes import EpisodeStatistics
from pamiq_jax.envs.modular import Actuator, ModularEnvironment, Sensor, map_actuator, map_sensor

if TYPE_CHECKING:
    from pamiq_jax.envs.gymnasium import GymnasiumEnvironment, GymnasiumVectorEnvironment

__all__ = [
    "Actuator",
    "EpisodeStatistics",
    "GymnasiumEnvironment",
    "GymnasiumVectorEnvironment",
    "ModularEnvironment",
    "Sensor",
    "map_actuator",
    "map_sensor",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a robot needs no Gymnasium.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pamiq_jax.envs.gymnasium"), name)
