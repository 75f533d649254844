"""Latencies are told apart by what else went on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.lifecycle import TrainerEvent
from pamiq_jax.metrics import LatencyHistogram
from pamiq_jax.runtime import InferenceStatus, InferReport, Meanwhile
from tests.runtime.fakes import AGENT, PATIENCE, World, learning_system, python_trainer


class Step:
    """Something that goes on until the agent has acted three times meanwhile."""

    def __init__(self) -> None:
        self.is_inside, self.is_over = threading.Event(), threading.Event()
        self._ticks = 0

    def go_on(self, *_: Any) -> None:
        self.is_inside.set()
        assert self.is_over.wait(PATIENCE)

    def acted(self, report: InferReport) -> None:
        self._ticks += self.is_inside.is_set()
        if self._ticks == 4:  # the first one may have ended before
            self.is_over.set()


def totals(run: pj.Run) -> dict[str, int]:
    return {meanwhile.value: histogram.total for meanwhile, histogram in run.status.inference.latency_while.items()}


def system(step: Step, world: World | None = None) -> pj.System:
    schedule = pj.Schedule(python_trainer(step.go_on), data="seen", batch_size=1, when=pj.min_size(5) & pj.min_new(5))
    return learning_system(world, trainers={"fit": schedule})


def test_ticks_beside_training_are_counted_as_such() -> None:
    step = Step()
    with pj.launch(system(step), on_interaction=step.acted) as run:
        run.wait_for_version(1, PATIENCE)
        run.pause()
        during, status = totals(run), run.status.inference
    assert during["training"] >= 3
    assert during["idle"] >= 1  # before the first five records
    assert sum(during.values()) == status.latency.total == status.ticks


def test_a_tick_in_which_a_version_comes_is_one_of_publishing() -> None:
    step, is_published = Step(), threading.Event()
    step.is_over.set()

    class Waiting(World):
        """Its answer to the sixth action takes until the new version is there."""

        def affect(self, action: Any) -> dict[str, Any]:
            if len(self.rewards) == 5:
                assert is_published.wait(PATIENCE)
            return super().affect(action)

    def on_transition(transition: Any) -> None:
        if transition.event is TrainerEvent.PUBLISHED:
            is_published.set()

    with pj.launch(system(step, Waiting()), on_transition=on_transition) as run:
        run.wait_for_version(1, PATIENCE)
        run.pause()
        assert totals(run)["publishing"] >= 1


def test_ticks_beside_a_save_are_counted_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, write = Step(), StateStore.write

    def slow_write(*arguments: Any, **options: Any) -> Any:
        step.go_on()
        return write(*arguments, **options)

    monkeypatch.setattr(StateStore, "write", slow_write)
    still = pj.System(models={"policy": pj.Model(jnp.zeros(3))}, interaction=pj.Interaction(AGENT, World()))
    with pj.launch(still, directory=tmp_path, on_interaction=step.acted) as run:
        run.save(PATIENCE)
        assert totals(run)["saving"] >= 3


def test_merging_keeps_the_activities_apart() -> None:
    none = LatencyHistogram.empty()
    one = InferenceStatus(latency_while={Meanwhile.IDLE: none.add(0.001)})
    other = InferenceStatus(latency_while={Meanwhile.SAVING: none.add(0.004)})
    merged = one.merge(other).merge(one)
    assert {meanwhile: histogram.total for meanwhile, histogram in merged.latency_while.items()} == {
        Meanwhile.IDLE: 2,
        Meanwhile.SAVING: 1,
    }
    assert merged.latency.total == 3
