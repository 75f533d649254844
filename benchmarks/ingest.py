"""What a record costs on its way from the agent to the device.

`collect()` copies the record; the reference is pamiq-core's, which keeps a reference and copies nothing. Then draining
to the device, against its update, `get_data` and stack, which it does with all that its buffer holds, here 10,000
records of which 4,096 are new; with those alone it would take half as long. And images, against the copy that `memcpy`
makes. Where peers are not installed, what a few lines of numpy do instead takes pamiq-core's place.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from benchmarks.peers import peer
from pamiq_jax.data import Collector
from pamiq_jax.data.buffer import record_of

WAITING, BUFFERED, CHUNK = 4096, 10_000, 256
IMAGE = (64, 64, 3)


def _record() -> dict[str, Any]:
    source = np.random.default_rng(0)
    return {
        "observation": source.standard_normal(64, np.float32),
        "action": source.standard_normal(4, np.float32),
        "reward": np.array(0.5, np.float32),
        "done": np.array(False),
    }


def _each_us(started: float, records: int) -> float:
    return 1e6 * (time.perf_counter() - started) / records


def _filled(example: Any, records: int) -> tuple[Collector[Any], float]:
    """Return a collector with records, and the microseconds that each took."""
    collector = Collector(example, records, chunk=CHUNK)
    started = time.perf_counter()
    for _ in range(records):
        collector.collect(example, 0)
    return collector, _each_us(started, records)


def _appended(example: Any, records: int) -> tuple[list[Any], float]:
    lock, waiting = threading.Lock(), list[Any]()
    started = time.perf_counter()
    for _ in range(records):
        with lock:
            waiting.append(example)
    return waiting, _each_us(started, records)


def _draining(records: int) -> Callable[[], float]:
    """Return what gives the microseconds that each record takes into a ring on the device, moved as a system does."""
    ring = pj.ring_buffer(BUFFERED)
    add = jax.jit(ring.add, donate_argnums=0)
    state = jax.block_until_ready(ring.init(record_of(_record())))

    def drained_us() -> float:
        nonlocal state
        collector, _ = _filled(_record(), records)
        started = time.perf_counter()
        while (chunk := collector.drain()) is not None:
            state = add(state, chunk.records, np.int32(chunk.count))
        jax.block_until_ready(state)
        return _each_us(started, records)

    return drained_us


def _stacked_us(records: int) -> float:
    waiting, _ = _appended(_record(), records)
    started = time.perf_counter()
    stacked = {name: np.stack([record[name] for record in waiting]) for name in waiting[0]}
    jax.block_until_ready(jax.device_put(stacked))
    return _each_us(started, records)


def _copied_us(images: int) -> float:
    """Return the microseconds of copying an image to its place in a block, in a loop that does nothing else."""
    image = np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)
    blocks: deque[np.ndarray[Any, Any]] = deque()
    started = time.perf_counter()
    for number in range(images):
        if number % CHUNK == 0:
            blocks.append(np.zeros((CHUNK, *IMAGE), np.uint8))
        blocks[-1][number % CHUNK] = image
    return _each_us(started, images)


def _against_pamiq_core(
    name: str,
    kind: str,
    ours: Callable[[], float],
    instead: Callable[[], float],
    *,
    names: tuple[str, str],
    goals: tuple[str, str],
    runs: int,
    more: dict[str, object],
) -> dict[str, object]:
    """Return a row whose reference is pamiq-core, or what stands for it where it is not installed.

    A figure is the median of 15, for each side has waited while the other was measured, and begins with a cold cache.
    """

    def steady(measure: Callable[[], float]) -> Callable[[], float]:
        return lambda: statistics.median(measure() for _ in range(15))

    with peer("pamiq_core", kind, BUFFERED) as pamiq_core:
        is_there = pamiq_core is not None
        by_turns = alternate(steady(ours), steady(pamiq_core.measure if is_there else instead), runs=runs)
    if is_there:
        more = {**more, names[1]: steady(instead)()}
    reference, goal = (names[0], goals[0]) if is_there else (names[1], goals[1])
    return report(name, by_turns, reference_name=reference, unit="us/record", goal=goal, more=more)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for `collect`, one for what follows until the device, and one for images."""
    records, images = (WAITING, 2048) if quick else (4 * WAITING, 16_384)
    image = np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)
    copy = alternate(lambda: _filled(image, images)[1], lambda: _copied_us(images), runs=5)
    return [
        _against_pamiq_core(
            "ingest: collect",
            "collect",
            lambda: _filled(_record(), records)[1],
            lambda: _appended(_record(), records)[1],
            names=("pamiq-core's collect, which copies nothing", "list append under a lock"),
            goals=("<= 1", "<= 1"),
            runs=5,
            more={"bytes_copied": sum(leaf.nbytes for leaf in _record().values())},
        ),
        _against_pamiq_core(
            "ingest: drain and to device",
            "drain",
            _draining(WAITING),
            lambda: _stacked_us(WAITING),
            names=("pamiq-core's update, get_data and stack", "np.stack of the new records, device_put"),
            goals=("<= 0.1", "<= 1"),
            runs=5 if quick else 15,
            more={"records": WAITING, "chunk": CHUNK, "pamiq_core_stacks_all_it_holds": BUFFERED},
        ),
        report(
            "ingest: 64x64x3 images",
            copy,
            reference_name="memcpy into a new block",
            unit="us/record",
            goal="<= 2",
            more={"bytes_copied": image.nbytes},
        ),
    ]
