"""Time to save 120 MB in 300 leaves, and what that does to a thread that acts. The reference is Orbax's async save."""

from __future__ import annotations

import contextlib
import logging
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Comparison, report
from pamiq_jax.checkpoint import StateStore

LEAVES, LEAF_BYTES = 300, 400_000


class Saved(NamedTuple):
    """What one save took.

    Attributes:
        blocking: seconds until the call returned.
        total: seconds until all of it was on the disk.
        added_bytes: by how much the directory grew.
        ticks: seconds of each tick of the other thread meanwhile.
    """

    blocking: float
    total: float
    added_bytes: int
    ticks: list[float]


type Save = Callable[[dict[str, jax.Array], int], float]
"""Saves a state under a number, waits until it is done, and returns the seconds that the call itself blocked."""


def _state(leaves: int, seed: int) -> dict[str, jax.Array]:
    source = np.random.default_rng(seed)
    return {f"leaf{index}": jnp.asarray(source.standard_normal(LEAF_BYTES // 4, np.float32)) for index in range(leaves)}


def _with_changed(state: dict[str, jax.Array], share: float) -> dict[str, jax.Array]:
    """Return the state with that share of its leaves replaced."""
    names = list(state)[: max(1, round(share * len(state)))]
    return {**state, **{name: state[name] + 1 for name in names}}


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@contextlib.contextmanager
def _acting(ticks: list[float]) -> Iterator[None]:
    """Let another thread act meanwhile: a small compiled policy every two milliseconds; a tick's delay counts."""
    act = jax.jit(lambda weights, observation: jnp.tanh(observation @ weights).argmax())
    weights, observation = jnp.ones((64, 8)), jnp.ones(64)
    act(weights, observation).block_until_ready()
    stop = threading.Event()

    def loop() -> None:
        due = time.perf_counter()
        while not stop.is_set():
            int(act(weights, observation))
            ticks.append(time.perf_counter() - due)
            due = max(due + 0.002, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=loop, name="acting")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def _measured(save: Save, state: dict[str, jax.Array], number: int, directory: Path, *, acting: bool) -> Saved:
    before, ticks = _bytes_in(directory), []
    with _acting(ticks) if acting else contextlib.nullcontext():
        started = time.perf_counter()
        blocking = save(state, number)
        total = time.perf_counter() - started
    return Saved(blocking, total, _bytes_in(directory) - before, ticks)


@contextlib.contextmanager
def _ours(directory: Path) -> Iterator[Save]:
    store = StateStore(directory)

    def save(state: dict[str, jax.Array], number: int) -> float:
        started = time.perf_counter()
        store.write(state, facts={}, created_at=float(number))
        return time.perf_counter() - started  # it has no thread of its own, so all of it blocks the caller

    yield save


@contextlib.contextmanager
def _orbax(directory: Path) -> Iterator[Save]:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    with ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions()) as manager:

        def save(state: dict[str, jax.Array], number: int) -> float:
            started = time.perf_counter()
            manager.save(number, args=ocp.args.StandardSave(state))
            blocking = time.perf_counter() - started
            manager.wait_until_finished()
            return blocking

        yield save


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for a first save, one for a save after a tenth has changed, and one with a thread that acts."""
    leaves, runs = (60, 5) if quick else (LEAVES, 7)
    rows: dict[str, tuple[list[Saved], list[Saved]]] = {"whole": ([], []), "a tenth": ([], []), "acting": ([], [])}
    for run in range(runs + 1):
        state = _state(leaves, run)
        changed = _with_changed(state, 0.1)
        for column, library in enumerate((_ours, _orbax)):
            directory = Path(tempfile.mkdtemp(prefix="checkpoint-write-"))
            try:
                with library(directory) as save:
                    results = [
                        _measured(save, state, 1, directory, acting=False),
                        _measured(save, changed, 2, directory, acting=False),
                        _measured(save, _state(leaves, 1000 + run), 3, directory, acting=True),
                    ]
            finally:
                shutil.rmtree(directory)
            if run:  # the first one warms up
                for name, result in zip(rows, results, strict=True):
                    rows[name][column].append(result)
    return [_row(name, *pair, megabytes=leaves * LEAF_BYTES / 1e6) for name, pair in rows.items()]


def _row(name: str, ours: list[Saved], orbax: list[Saved], *, megabytes: float) -> dict[str, object]:
    comparison = Comparison([each.total for each in ours], [each.total for each in orbax])
    more: dict[str, object] = {"megabytes": megabytes}
    for library, results in (("ours", ours), ("orbax", orbax)):
        more[f"{library}_blocking_seconds"] = round(statistics.median(each.blocking for each in results), 4)
        more[f"{library}_added_megabytes"] = round(statistics.median(each.added_bytes for each in results) / 1e6, 2)
        ticks = sorted(tick for each in results for tick in each.ticks)
        if ticks:
            middle, slow, worst = (1e3 * ticks[int(share * (len(ticks) - 1))] for share in (0.5, 0.99, 1))
            more[f"{library}_tick_ms_p50_p99_max"] = [round(middle, 2), round(slow, 2), round(worst, 2)]
    title = {"whole": "first save", "a tenth": "save after a tenth changed", "acting": "save while a thread acts"}[name]
    return report(
        f"checkpoint_write: {title}",
        comparison,
        reference_name="Orbax, until on disk",
        unit="s",
        goal="<= 1",
        more=more,
    )
