"""Time to publish parameters that are ready: it must not grow with their size.

A run looks through them before, on the training thread: the agent goes on with the snapshot that it has. That reads
each number once, and is given beside (`check_finite`).

Beside it: over the number of leaves, a jitted copy, a queue of parameters as Stoix's Sebulba systems hand them to their
actors (https://github.com/EdanToledo/Stoix), and pamiq-core.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from benchmarks.peers import peer
from pamiq_jax.publishing import check_finite

LEAVES = (10, 100, 1_000)
RUNS = 5


def _params(count: int, leaves: int = LEAVES[0]) -> dict[str, dict[str, jax.Array]]:
    return {"model": {f"leaf{index}": jnp.ones(count // leaves) for index in range(leaves)}}


def _publisher(params: dict[str, dict[str, jax.Array]]) -> Callable[[], None]:
    """Return what publishes one of two results of one program, as a trainer's are, never the one that is published."""
    program = jax.jit(lambda params: jax.tree.map(jnp.copy, params)).lower(params).compile()
    store, others = pj.SnapshotStore(params), itertools.cycle(jax.block_until_ready([program(params), program(params)]))
    return lambda: _publish_next(store, others)


def _queued(params: dict[str, dict[str, jax.Array]]) -> Callable[[], None]:
    """Return what hands parameters to one actor by a queue that holds the newest, each time to its device."""
    newest: queue.Queue[Any] = queue.Queue(maxsize=1)
    device = jax.devices()[0]

    def put() -> None:
        ready = jax.block_until_ready(jax.device_put(params, device))
        with contextlib.suppress(queue.Empty):
            newest.get_nowait()
        newest.put(ready)

    return put


def _by_leaves(of: Callable[[Any], Callable[[], None]]) -> dict[str, float]:
    """Return microseconds for a million parameters, by the number of leaves."""
    acts = {leaves: of(jax.block_until_ready(_params(10**6, leaves))) for leaves in LEAVES}
    seconds: dict[int, list[float]] = {leaves: [] for leaves in LEAVES}
    for _, leaves in itertools.product(range(RUNS + 1), LEAVES):
        seconds[leaves].append(_seconds_each(acts[leaves], 50))
    return {str(leaves): round(1e6 * statistics.median(found[1:]), 1) for leaves, found in seconds.items()}


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row whose ratio is the slowest over the fastest publication, over sizes of 10 leaves."""
    sizes = [10**exponent for exponent in range(4, 8 if quick else 9)]
    copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))
    ours: dict[int, list[float]] = {size: [] for size in sizes}
    copies: dict[int, list[float]] = {size: [] for size in sizes}
    checks: dict[str, float] = {}
    for size in sizes:
        params = jax.block_until_ready(_params(size))
        jax.block_until_ready(copy(params))
        check_finite(params)
        checks[str(size)] = round(
            1e6 * statistics.median(_seconds_each(lambda p=params: check_finite(p), 1) for _ in range(RUNS)), 1
        )
        publish = _publisher(params)
        _seconds_each(publish, 10)
        for _ in range(RUNS):
            ours[size].append(_seconds_each(publish, 200))
            copies[size].append(_seconds_each(lambda params=params: jax.block_until_ready(copy(params)), 2))
    medians = {size: sorted(times)[RUNS // 2] * 1e6 for size, times in ours.items()}
    slowest, fastest = max(medians, key=lambda size: medians[size]), min(medians, key=lambda size: medians[size])
    comparison = Comparison([1e6 * seconds for seconds in ours[slowest]], [1e6 * seconds for seconds in ours[fastest]])
    largest_copy = sorted(copies[sizes[-1]])[RUNS // 2] * 1e6
    more: dict[str, object] = {
        "microseconds_by_size": {str(size): round(value, 1) for size, value in medians.items()},
        "check_finite_microseconds_by_size": checks,
        "microseconds_by_leaves": _by_leaves(_publisher),
        "queue_of_params_microseconds_by_leaves": _by_leaves(_queued),
        "jitted_copy_of_largest_us": round(largest_copy, 1),
        "faster_than_copy_of_largest": round(largest_copy / medians[sizes[-1]], 1),
    }
    with peer("pamiq_core", "publish", sizes[-1]) as pamiq_core:
        if pamiq_core is not None:
            syncs = [pamiq_core.measure() for _ in range(RUNS)]
            more["pamiq_core_sync_of_largest_us"] = statistics.median(syncs)
            more["vs_pamiq_core"] = statistics.median(syncs) / medians[sizes[-1]]
            more["vs_pamiq_core_goal"] = ">= 2,000"
    name = f"the fastest size, {fastest} parameters (ours: the slowest, {slowest})"
    return [report("publish", comparison, reference_name=name, unit="us", goal="<= 3", more=more)]


def _publish_next(store: pj.SnapshotStore, others: Iterator[Any]) -> None:
    store.publish(next(others), step=0)


def _seconds_each(function: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - started) / repeats
