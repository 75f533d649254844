"""From observation to action while training goes on. The reference is a bare JAX program of two threads.

In a closed loop at 50 Hz, and free-running. Beside it: idle, with a training step in pure Python, while something else
compiles, and while the system is saved. Both sides run with the interpreter's switch interval that `launch` sets.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from benchmarks.harness import Comparison, alternate, report
from benchmarks.two_threads import INTERVAL_SECONDS, SWING_SECONDS, Bare, World, data, system
from pamiq_jax.checkpoint import latest_n
from pamiq_jax.runtime import Run

SHARES = (0.5, 0.99, 0.999)
_NUMBERS = itertools.count(2)


class _Side(NamedTuple):
    """What measures one window.

    Attributes:
        latencies: acts for some seconds, and returns the latencies in seconds.
        seen: all that were measured, by condition.
    """

    latencies: Callable[[float], list[float]]
    seen: list[float]

    def percentile_ms(self, share: float, seconds: float) -> float:
        """Return a percentile of one more window."""
        values = self.latencies(seconds)
        self.seen.extend(values)
        return 1e3 * float(np.quantile(values, share))


class _Ours:
    """A launched system that acts, and trains, for some seconds whenever it is asked to."""

    def __init__(self, run: Run, world: World) -> None:
        self._run, self._world = run, world
        self.chunks_per_second: list[float] = []

    def latencies(self, seconds: float) -> list[float]:
        """Return the seconds from each observation to its action. A publication is a chunk."""
        self._run.resume()
        self._run.wait(SWING_SECONDS)
        before = self._run.snapshot.version
        self._world.latencies.clear()
        self._run.wait(seconds)
        values = list(self._world.latencies)
        self.chunks_per_second.append((self._run.snapshot.version - before) / seconds)
        self._run.pause()
        return values


def _compile_something() -> None:
    """Compile what was never compiled before, for about a tenth of a second."""
    number = next(_NUMBERS)

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(40):
            x = jnp.sin(x) * number
        return x

    jax.jit(chain).lower(jnp.zeros(number)).compile()


@contextlib.contextmanager
def _meanwhile(act: Callable[[], object] | None) -> Generator[None]:
    """Do something again and again in a thread of its own."""
    is_over = threading.Event()

    def repeat() -> None:
        assert act is not None
        while not is_over.wait(0.01):
            act()

    thread = threading.Thread(target=repeat)
    if act is not None:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        if act is not None:
            thread.join()


def _disturbed(latencies: Callable[[float], list[float]], act: Callable[[], object]) -> Callable[[float], list[float]]:
    def disturbed(seconds: float) -> list[float]:
        with _meanwhile(act):
            return latencies(seconds)

    return disturbed


class _Condition(NamedTuple):
    """One condition, both sides measured by turns."""

    comparison: Comparison
    ours: list[float]
    bare: list[float]

    def percentiles(self) -> dict[str, object]:
        """Return p50, p99 and p99.9 in milliseconds over all windows, and the ratios."""
        sides = {"ours": self.ours, "bare": self.bare}
        values = {name: [1e3 * float(np.quantile(seen, share)) for share in SHARES] for name, seen in sides.items()}
        ratios = [one / other for one, other in zip(values["ours"], values["bare"], strict=True)]
        return {**values, "ratios": ratios, "ticks": [len(self.ours), len(self.bare)]}


def _compared(
    ours: Callable[[float], list[float]], bare: Callable[[float], list[float]], seconds: float, runs: int
) -> _Condition:
    one, other = _Side(ours, []), _Side(bare, [])
    comparison = alternate(
        lambda: one.percentile_ms(0.99, seconds), lambda: other.percentile_ms(0.99, seconds), runs=runs
    )
    return _Condition(comparison, one.seen, other.seen)


def _conditions(
    bare: Bare, chunk: int, interval: float | None, seconds: float
) -> tuple[dict[str, _Condition], dict[str, float]]:
    """Return what each condition came to, "training" in five windows, and how many chunks a second each side did."""

    def bare_side(training: str) -> Callable[[float], list[float]]:
        return lambda seconds: bare.latencies(seconds, interval, training)

    found: dict[str, _Condition] = {}
    world = World()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inference-latency-")))
        run = stack.enter_context(
            pj.launch(system(world, chunk, interval, in_python=False), directory=directory, keep=latest_n(1))
        )
        run.pause()
        side = _Ours(run, world)
        ours = side.latencies
        found["idle"] = _compared(ours, bare_side("idle"), seconds / 2, 2)
        for record in data():
            run.collect("x", record)
        run.resume()
        run.wait_for_version(1, timeout=600)
        run.pause()
        side.chunks_per_second.clear()
        bare.chunks_per_second.clear()
        found["training"] = _compared(ours, bare_side("jax"), seconds, 5)
        rates = {
            "ours": statistics.median(side.chunks_per_second),
            "bare": statistics.median(bare.chunks_per_second),
        }
        compiling = (_disturbed(side, _compile_something) for side in (ours, bare_side("jax")))
        found["compiling"] = _compared(*compiling, seconds / 2, 2)
        found["saving"] = _compared(_disturbed(ours, run.save), bare_side("jax"), seconds / 2, 2)
    world = World()
    with pj.launch(system(world, chunk, interval, in_python=True)) as run:
        for record in data():
            run.collect("x", record)
        run.wait_for_version(1, timeout=600)
        run.pause()
        found["python"] = _compared(_Ours(run, world).latencies, bare_side("python"), seconds / 2, 2)
    return found, rates


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for the closed loop at 50 Hz, and one for an agent that runs freely."""
    chunk = max(1, round(0.005 / (Bare(64).chunk_seconds() / 64)))
    bare = Bare(chunk)
    rows: list[dict[str, object]] = []
    for name, interval in (("at 50 Hz", INTERVAL_SECONDS), ("free-running", None)):
        found, rates = _conditions(bare, chunk, interval, 0.5 if quick else 10)
        training = found["training"]
        more: dict[str, object] = {
            "chunk_ms": 1e3 * bare.chunk_seconds(),
            "p50_ratio": training.percentiles()["ratios"][0],  # pyright: ignore
            "p50_goal": "<= 1.05",
            "chunks_per_second_meanwhile": rates,
            "idle_p99_ms": statistics.median(found["idle"].comparison.ours),
            "p50_p99_p999_ms": {condition: each.percentiles() for condition, each in found.items()},
        }
        title, reference = f"inference_latency: {name}", "a two-thread JAX program, p99"
        rows.append(report(title, training.comparison, reference_name=reference, unit="ms", goal="<= 1.15", more=more))
    return rows
