"""What the threads of a launched system do: the same ticks as lockstep, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pamiq_jax.conditions import Wake
from pamiq_jax.errors import CompileAfterReadyError
from pamiq_jax.lifecycle import SystemEvent, TrainerEvent, TrainerPhase, is_final, transition
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.control import Control, worker_error
from pamiq_jax.runtime.infer import infer_tick
from pamiq_jax.runtime.lockstep import reset
from pamiq_jax.runtime.process import CompileCounter
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.rows import MetricRow, MetricRows
from pamiq_jax.runtime.state import ActorState, Cells, InferReport, LearnerState, TrainReport
from pamiq_jax.runtime.status import InferenceStatus
from pamiq_jax.runtime.system import Interaction, System
from pamiq_jax.runtime.train import train_tick
from pamiq_jax.types import Metrics

INFERENCE = "pamiq-inference"
TRAINING = "pamiq-training"


class Ready(NamedTuple):
    """A system that could act.

    Attributes:
        compiled: its programs, and the values it started from.
        cells: what its threads meet at.
        at: when that was, in seconds on the system's clock.
    """

    compiled: Compiled
    cells: Cells
    at: float


class Workers:
    """The two threads' work, and the newest value that each has left to be looked at.

    Each attribute is written by one thread and holds an immutable value; reading it takes no lock.

    Args:
        system: what to run.
        seed: of all randomness.
        strict: whether a compile after READY is an error, and each chunk proves its donation.
        clock: for everything that asks for the time.
        control: where the threads meet.
        rows: where metrics go.
        on_interaction: called after each inference tick, on the inference thread.
    """

    def __init__(
        self,
        system: System,
        *,
        seed: int,
        strict: bool,
        clock: Clock,
        control: Control,
        rows: MetricRows,
        on_interaction: Callable[[InferReport], Any] | None,
    ) -> None:
        self.system, self.clock, self.control, self.rows = system, clock, control, rows
        self.compiles = CompileCounter()
        self.ready: Ready | None = None
        self.learner: LearnerState | None = None
        self.actor: ActorState | None = None
        self.inference = InferenceStatus()
        self.phases: dict[str, TrainerPhase] = dict.fromkeys(system.trainers, TrainerPhase.WAITING)
        self.metrics: dict[str, Metrics] = {name: {} for name in system.trainers}
        self._seed, self._strict = seed, strict
        self._on_interaction = on_interaction

    # The training thread, which also makes the system ready.

    def train(self) -> None:
        """Compile, publish version 0, then train until the system ends. The training thread's target."""
        self.compiles.watch(TRAINING)
        try:
            ready = self._make_ready()
        except BaseException as error:  # whatever it is, SystemExit too, the owner is told
            self.compiles.stop()
            self.control.report_error(worker_error("compile", error))
            self.control.leave(TRAINING, is_fatal=True)
            return
        try:
            if ready is not None:
                self._train_until_end(ready)
        except BaseException as error:
            # The agent goes on with the newest snapshot.
            self.control.report_error(worker_error(TRAINING, error))
        finally:
            self.compiles.stop()
            self._stop_trainers()
            self.control.leave(TRAINING)

    def _make_ready(self) -> Ready | None:
        self.compiles.start()
        if not self.control.send(SystemEvent.COMPILE):
            return None
        compiled = compile_system(self.system, seed=self._seed, check_donation=self._strict)
        self.control.send(SystemEvent.COMPILED)
        self.learner, self.actor = compiled.learner, compiled.actor
        self.ready = Ready(compiled, compiled.cells(self.clock.now()), self.clock.now())
        self.compiles.reset()
        self.control.send(SystemEvent.RESTORED)
        return self.ready if self.control.send(SystemEvent.START) else None

    def _train_until_end(self, ready: Ready) -> None:
        while self.control.checkpoint(TRAINING, self._trainers_paused, self._trainers_resumed):
            assert self.learner is not None, "it was set when the system became ready"
            learner, report = train_tick(ready.compiled.programs, self.learner, ready.cells, self.clock, self._observe)
            self.learner = learner
            if report.trainer is None:
                self._wait_for_data(ready.cells, report.wake)
            else:
                self._note(ready, learner, report)
            self._refuse_compiles(TRAINING)

    def _stop_trainers(self) -> None:
        for name, phase in tuple(self.phases.items()):
            if not is_final(phase):
                self._observe(name, phase, TrainerEvent.STOP, transition(phase, TrainerEvent.STOP))

    def change_state(self, name: str, state: Any, values: Mapping[str, Any]) -> None:
        """Go on with another state of a trainer, and log what was changed. Called on the training thread.

        Args:
            name: the trainer.
            state: of the same form.
            values: what was changed, for the metrics.
        """
        assert self.learner is not None
        assert self.ready is not None
        run = self.learner.trainers[name]
        self.learner = self.learner.with_trainer(name, run._replace(state=state))
        changed = {f"set_{key}": np.asarray(value) for key, value in values.items()}
        self._put_row(self.ready, name, run.steps, None, changed)

    def _observe(self, trainer: str, before: TrainerPhase, event: TrainerEvent, after: TrainerPhase) -> None:
        self.phases[trainer] = after
        self.control.transition(f"trainer {trainer}", before, event, after)

    def _note(self, ready: Ready, learner: LearnerState, report: TrainReport) -> None:
        name = report.trainer
        assert name is not None
        if report.error is not None:
            self.control.report_error(worker_error(f"trainer {name}", report.error))
            return
        self.metrics[name] = report.metrics
        self._put_row(ready, name, learner.trainers[name].steps, report.version, report.metrics)
        if report.version is not None:
            self.control.notify()

    def _put_row(self, ready: Ready, name: str, steps: int, version: int | None, metrics: Mapping[str, Any]) -> None:
        self.rows.put(MetricRow(name, self.clock.now() - ready.at, steps, version, {}), metrics)

    def _wait_for_data(self, cells: Cells, wake: Wake) -> None:
        if wake.records is not None:
            for collector in cells.collectors.values():
                collector.alarm(wake.records, lambda: self.control.nudge(TRAINING))
        self.control.sleep(TRAINING, None if wake.milliseconds is None else wake.milliseconds / 1000)

    def _trainers_paused(self) -> None:
        for schedule in self.system.trainers.values():
            if schedule.on_paused is not None:
                schedule.on_paused()

    def _trainers_resumed(self) -> None:
        for schedule in self.system.trainers.values():
            if schedule.on_resumed is not None:
                schedule.on_resumed()

    # The inference thread.

    def infer(self) -> None:
        """Act until the system ends. The inference thread's target."""
        self.compiles.watch(INFERENCE)
        interaction = self.system.interaction
        assert interaction is not None
        try:
            self._infer_until_end(interaction)
        except BaseException as error:  # nothing acts any more: the system has failed
            self.control.report_error(worker_error(INFERENCE, error))
            self.control.leave(INFERENCE, is_fatal=True)
        finally:
            self._close(interaction)
            self.control.leave(INFERENCE)

    def _infer_until_end(self, interaction: Interaction) -> None:
        if not self.control.checkpoint(INFERENCE, interaction.on_paused, interaction.on_resumed):
            return
        reset(self.system, self._seed)
        ready, actor = self.ready, self.actor
        assert ready is not None, "a worker runs only once the system is ready"
        assert actor is not None, "there is an interaction"
        interval, due = interaction.interval_seconds, self.clock.now()
        while self.control.checkpoint(INFERENCE, interaction.on_paused, interaction.on_resumed):
            remaining = due - self.clock.now()
            if interval is not None and remaining > 0:
                self.control.sleep(INFERENCE, remaining)
                continue  # a pause may have ended the sleep: the tick is not due before its time
            actor, report = infer_tick(ready.compiled.programs, actor, ready.cells, self.clock)
            self.actor = actor
            self._count(report)
            if self._on_interaction is not None:
                self._on_interaction(report)
            self._refuse_compiles(INFERENCE)
            if interval is not None:
                due = self._next_due(due, interval)

    def _count(self, report: InferReport) -> None:
        self.inference = self.inference._replace(
            ticks=self.inference.ticks + 1,
            version=report.version,
            latency=self.inference.latency.add(report.latency_seconds),
            staleness=self.inference.staleness.add(report.staleness_seconds),
        )

    def _next_due(self, due: float, interval: float) -> float:
        """Return the next multiple of the interval that is not past; those that are count as missed."""
        missed = max(0, math.floor((self.clock.now() - due) / interval))
        if missed:
            self.inference = self.inference._replace(deadline_misses=self.inference.deadline_misses + missed)
        return due + (missed + 1) * interval

    def _close(self, interaction: Interaction) -> None:
        try:
            interaction.environment.close()
        except Exception as error:
            self.control.report_error(worker_error("environment.close", error))

    def _refuse_compiles(self, thread: str) -> None:
        if self._strict and self.compiles.of(thread):
            raise CompileAfterReadyError(
                f"{self.compiles.of(thread)} programs were compiled in {thread} after READY; a shape, dtype, weak type "
                "or sharding differs from the first call, or Python code in agent, environment or trainer calls jax. "
                "Set jax.config.jax_log_compiles to see which"
            )
