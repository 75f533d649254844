"""The wall clock is set back an hour, and forth again: the runtime counts on the monotonic one."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.runtime import saver
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import Watch, busy_system, learns_on
from tests.runtime.fakes import PATIENCE

HOUR = 3600.0


class WallClock:
    """What `time.time` and `time.localtime` are replaced by: the true time and an offset."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._time, self._localtime = time.time, time.localtime

    def time(self) -> float:
        return self._time() + self.offset

    def localtime(self, seconds: float | None = None) -> Any:
        return self._localtime(self.time() if seconds is None else seconds)

    @contextmanager
    def installed(self) -> Generator[None]:
        """Have the whole process, and the saver of runs launched within, read this clock."""
        on_this_clock: Callable[..., Any] = functools.partial(saver.Saver, wall_clock=self.time)
        with (
            mock.patch.object(time, "time", self.time),
            mock.patch.object(time, "localtime", self.localtime),
            mock.patch.object(saver, "Saver", on_this_clock),
        ):
            yield


def stepped(form: Form) -> list[Row]:
    """Step the clock back while a system acts, trains and saves by time."""
    losses, times, clock, written = Losses(), form.times(1, 20), WallClock(), 0
    with clock.installed(), tempfile.TemporaryDirectory(prefix="chaos-") as place:
        watch = Watch()
        save, store = pj.every_seconds(0.1), StateStore(place)
        run = pj.launch(busy_system(), directory=place, save=save, keep=latest_n(3), on_interaction=watch)
        with run:
            run.wait_until_ready()
            for number in range(times):
                first = run.save(PATIENCE)
                clock.offset = 0.0 if number % 2 else -HOUR
                before = run.status.saves.written
                losses.check(watch.goes_on(), "the agent stood still")
                losses.check(learns_on(run), "training stood still")
                saves_on = watch.until(lambda before=before: run.status.saves.written >= before + 2)
                losses.check(saves_on, "the policy saves no more")
                newest = store.latest()
                losses.check(newest is not None and newest.number > first.number, "the newest state is not the newest")
            acknowledged, written = run.save(PATIENCE), run.status.saves.written
            losses.check(run.status.stuck == () and run.status.errors == (), "a thread counts as stuck")
        last = store.latest()  # the policy may have saved once more before the run ended
        assert last is not None
        losses.check(last.number >= acknowledged.number, "an acknowledged save was lost")
        with pj.launch(busy_system(), directory=place, resume=True) as again:
            again.wait_until_ready()
            losses.check(
                again.restored is not None and again.restored.state.number == last.number,
                "an older state was resumed",
            )
    happened = (
        f"acting, training and saving every 0.1 s went on ({written} saves); the newest by number stays and is resumed"
    )
    return [Row("the wall clock is set back an hour, then right again", times, happened, losses.found)]
