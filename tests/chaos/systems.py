"""The small system that misfortunes are tried on, and ways to look on at it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import jax.numpy as jnp
import optax

import pamiq_jax as pj
from pamiq_jax.checkpoint.files import Files
from pamiq_jax.errors import WorkerError
from pamiq_jax.runtime import saving
from pamiq_jax.runtime.state import InferReport
from tests.runtime.fakes import AGENT, PATIENCE, World
from tests.runtime.test_resume import SavedWorld

MEMORY = 40_000
"""Numbers in the larger model, enough for blocks of its own in a saved state."""


def _loss(params: Any, batch: Any, rng_key: Any) -> Any:
    target = jnp.mean(jnp.tanh(batch["observation"]))
    return jnp.mean((params["policy"] - target) ** 2) + jnp.mean((params["memory"] - target) ** 2), {}


def busy_system(world: World | None = None, *, interval_seconds: float | None = 0.002, **changes: Any) -> pj.System:
    """Return a system that acts, and trains two models for every three records; all of it can be saved.

    Args:
        world: what it acts in; a counter whose state is saved by default.
        interval_seconds: from one tick to the next.
        changes: other parts of the system.
    """
    trainer = pj.gradient_trainer(_loss, optax.adam(0.05), trains=("policy", "memory"), publishes=("policy",))
    schedule = pj.Schedule(trainer, data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    parts: dict[str, Any] = {
        "models": {"policy": pj.Model(jnp.zeros(3)), "memory": pj.Model(jnp.zeros(MEMORY), infer=False)},
        "buffers": {"seen": pj.ring_buffer(1000, sampling="in_order")},
        "trainers": {"fit": schedule},
        "interaction": pj.Interaction(AGENT, world or SavedWorld(), interval_seconds=interval_seconds),
    }
    return pj.System(**{**parts, **changes})


@contextlib.contextmanager
def saving_with(files: Files) -> Generator[None]:
    """Have runs that are launched within save through these file operations, and so in a thread of this process."""
    with (
        mock.patch.object(saving, "LOCAL_FILES", files),
        mock.patch.object(saving, "block_process", return_value=None),
    ):
        yield


class Watch:
    """Called after each tick of an agent; whoever waits for something looks again then. Give it as `on_interaction`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.ticks = 0

    def __call__(self, report: InferReport) -> None:
        with self._changed:
            self.ticks += 1
            self._changed.notify_all()

    def until(self, is_reached: Callable[[], bool]) -> bool:
        """Return whether something came true, looking again after each tick, before all patience was lost."""
        with self._changed:
            return self._changed.wait_for(is_reached, PATIENCE)

    def goes_on(self, ticks: int = 20) -> bool:
        """Return whether so many ticks more are done."""
        goal = self.ticks + ticks
        return self.until(lambda: self.ticks >= goal)


def learns_on(run: pj.Run, versions: int = 2) -> bool:
    """Return whether so many versions more are published. What fails meanwhile is not raised here."""
    goal = run.status.version + versions
    while True:
        try:
            return run.wait_for_version(goal, PATIENCE).version >= goal
        except WorkerError:
            continue  # each is raised once
        except TimeoutError:
            return False


def stop_result(run: pj.Run, seconds: float) -> str:
    """Return what `stop` says within so many seconds; "" if the system has ended."""
    try:
        run.stop(seconds)
    except TimeoutError as error:
        return str(error)
    return ""


def errors_of(run: pj.Run) -> list[WorkerError]:
    """Return what `run.wait` has not told yet."""
    found: list[WorkerError] = []
    while True:
        try:
            run.wait(0)
        except WorkerError as error:
            found.append(error)
            continue
        return found
