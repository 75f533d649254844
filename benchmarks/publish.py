"""Time to publish parameters that are ready: it must not grow with their size. The reference copies them."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from benchmarks.peers import peer

LEAVES = 10


def _params(count: int) -> dict[str, dict[str, jax.Array]]:
    return {"model": {f"leaf{index}": jnp.ones(count // LEAVES) for index in range(LEAVES)}}


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row whose ratio is the slowest over the fastest publication, over sizes of 10 leaves."""
    sizes = [10**exponent for exponent in range(4, 8 if quick else 9)]
    runs = 5
    copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))
    ours: dict[int, list[float]] = {size: [] for size in sizes}
    copies: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        params = jax.block_until_ready(_params(size))
        store = pj.SnapshotStore(params)
        jax.block_until_ready(copy(params))
        others = itertools.cycle([params, jax.block_until_ready(copy(params))])  # never what is published already
        publish = functools.partial(_publish_next, store, others)
        for _ in range(runs):
            ours[size].append(_seconds_each(publish, 200))
            copies[size].append(_seconds_each(lambda params=params: jax.block_until_ready(copy(params)), 2))
    medians = {size: sorted(times)[runs // 2] * 1e6 for size, times in ours.items()}
    slowest, fastest = max(medians, key=lambda size: medians[size]), min(medians, key=lambda size: medians[size])
    comparison = Comparison([1e6 * seconds for seconds in ours[slowest]], [1e6 * seconds for seconds in ours[fastest]])
    largest_copy = sorted(copies[sizes[-1]])[runs // 2] * 1e6
    more: dict[str, object] = {
        "microseconds_by_size": {str(size): round(value, 1) for size, value in medians.items()},
        "jitted_copy_of_largest_us": round(largest_copy, 1),
        "faster_than_copy_of_largest": round(largest_copy / medians[sizes[-1]], 1),
    }
    with peer("pamiq_core", "publish", sizes[-1]) as pamiq_core:
        if pamiq_core is not None:
            syncs = [pamiq_core.measure() for _ in range(runs)]
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
