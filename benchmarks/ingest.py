"""What a record costs on its way from the agent to the device.

`collect()` copies the record; the reference does what pamiq-core's does, which keeps a reference and copies nothing.
Then draining to the device, against stacking the same new records; and images, against the copy that `memcpy` makes.
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


def _drained_us(records: int, ring: pj.Buffer[Any, Any, Any], add: Callable[..., Any]) -> float:
    """Return the microseconds that each record takes until it is in a ring on the device, moved as a system does."""
    (collector, _), state = _filled(_record(), records), ring.init(record_of(_record()))
    started = time.perf_counter()
    while (chunk := collector.drain()) is not None:
        state = add(state, chunk.records, np.int32(chunk.count))
    jax.block_until_ready(state)
    return _each_us(started, records)


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


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for `collect`, one for what follows until the device, and one for images."""
    records, images = (WAITING, 2048) if quick else (16 * WAITING, 16_384)
    collect = alternate(lambda: _filled(_record(), records)[1], lambda: _appended(_record(), records)[1], runs=5)
    ring = pj.ring_buffer(BUFFERED)
    add = jax.jit(ring.add, donate_argnums=0)
    drain = alternate(lambda: _drained_us(WAITING, ring, add), lambda: _stacked_us(WAITING), runs=5 if quick else 15)
    image = np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)
    copy = alternate(lambda: _filled(image, images)[1], lambda: _copied_us(images), runs=5)
    in_drain: dict[str, object] = {"records": WAITING, "chunk": CHUNK}
    in_collect: dict[str, object] = {"bytes_copied": sum(leaf.nbytes for leaf in _record().values())}
    for kind, comparison, more in (("collect", collect, in_collect), ("drain", drain, in_drain)):
        with peer("pamiq_core", kind, BUFFERED) as pamiq_core:
            if pamiq_core is not None:
                peers_us = statistics.median(pamiq_core.measure() for _ in range(5))
                more["pamiq_core_us"] = peers_us
                more["vs_pamiq_core"] = peers_us / statistics.median(comparison.ours)
    in_drain["vs_pamiq_core_goal"] = ">= 10"
    appended = "list append under a lock (what pamiq-core's collect does)"
    return [
        report("ingest: collect", collect, reference_name=appended, unit="us/record", goal="<= 1", more=in_collect),
        report(
            "ingest: drain and to device",
            drain,
            reference_name="np.stack of the new records, device_put",
            unit="us/record",
            goal="<= 1",
            more=in_drain,
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
