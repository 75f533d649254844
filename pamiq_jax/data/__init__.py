"""Where records go: a collector between the threads, and buffers as pure functions."""

from pamiq_jax.data.buffer import Buffer, Chunk, Placement, Record, buffer_bytes, record_of
from pamiq_jax.data.collector import Collector, CollectorCounts, Overflow
from pamiq_jax.data.describe import describe_buffer
from pamiq_jax.data.mix import MixFn, mix_samples, mixed_buffer
from pamiq_jax.data.prioritized import PrioritizedBatch, PrioritizedState, prioritized_buffer
from pamiq_jax.data.reservoir import ReservoirState, reservoir_buffer
from pamiq_jax.data.ring import RingState, Sampling, ring_buffer
from pamiq_jax.data.rollout import rollout_buffer
from pamiq_jax.data.sequence import BorderFn, SequenceState, sequence_buffer
from pamiq_jax.data.source import array_source

__all__ = [
    "BorderFn",
    "Buffer",
    "Chunk",
    "Collector",
    "CollectorCounts",
    "MixFn",
    "Overflow",
    "Placement",
    "PrioritizedBatch",
    "PrioritizedState",
    "Record",
    "ReservoirState",
    "RingState",
    "Sampling",
    "SequenceState",
    "array_source",
    "buffer_bytes",
    "describe_buffer",
    "mix_samples",
    "mixed_buffer",
    "prioritized_buffer",
    "record_of",
    "reservoir_buffer",
    "ring_buffer",
    "rollout_buffer",
    "sequence_buffer",
]
