"""Where records go: a collector between the threads, and buffers as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.data.buffer import Buffer, Chunk, Placement, Record, buffer_bytes, record_of
    from pamiq_jax.data.collector import Collector, CollectorCounts, Overflow
    from pamiq_jax.data.describe import describe_buffer
    from pamiq_jax.data.mix import MixFn, mix_samples, mixed_buffer
    from pamiq_jax.data.prioritized import PrioritizedState, prioritized_buffer
    from pamiq_jax.data.prioritized_batch import PrioritizedBatch
    from pamiq_jax.data.reservoir import ReservoirState, reservoir_buffer
    from pamiq_jax.data.ring import RingState, Sampling, ring_buffer
    from pamiq_jax.data.rollout import rollout_buffer
    from pamiq_jax.data.sequence import BorderFn, SequenceState, sequence_buffer
    from pamiq_jax.data.source import array_source
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "buffer": "Buffer Chunk Placement Record buffer_bytes record_of",
            "collector": "Collector CollectorCounts Overflow",
            "describe": "describe_buffer",
            "mix": "MixFn mix_samples mixed_buffer",
            "prioritized": "PrioritizedState prioritized_buffer",
            "prioritized_batch": "PrioritizedBatch",
            "reservoir": "ReservoirState reservoir_buffer",
            "ring": "RingState Sampling ring_buffer",
            "rollout": "rollout_buffer",
            "sequence": "BorderFn SequenceState sequence_buffer",
            "source": "array_source",
        },
    )

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
