"""Environments: Gymnasium's, those written in JAX, iterators, and those put together from sensors and actuators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.envs.episodes import EpisodeStatistics
    from pamiq_jax.envs.gymnasium import GymnasiumEnvironment, GymnasiumVectorEnvironment
    from pamiq_jax.envs.jax_environment import JaxEnvironment, JaxWorld
    from pamiq_jax.envs.modular import Actuator, ModularEnvironment, Sensor, map_actuator, map_sensor
    from pamiq_jax.envs.state import EnvironmentState, python_state, state_of
    from pamiq_jax.envs.stream import IteratorEnvironment, MakeFn, ResumableIterator, iterator_source
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "episodes": "EpisodeStatistics",
            "gymnasium": "GymnasiumEnvironment GymnasiumVectorEnvironment",  # a robot needs no Gymnasium
            "jax_environment": "JaxEnvironment JaxWorld",
            "modular": "Actuator ModularEnvironment Sensor map_actuator map_sensor",
            "state": "EnvironmentState python_state state_of",
            "stream": "IteratorEnvironment MakeFn ResumableIterator iterator_source",
        },
    )

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
