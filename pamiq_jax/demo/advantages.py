"""Generalized advantage estimation over a rollout whose episodes start anew by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def generalized_advantages(
    rollout: Mapping[str, Any], values: jax.Array, discount: float, gae_lambda: float
) -> jax.Array:
    """Return advantages `[T, N]` (Schulman et al. 2016, arXiv:1506.02438).

    The observation after an episode's last step is its true last one. So a truncated episode is continued by
    that observation's value, a terminated one by 0, and the sum ends at both. Rows with `autoreset` belong to
    no episode: nothing before them looks at them, and a loss must leave them out.

    Args:
        rollout: "reward" `[T, N]` float32, "terminated" and "truncated" `[T, N]` bool.
        values: `[T + 1, N]`, of the observations before each step and after the last.
        discount: of the reward one step later.
        gae_lambda: between one-step (0) and whole-episode (1) estimates.

    Example:
        >>> flags = jnp.zeros((2, 1), bool)
        >>> rollout = {"reward": jnp.ones((2, 1)), "terminated": flags.at[1].set(True), "truncated": flags}
        >>> generalized_advantages(rollout, jnp.zeros((3, 1)), discount=0.5, gae_lambda=1.0).ravel().tolist()
        [1.5, 1.0]
    """
    following_values = jnp.where(rollout["terminated"], 0.0, values[1:])
    deltas = rollout["reward"] + discount * following_values - values[:-1]
    decays = jnp.where(rollout["terminated"] | rollout["truncated"], 0.0, discount * gae_lambda)

    def backward(following: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = row
        advantage = delta + decay * following
        return advantage, advantage

    return jax.lax.scan(backward, jnp.zeros_like(values[0]), (deltas, decays), reverse=True)[1]
