"""Metrics that can be merged."""

from pamiq_jax.metrics.histogram import LatencyCounter, LatencyHistogram

__all__ = ["LatencyCounter", "LatencyHistogram"]
