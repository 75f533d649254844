"""Half an hour of everything at once: does the process grow?"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any, override

import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.trainer import guard
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import busy_system
from tests.chaos.usage import Usage, can_measure, slopes_per_hour, usage
from tests.runtime.fakes import AGENT, PATIENCE, mean_loss
from tests.runtime.test_resume import SavedWorld

LIMITS = Usage(rss_mb=24.0, files=2.0, threads=2.0)
"""What may be added in an hour, by the line through the last two thirds; noise of the allocator is within it."""

SAMPLE_SECONDS = 1.0


class ForgetfulWorld(SavedWorld):
    """The counter of the other tests without its log, which would grow."""

    @override
    def observe(self) -> np.ndarray:
        return self._observation

    @override
    def affect(self, action: Any) -> dict[str, Any]:
        self._reward[...] = float(self._observation[0]) - float(action)
        self._observation[0] += 1
        self._observation[1] = action
        return {"reward": self._reward}


class UnsavedWorld(ForgetfulWorld):
    """A world whose state is not known."""

    @override
    def save_state(self) -> None:
        return None


def soaked_system() -> pj.System:
    """Return two interactions and three trainers, on two buffers, of all kinds that are saved."""
    adjustable = optax.inject_hyperparams(optax.adam)(learning_rate=0.05)
    single = pj.gradient_trainer(mean_loss("value", 0.1), adjustable, trains=("value",))
    base = busy_system()
    return busy_system(
        models={**base.models, "value": pj.Model(jnp.ones(3), jnp.vdot)},
        buffers={**base.buffers, "drawn": pj.ring_buffer(500, placement="host")},
        trainers={
            **base.trainers,
            "adjusted": pj.Schedule(guard(single), data="drawn", batch_size=8, steps=4, when=pj.min_new(20)),
        },
        interaction={
            "left": pj.Interaction(AGENT, ForgetfulWorld(), interval_seconds=0.02),
            "right": pj.Interaction(AGENT, UnsavedWorld(), interval_seconds=0.03),
        },
    )


def _stir(run: pj.Run, rng: random.Random) -> str:
    """Do one of the things that an owner does, and return its name."""
    what = rng.choice(("pause", "save", "set", "infer", "status"))
    match what:
        case "pause":
            run.pause(PATIENCE)
            run.resume(PATIENCE)
        case "save":
            run.save(PATIENCE)
        case "set":
            run.trainers["adjusted"].set(learning_rate=rng.uniform(0.01, 0.1))
        case "infer":
            run.infer("value", jnp.ones(3))
        case _:
            str(run.status)
    return what


def soaked(form: Form) -> list[Row]:
    """Act, train and save, with pauses, changes and questions in between; then fit lines through what was used."""
    tried = "acting, training, saving, pausing, changing hyper-parameters, all the time"
    if not can_measure():
        return [Row(tried, 0, "not tried: this system does not tell what a process uses")]
    losses, seconds, usages, counts = Losses(), [0.0], [usage()], dict[str, int]()
    started = time.monotonic()
    duration = 60 * form.minutes if form.is_long else 0.0
    with tempfile.TemporaryDirectory(prefix="chaos-soak-") as name:
        place = Path(name)
        save = pj.every_seconds(2.0) if form.is_long else pj.every_versions(5)
        with pj.launch(soaked_system(), directory=place, save=save, keep=latest_n(3)) as run:
            version = run.wait_for_version(1, PATIENCE).version
            while len(seconds) < 12 or time.monotonic() - started < duration:
                if form.is_long:
                    losses.check(run.wait(SAMPLE_SECONDS) is pj.WaitResult.TIMEOUT, "the system ended")
                done = _stir(run, form.rng)
                counts[done] = counts.get(done, 0) + 1
                seconds.append(time.monotonic() - started)
                usages.append(usage())
            version = run.wait_for_version(version + 1, PATIENCE).version
            run.save(PATIENCE)
            status = run.status
        losses.check(all(report.is_sound for report in StateStore(place).verify()), "a saved state is damaged")
    losses.check(status.errors == () and status.saves.failed == 0, f"errors: {status.errors}")
    losses.check(status.compiles_after_ready == 0, "something was compiled after the start")
    done = f"{status.inference.ticks:,} ticks, {version:,} versions, {status.saves.written:,} saves, " + ", ".join(
        f"{count} {what}" for what, count in sorted(counts.items())
    )
    return [Row(tried, 1, f"{_growth(seconds, usages, losses, is_long=form.is_long)}; {done}", losses.found)]


def _growth(seconds: list[float], usages: list[Usage], losses: Losses, *, is_long: bool) -> str:
    """Return how fast the process grew, and check that against the limits; a short run only warms up."""
    if not is_long:
        return f"{len(usages)} samples, too few for slopes"
    third = len(usages) // 3
    slopes = slopes_per_hour(seconds[third:], usages[third:])
    for name, slope, limit in zip(Usage._fields, slopes, LIMITS, strict=True):
        losses.check(slope <= limit, f"{name} grows by {slope} an hour")
    first, last = usages[third], usages[-1]
    return (
        f"{seconds[-1] / 60:.0f} min; an hour adds {slopes.rss_mb:+.1f} MB of {last.rss_mb:.0f} "
        f"(limit {LIMITS.rss_mb:.0f}), "
        f"{slopes.files:+.2f} of {last.files} file descriptors (limit {LIMITS.files:.0f}), "
        f"{slopes.threads:+.2f} of {last.threads} threads (limit {LIMITS.threads:.0f}), by the last two thirds; "
        f"from {first.rss_mb:.0f} to {last.rss_mb:.0f} MB"
    )
