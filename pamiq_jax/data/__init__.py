"""Where records go: a collector between the threads, and buffers as pure functions."""

from pamiq_jax.data.buffer import Buffer, Chunk, Placement, Record, buffer_bytes, record_spec, to_device
from pamiq_jax.data.collector import Collector, CollectorCounts, Overflow
from pamiq_jax.data.permutation import permuted_index
from pamiq_jax.data.ring import RingState, Sampling, ring_buffer

__all__ = [
    "Buffer",
    "Chunk",
    "Collector",
    "CollectorCounts",
    "Overflow",
    "Placement",
    "Record",
    "RingState",
    "Sampling",
    "buffer_bytes",
    "permuted_index",
    "record_spec",
    "ring_buffer",
    "to_device",
]
