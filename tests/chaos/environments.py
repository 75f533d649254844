"""An environment raises or hangs: what can go on does, and the owner is told."""

from __future__ import annotations

import tempfile
import threading
import time
from typing import Any

import numpy as np

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import SystemPhase
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import Watch, busy_system, errors_of, learns_on, stop_result
from tests.runtime.fakes import AGENT, PATIENCE, World

STOP_SECONDS = 0.5


class FaultyWorld(World):
    """Goes wrong in one of its methods, at one of its ticks.

    Args:
        method: "observe" or "affect".
        at: the tick, from 0.
        go: what a call that hangs waits for; None raises.
    """

    def __init__(self, method: str, at: int, go: threading.Event | None = None) -> None:
        super().__init__()
        self._method, self._at, self._go = method, at, go

    def _go_wrong(self, method: str) -> None:
        if method != self._method or len(self.rewards) < self._at:
            return
        if self._go is None:
            raise OSError(f"the robot's {method} broke")
        self._go.wait(PATIENCE)

    def observe(self) -> np.ndarray:
        self._go_wrong("observe")
        return super().observe()

    def affect(self, action: Any) -> dict[str, Any]:
        self._go_wrong("affect")
        return super().affect(action)


def _pair(world: World) -> pj.System:
    """Return the busy system with a second world beside one that goes wrong."""
    worlds = {"faulty": world, "sound": World()}
    return busy_system(
        interaction={name: pj.Interaction(AGENT, world, interval_seconds=0.002) for name, world in worlds.items()}
    )


def raising(form: Form) -> list[Row]:
    """Let the only environment raise, and one of two."""
    alone, beside, times = Losses(), Losses(), form.times(1, 10)
    ticks = 0
    for _ in range(times):
        method, at = form.rng.choice(("observe", "affect")), form.rng.randint(10, 40)
        _raise_alone(FaultyWorld(method, at), alone)
        watch = Watch()
        with pj.launch(_pair(FaultyWorld(method, at)), on_interaction=watch) as run:
            run.wait_until_ready()
            losses = beside
            losses.check(watch.until(lambda run=run: bool(run.status.errors)), "nobody was told")
            workers = [error.worker for error in errors_of(run)]
            losses.check(workers == ["pamiq-inference-faulty"], f"run.wait told of {workers}")
            before = watch.ticks
            losses.check(watch.goes_on(), "the other agent stood still")
            losses.check(learns_on(run), "training stood still")
            ticks += watch.ticks - before
    return [
        Row(
            "the only environment raises",
            times,
            "told by run.wait with its cause; phase failed, environment closed, all threads ended; "
            "the states before are sound",
            alone.found,
        ),
        Row(
            "one of two environments raises",
            times,
            f"told by run.wait; the other acted on ({ticks:,} ticks), training went on",
            beside.found,
        ),
    ]


def _raise_alone(world: FaultyWorld, losses: Losses) -> None:
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        run = pj.launch(busy_system(world), directory=place, save=pj.every_versions(1))
        run.wait_until_ready()
        errors = []
        while run.status.phase is not SystemPhase.FAILED and not errors:
            try:
                run.wait(PATIENCE)
            except WorkerError as error:
                errors.append(error)
        losses.check(errors != [] and isinstance(errors[0].__cause__, OSError), f"run.wait told {errors}")
        losses.check(run.wait(PATIENCE) is pj.WaitResult.ENDED, "the system did not end")
        losses.check(run.status.phase is SystemPhase.FAILED, f"its phase is {run.status.phase}")
        losses.check(world.closed.wait(PATIENCE), "the environment was not closed")
        losses.check(stop_result(run, PATIENCE) == "", "it did not stop")
        losses.check(all(report.is_sound for report in StateStore(place).verify()), "a state is damaged")


def hanging(form: Form) -> list[Row]:
    """Let one of two environments hang: the other acts, training goes on, a save waits no longer than it says."""
    losses, times, ticks, versions, slowest = Losses(), form.times(1, 10), 0, 0, 0.0
    for number in range(times):
        go, watch = threading.Event(), Watch()
        world = FaultyWorld(form.rng.choice(("observe", "affect")), form.rng.randint(1, 20), go)
        with tempfile.TemporaryDirectory(prefix="chaos-") as place:
            deadlines = pj.Deadlines(environment=0.2)
            run = pj.launch(_pair(world), directory=place, on_interaction=watch, deadlines=deadlines)
            run.wait_until_ready()
            named = watch.until(lambda run=run: any(s.thread == "pamiq-inference-faulty" for s in run.status.stuck))
            losses.check(named, "the status does not say who hangs")
            before, version = watch.ticks, run.status.version
            losses.check(watch.goes_on(), "the other agent stood still")
            losses.check(learns_on(run), "training stood still")
            if form.is_long and number % 5 == 0:  # takes five seconds, in which the world may answer yet
                info = run.save(PATIENCE)
                losses.check(all(r.is_sound for r in StateStore(place).verify(info.number)), "no sound state")
            ticks, versions = ticks + watch.ticks - before, versions + run.status.version - version
            started = time.monotonic()
            said = stop_result(run, STOP_SECONDS)
            slowest = max(slowest, time.monotonic() - started)
            losses.check("pamiq-inference-faulty did not end" in said, f"stop said {said!r}")
            go.set()
            losses.check(stop_result(run, PATIENCE) == "", "it did not end once let go of")
    happened = (
        f"run.status names the thread; {ticks:,} ticks of the other agent and {versions:,} versions meanwhile; "
        f"run.stop(timeout={STOP_SECONDS}) raises TimeoutError after {slowest:.2f} s at most; let go of, it stops"
    )
    return [Row("one of two environments hangs", times, happened, losses.found)]
