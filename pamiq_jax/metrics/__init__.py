"""Metrics that can be merged."""

from pamiq_jax.metrics.histogram import LatencyHistogram

__all__ = ["LatencyHistogram"]
