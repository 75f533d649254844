"""Records a second from an on-device ring, uniform and prioritized. The reference is flashbax, if peers are installed.

Else it is written out here: an index and a gather for the ring, and a sum tree for priorities. A program draws many
batches, as a chunk of training steps does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from benchmarks.peers import peer
from benchmarks.peers.sampled import BATCH, BATCHES, CAPACITY, record, records


def records_per_second(draw: Callable[[jax.Array], Any], programs: int) -> float:
    """Return the rate at which a compiled `(key) -> batches` gives records."""
    keys = list(jax.random.split(jax.random.key(2), programs))
    jax.block_until_ready(draw(keys[0]))
    started = time.perf_counter()
    for key in keys:
        jax.block_until_ready(draw(key))
    return programs * BATCHES * BATCH / (time.perf_counter() - started)


def _ours(buffer: pj.Buffer[Any, Any, Any], priorities: np.ndarray[Any, Any] | None) -> Callable[[jax.Array], Any]:
    add = jax.jit(buffer.add, donate_argnums=0)
    state = add(buffer.init(record()), records(), CAPACITY)
    if priorities is not None and buffer.update is not None:
        state = jax.jit(buffer.update)(state, jnp.arange(CAPACITY), priorities)

    @jax.jit
    def draw(state: Any, key: jax.Array) -> Any:
        return jax.lax.map(lambda position: buffer.sample(state, BATCH, position, key), jnp.arange(BATCHES))

    return lambda key: draw(state, key)


def _ring_by_hand() -> Callable[[jax.Array], Any]:
    stored = jax.tree.map(jnp.array, records())

    @jax.jit
    def draw(stored: Any, key: jax.Array) -> Any:
        def sample(key: jax.Array) -> Any:
            indices = jax.random.randint(key, (BATCH,), 0, CAPACITY)
            return jax.tree.map(lambda column: column[indices], stored)

        return jax.lax.map(sample, jax.random.split(key, BATCHES))

    return lambda key: draw(stored, key)


def _tree_by_hand(priorities: np.ndarray[Any, Any]) -> Callable[[jax.Array], Any]:
    leaves = 1 << (CAPACITY - 1).bit_length()
    levels = [jnp.zeros(leaves).at[:CAPACITY].set(priorities**0.6)]
    while levels[-1].size > 1:
        levels.append(levels[-1].reshape(-1, 2).sum(axis=1))
    sums = jnp.concatenate([jnp.zeros(1), *reversed(levels)])
    stored = jax.tree.map(jnp.array, records())

    @jax.jit
    def draw(stored: Any, sums: jax.Array, key: jax.Array) -> Any:
        def sample(key: jax.Array) -> Any:
            points = jax.random.uniform(key, (BATCH,)) * sums[1]
            nodes = jnp.ones(BATCH, jnp.int32)

            def descend(_: int, place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                nodes, points = place
                left = sums[2 * nodes]
                goes_right = points >= left
                return 2 * nodes + goes_right, jnp.where(goes_right, points - left, points)

            nodes, _ = jax.lax.fori_loop(0, leaves.bit_length() - 1, descend, (nodes, points))
            indices = nodes - leaves
            return jax.tree.map(lambda column: column[indices], stored), indices, sums[nodes] / sums[1]

        return jax.lax.map(sample, jax.random.split(key, BATCHES))

    return lambda key: draw(stored, sums, key)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for the uniform ring, and one for the prioritized one."""
    programs = 20 if quick else 200
    priorities = np.random.default_rng(3).uniform(0.1, 10, CAPACITY).astype(np.float32)
    cases = {
        "ring": (_ours(pj.ring_buffer(CAPACITY), None), _ring_by_hand()),
        "prioritized": (_ours(pj.prioritized_buffer(CAPACITY), priorities), _tree_by_hand(priorities)),
    }
    rows: list[dict[str, object]] = []
    for name, (ours, by_hand) in cases.items():
        hand = alternate(
            lambda ours=ours: records_per_second(ours, programs),
            lambda by_hand=by_hand: records_per_second(by_hand, programs),
            runs=5,
        )
        more: dict[str, object] = {"batch_size": BATCH, "batches_a_program": BATCHES, "capacity": CAPACITY}
        comparison, reference = hand, "written out, uniform ring" if name == "ring" else "written out, sum tree"
        with peer("flashbax", name, programs) as flashbax:
            if flashbax is not None:
                comparison = alternate(lambda ours=ours: records_per_second(ours, programs), flashbax.measure, runs=5)
                reference = "flashbax, an item buffer"
                by_hand_ratio = np.median(hand.ours) / np.median(hand.reference)
                more["vs_written_out"] = float(by_hand_ratio)
                more["vs_flashbax"] = float(np.median(comparison.ours) / np.median(comparison.reference))
        rows.append(
            report(f"sample: {name}", comparison, reference_name=reference, unit="records/s", goal=">= 1", more=more)
        )
    return rows
