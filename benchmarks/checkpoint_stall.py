"""What a save of 120 MB does to a running system, its agent and its training thread.

Beside it Orbax's save, and a process of its own that hashes, writes and syncs as many blocks at the same pace and of
the same low priority, while nothing at all is done in the system's: what this machine can do at best.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import Comparison, report
from pamiq_jax.checkpoint import latest_n
from pamiq_jax.checkpoint.block_writer import NICENESS
from pamiq_jax.runtime.state import InferReport
from pamiq_jax.runtime.unhurried import REST_SECONDS

LEAVES, LEAF_NUMBERS = 300, 100_000
INTERVAL_SECONDS = 0.005
HIDDEN, BATCH = 128, 64
PATIENCE = 300.0


class _World:
    """Shows random numbers, and notes when it is asked."""

    spec = pj.EnvironmentSpec(np.zeros(16, np.float32), np.zeros(4, np.float32), {})

    def __init__(self) -> None:
        self._source = np.random.default_rng(0)
        self.asked_at = 0.0

    def reset(self, seed: int) -> None:
        self._source = np.random.default_rng(seed)

    def observe(self) -> np.ndarray:
        self.asked_at = time.perf_counter()
        return self._source.standard_normal(16, np.float32)

    def affect(self, action: Any) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class Ticks(NamedTuple):
    """The ticks in windows of one kind.

    Attributes:
        latencies: seconds from observation to action.
        delays: seconds between two observations, beyond the interval.
        steps: training steps done meanwhile.
        seconds: how long the windows lasted.
    """

    latencies: list[float]
    delays: list[float]
    steps: list[int]
    seconds: list[float]

    @classmethod
    def none(cls) -> Ticks:
        return cls([], [], [], [])


class _Recorder:
    """Sorts ticks by what is going on: the present window's list, or none."""

    def __init__(self, world: _World) -> None:
        self._world, self._asked_before = world, 0.0
        self.window: Ticks | None = None

    def __call__(self, tick: InferReport) -> None:
        asked, before = self._world.asked_at, self._asked_before
        self._asked_before = asked
        if self.window is not None:
            self.window.latencies.append(tick.latency_seconds)
            self.window.delays.append(asked - before - INTERVAL_SECONDS)


def _mlp(params: Any, observation: jax.Array) -> jax.Array:
    return jnp.tanh(observation @ params["first"]) @ params["second"]


