"""flashbax draws: `python -m benchmarks.peers.flashbax ring|prioritized PROGRAMS`."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import flashbax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.answer import answer
from benchmarks.peers.sampled import BATCH, BATCHES, CAPACITY, record, records


def main(kind: str, programs: int) -> None:
    """Answer with records a second."""
    warnings.simplefilter("ignore")  # about item buffers that hold one record less
    sizes: dict[str, Any] = {"max_length": CAPACITY, "min_length": 1, "sample_batch_size": BATCH, "add_batches": True}
    if kind == "ring":
        buffer = flashbax.make_item_buffer(**sizes)
    else:
        buffer = flashbax.make_prioritised_item_buffer(**sizes, priority_exponent=0.6, device="cpu")
    state = jax.jit(buffer.add, donate_argnums=0)(buffer.init(record()), records())
    if kind == "prioritized":
        priorities = np.random.default_rng(3).uniform(0.1, 10, CAPACITY).astype(np.float32)
        state = jax.jit(buffer.set_priorities)(state, jnp.arange(CAPACITY), priorities)

    @jax.jit
    def draw(state: Any, key: jax.Array) -> Any:
        return jax.lax.map(lambda key: buffer.sample(state, key), jax.random.split(key, BATCHES))

    keys = list(jax.random.split(jax.random.key(2), programs))

    def records_per_second() -> float:
        started = time.perf_counter()
        for key in keys:
            jax.block_until_ready(draw(state, key))
        return programs * BATCHES * BATCH / (time.perf_counter() - started)

    answer(records_per_second)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
