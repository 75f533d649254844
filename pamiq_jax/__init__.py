"""Agents that learn while they act: trainers as pure JAX functions over immutable state."""

__version__ = "0.1.0"
