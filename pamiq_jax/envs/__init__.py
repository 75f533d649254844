"""Environments from elsewhere, made into what a system acts in."""

from pamiq_jax.envs.episodes import EpisodeStatistics
from pamiq_jax.envs.gymnasium import GymnasiumEnvironment, GymnasiumVectorEnvironment

__all__ = ["EpisodeStatistics", "GymnasiumEnvironment", "GymnasiumVectorEnvironment"]