def _act(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    return carry, _mlp(params["policy"], observation), {}


def _renewing() -> pj.Trainer[Any, Any]:
    """Return a trainer whose step makes all 300 leaves new, so that a save has to write them all."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState({"world": params["world"]}, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        return state.replace(params=jax.tree.map(lambda leaf: leaf * 1.01, state.params), step=state.step + 1), {}

    return pj.custom_trainer(init, step, trains=("world",), publishes=())


def _system(world: _World, leaves: int, *, is_busy: bool) -> pj.System:
    source, first = np.random.default_rng(0), jax.random.key(0)
    policy = {
        "first": 0.1 * jax.random.normal(first, (16, HIDDEN)),
        "second": 0.1 * jax.random.normal(first, (HIDDEN, 4)),
    }
    large = {
        f"leaf{index:03}": jnp.asarray(source.standard_normal(LEAF_NUMBERS, np.float32)) for index in range(leaves)
    }

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        return jnp.mean((_mlp(params["policy"], batch["observation"]) - batch["action"]) ** 2), {}

    when = pj.always() if is_busy else pj.min_new(100)
    return pj.System(
        models={"policy": pj.Model(policy), "world": pj.Model(large, infer=False)},
        buffers={"seen": pj.ring_buffer(10_000), "renew": pj.ring_buffer(8, example=0.0)},
        trainers={
            "fit": pj.Schedule(
                pj.gradient_trainer(loss_fn, optax.adam(1e-3), trains=("policy",)),
                data="seen",
                batch_size=BATCH,
                steps=100,
                steps_per_chunk=10,
                when=when & pj.min_size(BATCH),
            ),
            "renew": pj.Schedule(_renewing(), data="renew", batch_size=1, when=pj.min_new(1), priority=1),
        },
        interaction=pj.Interaction(pj.Agent(_act), world, INTERVAL_SECONDS, collect={"seen": lambda record: record}),
    )


@contextlib.contextmanager
def _orbax(directory: Path) -> Generator[Callable[[dict[str, jax.Array], int], float]]:
    """Give what saves by Orbax until it is on the disk, and returns the seconds that the call blocked."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    with ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler()) as checkpointer:

        def save(state: dict[str, jax.Array], number: int) -> float:
            started = time.perf_counter()
            checkpointer.save(directory / str(number), args=ocp.args.StandardSave(state))
            blocked = time.perf_counter() - started
            checkpointer.wait_until_finished()
            return blocked

        yield save


_BARE_WRITER = """
import hashlib, os, sys, time
directory, blocks, rest, niceness = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
os.nice(niceness)
data, number = os.urandom(2**20), 0
for _ in sys.stdin:
    for block in range(blocks):
        time.sleep(rest)
        hashlib.sha256(data).hexdigest()
        path = os.path.join(directory, str(block))
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
    print(flush=True)
"""


@contextlib.contextmanager
def _bare_writer(directory: Path, blocks: int) -> Generator[Callable[[], None]]:
    """Give what has a process of its own write so many blocks of 1 MiB, and waits for that."""
    directory.mkdir()
    command = [sys.executable, "-I", "-S", "-c", _BARE_WRITER, str(directory), str(blocks)]
    with subprocess.Popen(
        [*command, str(REST_SECONDS), str(NICENESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def write() -> None:
            requests.write(b"\n")
            replies.readline()

        yield write
        requests.close()


class _Measured(NamedTuple):
    """What one variant came to: ticks by kind of window, and what blocked whom, in milliseconds."""

    windows: dict[str, list[Ticks]]
    blocked_ms: list[float]
    write_seconds: list[float]
    orbax_blocked_ms: list[float]


def _measure(leaves: int, runs: int, windows: int, *, is_busy: bool) -> _Measured:
    world = _World()
    recorder = _Recorder(world)
    measured = _Measured({"save": [], "quiet": [], "bare_writer": [], "orbax": []}, [], [], [])
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="checkpoint-stall-")))
        bare_write = stack.enter_context(_bare_writer(place / "bare", math.ceil(leaves * LEAF_NUMBERS * 4 / 2**20)))
        orbax_save = stack.enter_context(_orbax(place / "orbax"))
        run = stack.enter_context(
            pj.launch(
                _system(world, leaves, is_busy=is_busy),
                directory=place / "ours",
                keep=latest_n(1),
                on_interaction=recorder,
            )
        )
        run.wait_until_ready(PATIENCE)
        number, pause = 0, 1.0

        def steps() -> int:
            return run.status.trainers["fit"].steps

        def renew() -> None:
            goal = run.status.trainers["renew"].steps + 1
            run.collect("renew", 0.0)
            while run.status.trainers["renew"].steps < goal:
                run.wait(0.02)

        def window(ticks: Ticks, act: Callable[[], Any]) -> float:
            renew()
            before, started = steps(), time.perf_counter()
            recorder.window = ticks
            act()
            recorder.window = None
            seconds = time.perf_counter() - started
            ticks.steps.append(steps() - before)
            ticks.seconds.append(seconds)
            return seconds

        for repeat in range(runs + 1):  # the first one warms up
            row = {kind: Ticks.none() for kind in measured.windows}
            for _ in range(windows):
                number += 1
                pause = window(row["save"], lambda: run.save(PATIENCE))
                if repeat:
                    measured.blocked_ms.append(run.status.saves.blocked_ms)
                    measured.write_seconds.append(run.status.saves.write_seconds)
                window(row["quiet"], lambda seconds=pause: run.wait(seconds))
                window(row["bare_writer"], bare_write)
                state = dict(run.learner.trainers["renew"].state.params["world"])
                blocked: list[float] = []
                save_by_orbax = functools.partial(orbax_save, state, number)
                window(row["orbax"], lambda save=save_by_orbax, blocked=blocked: blocked.append(save()))
                if repeat:
                    measured.orbax_blocked_ms.append(1000 * blocked[0])
            if repeat:
                for kind, ticks in row.items():
                    measured.windows[kind].append(ticks)
    return measured


def _percentile(values: list[float], share: float) -> float:
    return 1000 * float(np.quantile(values, share))


def _row(name: str, measured: _Measured, *, megabytes: float) -> dict[str, object]:
    p99 = {kind: [_percentile(ticks.latencies, 0.99) for ticks in rows] for kind, rows in measured.windows.items()}
    more: dict[str, object] = {
        "megabytes": megabytes,
        "blocked_ms_max": round(max(measured.blocked_ms), 3),
        "blocked_ms_max_goal": "<= 5 ms",
        "blocked_ms_median": round(statistics.median(measured.blocked_ms), 3),
        "save_seconds": round(statistics.median(measured.write_seconds), 3),
        "orbax_blocked_ms_median_max": [
            round(statistics.median(measured.orbax_blocked_ms), 1),
            round(max(measured.orbax_blocked_ms), 1),
        ],
    }
    for kind, rows in measured.windows.items():
        latencies, delays = ([value for ticks in rows for value in ticks[column]] for column in (0, 1))
        steps, seconds = sum(sum(ticks.steps) for ticks in rows), sum(sum(ticks.seconds) for ticks in rows)
        shares = (0.5, 0.99, 1.0)
        more[f"{kind}_latency_ms_p50_p99_max"] = [round(_percentile(latencies, share), 3) for share in shares]
        more[f"{kind}_delay_ms_p50_p99_max"] = [round(_percentile(delays, share), 3) for share in shares]
        more[f"{kind}_ticks"] = len(latencies)
        more[f"{kind}_training_steps_per_second"] = round(steps / seconds, 1)
    for kind in ("bare_writer", "orbax"):
        more[f"{kind}_ratio"] = round(statistics.median(p99[kind]) / statistics.median(p99["quiet"]), 3)
    return report(
        f"checkpoint_stall: {name}",
        Comparison(p99["save"], p99["quiet"]),
        reference_name="p99 of the agent's latency without a save",
        unit="ms",
        goal="<= 1.2 times",
        more=more,
    )


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for a trainer that trains all the time, and one for a trainer that waits for data."""
    leaves, runs, windows = 60 if quick else LEAVES, 5, 1
    megabytes = leaves * LEAF_NUMBERS * 4 / 1e6
    return [
        _row(name, _measure(leaves, runs, windows, is_busy=is_busy), megabytes=megabytes)
        for name, is_busy in (("while training", True), ("while training waits", False))
    ]
