"""What the training thread does: it makes the system ready, then the same tick as in lockstep, again and again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pamiq_jax.conditions import Wake, first_change
from pamiq_jax.errors import CompileAfterReadyError, QuarantinedError, WorkerError
from pamiq_jax.lifecycle import SystemEvent, TrainerEvent, TrainerPhase, is_final, transition
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.control import Control
from pamiq_jax.runtime.failures import named, named_hook, worker_error
from pamiq_jax.runtime.faults import FaultPolicy
from pamiq_jax.runtime.heartbeat import COMPILING, SCHEDULING
from pamiq_jax.runtime.history import History
from pamiq_jax.runtime.inferring import InferenceWorker
from pamiq_jax.runtime.inline import inline_program
from pamiq_jax.runtime.lingering import Lingering
from pamiq_jax.runtime.process import CompileCounter
from pamiq_jax.runtime.program_cache import kept_programs
from pamiq_jax.runtime.programs import Compiled, Ready
from pamiq_jax.runtime.rollback import log_failure, with_changed_good
from pamiq_jax.runtime.rows import ChunkMetrics, MetricRow, MetricRows
from pamiq_jax.runtime.saving import Saving
from pamiq_jax.runtime.state import Cells, InferReport, LearnerState, TrainerRun, TrainReport
from pamiq_jax.runtime.status import Meanwhile
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.train import train_tick
from pamiq_jax.runtime.watched import watched_trainers
from pamiq_jax.types import Metrics

if TYPE_CHECKING:
    from pamiq_jax.runtime.recorder import Recorder

TRAINING = "pamiq-training"
_BUSY = frozenset((TrainerPhase.SETTING_UP, TrainerPhase.TRAINING, TrainerPhase.PUBLISHING, TrainerPhase.TEARING_DOWN))


class Workers:
    """The threads' work, and the newest value that each has left to be looked at.

    Each attribute is written by the training thread and holds an immutable value; reading it takes no lock. The
    inference threads are `inference`, by the names of their interactions.

    Args:
        system: what to run.
        seed: of all randomness.
        strict: whether a compile after READY is an error, and each chunk proves its donation.
        clock: for everything that asks for the time.
        control: where the threads meet.
        rows: where metrics go.
        on_interaction: called after each inference tick, on the thread of that interaction.
        saving: where states go, and where the run begins from.
        recorder: notes what the training thread is told and does; None for no recording.
        faults: what becomes of a trainer that fails.
        history: keeps the last moments.
        latency_budget_ms: how long an action may wait for the device; None leaves chunks as they are.
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
        saving: Saving,
        recorder: Recorder | None,
        faults: FaultPolicy,
        history: History,
        latency_budget_ms: float | None,
    ) -> None:
        self.system, self.clock, self.control, self.rows = system, clock, control, rows
        self.recorder, self.history = recorder, history
        self.compiles = CompileCounter()
        self.ready: Ready | None = None
        self.learner: LearnerState | None = None
        self.inference = {
            name: InferenceWorker(
                system,
                name,
                seed=seed,
                clock=clock,
                control=control,
                compiles=self.compiles,
                refuse_compiles=self._refuse_compiles,
                on_interaction=on_interaction,
                on_version=None if recorder is None else recorder.acted,
                get_meanwhile=self._meanwhile,
            )
            for name in system.interactions
        }
        self.phases: dict[str, TrainerPhase] = dict.fromkeys(system.trainers, TrainerPhase.WAITING)
        self.metrics: dict[str, Metrics] = {name: {} for name in system.trainers}
        self.quarantined: dict[str, WorkerError] = {}  # trainers that nobody is told of by an exception
        self.ended: dict[str, str] = {}  # why trainers have ended, once that has been told
        self.saving, self._faults = saving, faults
        self._lingering = Lingering(functools.partial(control.doze, TRAINING))
        self._seed, self._strict, self._latency_budget_ms = seed, strict, latency_budget_ms

    def _meanwhile(self) -> Meanwhile:
        """Return what training and saving are at. Called from any thread."""
        if self.saving.is_writing:
            return Meanwhile.SAVING
        return Meanwhile.IDLE if _BUSY.isdisjoint(self.phases.values()) else Meanwhile.TRAINING

    def inference_targets(self) -> dict[str, Callable[[], None]]:
        """Return what the inference threads do, by the names of the threads."""
        return {worker.thread: functools.partial(worker.run, lambda: self.ready) for worker in self.inference.values()}

    def train(self) -> None:
        """Compile, publish version 0, then train until the system ends. The training thread's target."""
        self.compiles.watch(TRAINING)
        self.control.heartbeats.attach(TRAINING)
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
            self._lingering.finish()
            self.compiles.stop()
            self._stop_trainers()
            self.control.leave(TRAINING)

    def _make_ready(self) -> Ready | None:
        self.compiles.start()
        if not self.control.send(SystemEvent.COMPILE):
            return None
        with kept_programs():
            self._compile()
        return self.ready if self.control.send(SystemEvent.START) else None

    def _compile(self) -> None:
        self.control.heartbeats[TRAINING].enter(COMPILING)
        donates = self.saving.saver is None and not self.history.limit
        compile_it = functools.partial(
            compile_system, seed=self._seed, check_donation=self._strict, donates=donates, faults=self._faults
        )
        if self._latency_budget_ms is not None:
            self._tune(self._latency_budget_ms, compile_it)
        compiled = compile_it(self.system)
        self.control.send(SystemEvent.COMPILED)
        with named("restore"):
            ready, self.learner = self.saving.begin_run(compiled, self.clock)
        self._told_by = (ready.cells, self.clock)
        if self.recorder is not None:
            with named("pamiq-recorder"):
                self._told_by = self.recorder.begin(ready, self.learner, self.clock)
        self._begin_quarantined(self.learner)
        self.ready = ready.begun()
        if self.inference:
            inline_program()  # compiled before that counts
        self.compiles.reset()
        self.control.send(SystemEvent.RESTORED)

    def _tune(self, latency_budget_ms: float, compile_it: Callable[[System], Compiled]) -> None:
        from pamiq_jax.runtime.tuning import tuned  # few ask for it

        with named("restore"):
            lengths = self.saving.lengths_in_run()
        self.system = tuned(self.system, latency_budget_ms, compile_it, lengths)

    def _begin_quarantined(self, learner: LearnerState) -> None:
        """Take note of the trainers that a restored state keeps out, and say so once."""
        for name, run in learner.trainers.items():
            if run.phase is TrainerPhase.FAILED:
                self.phases[name] = run.phase
                remedy = f"resume with revive=({name!r},) to have it begin anew"
                error = QuarantinedError(f"trainer {name!r} is {run.reason}; {remedy}")
                self._quarantine(name, error, f"is {run.reason}; {remedy}")
                log_failure(name, run, error)

    def _quarantine(self, name: str, error: Exception, reason: str) -> None:
        self.quarantined = {**self.quarantined, name: worker_error(f"trainer {name}", error)}
        self.ended = {**self.ended, name: reason}

    def _train_until_end(self, ready: Ready) -> None:
        pulse = self.control.heartbeats[TRAINING]
        programs = watched_trainers(ready.compiled.programs, pulse)
        recorder, (cells, clock) = self.recorder, self._told_by
        hooks = [functools.partial(self._run_hooks, event) for event in ("on_paused", "on_resumed")]
        while self.control.checkpoint(TRAINING, *hooks):
            assert self.learner is not None, "it was set when the system became ready"
            pulse.enter(SCHEDULING)
            self._save_if_due(ready, self.learner)
            is_frozen = self.saving.is_frozen
            learner, report = train_tick(
                programs, self.learner, cells, clock, self._observe, is_frozen=is_frozen, linger=self._lingering
            )
            self.learner = learner
            metrics = ChunkMetrics(report.metrics)
            if recorder is not None:
                recorder.ticked(cells, learner, report, metrics, is_frozen=is_frozen)
            if report.trainer is None and report.error is not None:
                self.control.report_error(worker_error(TRAINING, report.error))
            if report.trainer is None and is_frozen:
                self.control.sleep(TRAINING, None)  # what comes meanwhile waits; the saver nudges
            elif report.trainer is None:
                self._wait_for_data(
                    ready.cells, first_change([report.wake, self.saving.wake(ready, learner)], of_all=False)
                )
            else:
                self._note(ready, learner, report, metrics)
            self._refuse_compiles(TRAINING)

    def _save_if_due(self, ready: Ready, learner: LearnerState) -> None:
        if not self.saving.is_due(ready, learner):
            return
        self.saving.begin(ready, learner, self.metrics, {name: worker.actor for name, worker in self.inference.items()})
        for worker in self.inference.values():
            hand_in = functools.partial(worker.hand_in, self.saving, ready)
            if not self.control.post(worker.thread, hand_in):
                hand_in()  # its thread has ended: nobody else reads it

    def nothing_comes(self) -> str:
        """Return why no version can be published any more: all that could have failed. "" if one can.

        Called from any thread.
        """
        trainers, ended = self.system.trainers, self.ended
        lost = {trainers[name].group for name in ended} - {None}
        left = [
            name
            for name in trainers
            if name not in ended and trainers[name].group not in lost and self.system.published_by(name)
        ]
        return "" if left else "; ".join(f"trainer {name!r} {reason}" for name, reason in ended.items())

    def save_now(self) -> None:
        """Begin a save that was asked for, unless one is under way. Called on the training thread."""
        if self.ready is not None and self.learner is not None:
            self._save_if_due(self.ready, self.learner)

    def close_recorder(self, timeout: float) -> bool:
        """Have the recording written to its end, and return whether that was done in time."""
        acted = {name: worker.actor.tick for name, worker in self.inference.items() if worker.actor is not None}
        return self.recorder is None or self.recorder.close(acted, timeout)

    def _stop_trainers(self) -> None:
        for name, phase in tuple(self.phases.items()):
            if not is_final(phase):
                self._observe(name, phase, TrainerEvent.STOP, transition(phase, TrainerEvent.STOP))

    def change_state(self, name: str, state: Any, values: Mapping[str, Any]) -> None:
        """Go on with another state of a trainer, and log what was changed. Called on the training thread.

        Args:
            name: the trainer.
            state: of the same form.
            values: what was changed, as it is in the state now: for the metrics and the recording.
        """
        assert self.learner is not None
        assert self.ready is not None
        run = self.learner.trainers[name]
        self.learner = self.learner.with_trainer(name, with_changed_good(run, state, values))
        if self.recorder is not None:
            self.recorder.changed(name, values)
        changed = ChunkMetrics({f"set_{key}": np.asarray(value) for key, value in values.items()})
        self._put_row(self.ready, name, run.steps, None, changed)

    def _observe(self, trainer: str, before: TrainerPhase, event: TrainerEvent, after: TrainerPhase) -> None:
        self.phases[trainer] = after
        self.control.transition(f"trainer {trainer}", before, event, after)

    def _note(self, ready: Ready, learner: LearnerState, report: TrainReport, metrics: ChunkMetrics) -> None:
        name = report.trainer
        assert name is not None
        if report.error is not None:
            self._note_failure(ready, name, learner.trainers[name], report, report.error)
            return
        self.metrics[name] = report.metrics
        self._put_row(ready, name, learner.trainers[name].steps, report.version, metrics)
        if report.version is not None:
            self.history.add(self.clock.now(), ready.cells, learner)
            self.control.notify()

    def _note_failure(self, ready: Ready, name: str, run: TrainerRun, report: TrainReport, error: Exception) -> None:
        if self._faults.raises:
            self.control.report_error(worker_error(f"trainer {name}", error))
            self.ended = {**self.ended, name: run.reason}
            self.control.notify()
            return
        log_failure(name, run, error)
        if run.phase is TrainerPhase.FAILED:
            self._quarantine(name, error, f"is {run.reason}")
            self.control.notify()
        metrics = ChunkMetrics({**report.metrics, "rollbacks": np.int32(run.faults.rollbacks)})
        self._put_row(ready, name, run.steps, report.version, metrics)
        if report.version is not None:
            self.control.notify()

    def _put_row(self, ready: Ready, name: str, steps: int, version: int | None, metrics: ChunkMetrics) -> None:
        self.rows.put(MetricRow(name, self.clock.now() - ready.at, steps, version, {}), metrics)

    def _wait_for_data(self, cells: Cells, wake: Wake) -> None:
        for collector in cells.collectors.values():
            half = max(1, collector.capacity // 2)  # nobody learns from them yet, but they must not be lost
            records = half if wake.records is None else min(wake.records, half)
            collector.alarm(records, lambda: self.control.nudge(TRAINING))
        self.control.sleep(TRAINING, None if wake.milliseconds is None else wake.milliseconds / 1000)

    def _run_hooks(self, event: str) -> None:
        self._lingering.finish()
        for name, schedule in self.system.trainers.items():
            if (hook := named_hook(f"{event} of trainer {name!r}", getattr(schedule, event))) is not None:
                hook()

    def _refuse_compiles(self, thread: str) -> None:
        if self._strict and self.compiles.of(thread):
            raise CompileAfterReadyError(
                f"{self.compiles.of(thread)} programs were compiled in {thread} after READY; a shape, dtype, weak type "
                "or sharding differs from the first call, or Python code in agent, environment or trainer calls jax. "
                "Set jax.config.jax_log_compiles to see which"
            )
