"""Gymnasium, or an error that says how to get it."""

from __future__ import annotations

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        "pamiq_jax.envs needs gymnasium, which is not installed; install it with: pip install 'pamiq-jax[gymnasium]'",
        name="gymnasium",
    ) from error

__all__ = ["gymnasium"]
