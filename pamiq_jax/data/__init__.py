"""Where records go: a collector between the threads, and buffers as pure functions."""

from pamiq_jax.data.buffer import AddFn, Buffer, InitFn, Placement, RequiredFn, SampleFn, SizeFn, buffer_bytes
from pamiq_jax.data.chunk import Chunk, to_device
from pamiq_jax.data.collector import Collector, CollectorCounts, Overflow
from pamiq_jax.data.permutation import permuted_index
from pamiq_jax.data.record import Record, record_spec
from pamiq_jax.data.ring import RingState, ring_buffer
from pamiq_jax.data.sampling import Sampling

__all__ = [
    "AddFn",
    "Buffer",
    "Chunk",
    "Collector",
    "CollectorCounts",
    "InitFn",
    "Overflow",
    "Placement",
    "Record",
    "RequiredFn",
    "RingState",
    "SampleFn",
    "Sampling",
    "SizeFn",
    "buffer_bytes",
    "permuted_index",
    "record_spec",
    "ring_buffer",
    "to_device",
]
