"""A trainer raises, hangs, or wants more memory than there is: the agent and the other trainers go on."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.lifecycle import TrainerPhase
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import Watch, busy_system, errors_of, learns_on, stop_result
from tests.runtime.fakes import PATIENCE, python_trainer

STOP_SECONDS = 0.5


class BrokenError(Exception):
    """What a trainer raises here."""


def _system(steps: Mapping[str, Callable[[int], None]]) -> pj.System:
    """Return the busy system with further trainers, each of which calls its function with the number of its step."""
    base = busy_system()
    broken = {
        name: pj.Schedule(python_trainer(on_step, model=name), data="seen", batch_size=1, when=pj.min_new(1))
        for name, on_step in steps.items()
    }
    return busy_system(
        models={**base.models, **{name: pj.Model(jnp.zeros(3)) for name in steps}},
        trainers={**base.trainers, **broken},
    )


def _raise() -> None:
    raise BrokenError("the loss is a fish")


def _run_out_of_memory() -> None:
    raise MemoryError("no memory is left")


def _allocate() -> None:
    jnp.zeros(2**50).block_until_ready()  # 4 PB


FAILURES = {"raises": _raise, "MemoryError": _run_out_of_memory, "4 PB": _allocate}
"""By the name of the trainer that fails so."""


def raising_trainers(form: Form, tried: str, **launch_arguments: Any) -> Row:
    """Let three trainers fail at random steps, in three ways, and look at what goes on.

    Args:
        form: how often.
        tried: what is done, in words.
        launch_arguments: for `launch`.
    """
    losses, times, ticks, versions = Losses(), form.times(1, 20), 0, 0
    for _ in range(times):
        watch = Watch()
        system = _system({name: _failing_at(form.rng.randint(1, 20), fail) for name, fail in FAILURES.items()})
        with (
            tempfile.TemporaryDirectory(prefix="chaos-") as place,
            pj.launch(system, directory=place, on_interaction=watch, **launch_arguments) as run,
        ):
            run.wait_until_ready()
            losses.check(watch.until(lambda run=run: _have_failed(run)), "the trainers did not fail")
            causes = {error.worker.removeprefix("trainer "): error.__cause__ for error in errors_of(run)}
            losses.check(set(causes) == set(FAILURES) and None not in causes.values(), f"run.wait told {causes}")
            before, version = watch.ticks, run.status.version
            losses.check(watch.goes_on(), "the agent stood still")
            losses.check(learns_on(run), "the other trainer stood still")
            run.pause(PATIENCE)
            run.resume(PATIENCE)
            info = run.save(PATIENCE)
            losses.check(all(r.is_sound for r in StateStore(place).verify(info.number)), "no sound state afterwards")
            ticks, versions = ticks + watch.ticks - before, versions + run.status.version - version
    happened = (
        f"{3 * times} failures, each told by run.wait with its cause; after the last of each three {ticks:,} ticks, "
        f"{versions:,} versions of the other trainer, a pause and a sound save"
    )
    return Row(tried, 3 * times, happened, losses.found)


def _failing_at(at: int, fail: Callable[[], None]) -> Callable[[int], None]:
    def on_step(number: int) -> None:
        if number >= at:
            fail()

    return on_step


def _have_failed(run: pj.Run) -> bool:
    trainers = run.status.trainers
    return bool(trainers) and all(trainers[name].phase is TrainerPhase.FAILED for name in FAILURES)


def raising(form: Form) -> list[Row]:
    """Let trainers raise, and allocate what is not there."""
    return [
        raising_trainers(form, "three trainers: one raises, one raises MemoryError, one allocates 4 PB on the device")
    ]


def hanging(form: Form) -> list[Row]:
    """Let a trainer hang: the agent acts on, the status says who, commands and stop do not wait for ever."""
    losses, times, ticks, slowest = Losses(), form.times(1, 10), 0, 0.0
    for _ in range(times):
        at, watch, go = form.rng.randint(1, 20), Watch(), threading.Event()

        def on_step(number: int, at: int = at, go: threading.Event = go) -> None:
            if number >= at:
                go.wait(PATIENCE)

        with tempfile.TemporaryDirectory(prefix="chaos-") as place:
            deadlines = pj.Deadlines(training=0.2)
            run = pj.launch(_system({"broken": on_step}), directory=place, on_interaction=watch, deadlines=deadlines)
            run.wait_until_ready()
            is_named = watch.until(lambda run=run: _is_stuck(run, "pamiq-training", "trainer 'broken': training"))
            losses.check(is_named, "the status does not say who hangs")
            before = watch.ticks
            losses.check(watch.goes_on(), "the agent stood still")
            ticks += watch.ticks - before
            try:
                run.save(0.05)
                losses.check(False, "a save was acknowledged")
            except TimeoutError:
                pass
            started = time.monotonic()
            said = stop_result(run, STOP_SECONDS)
            slowest = max(slowest, time.monotonic() - started)
            losses.check("pamiq-training did not end" in said, f"stop said {said!r}")
            go.set()
            losses.check(stop_result(run, PATIENCE) == "", "it did not end once let go of")
            errors_of(run)
    happened = (
        f"run.status names thread and trainer; {ticks:,} ticks meanwhile; run.save and "
        f"run.stop(timeout={STOP_SECONDS}) raise TimeoutError, stop after {slowest:.2f} s at most; let go of, it stops"
    )
    return [Row("a trainer hangs", times, happened, losses.found)]


def _is_stuck(run: pj.Run, thread: str, activity: str) -> bool:
    return any((stuck.thread, stuck.activity) == (thread, activity) for stuck in run.status.stuck)
