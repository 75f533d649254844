"""The status of a launched system, put together from what each thread has left to be looked at."""

from __future__ import annotations

from pamiq_jax.runtime.rows import MetricRows, floats
from pamiq_jax.runtime.state import LearnerState
from pamiq_jax.runtime.status import Status, TrainerStatus, buffer_statuses
from pamiq_jax.runtime.watchdog import Watchdog
from pamiq_jax.runtime.workers import Workers


def current_status(workers: Workers, rows: MetricRows, watchdog: Watchdog) -> Status:
    """Return what a system is doing, as of now. Never waits. Called from any thread.

    Args:
        workers: its threads' work.
        rows: for metrics that were lost.
        watchdog: for who is stuck.

    Example:
        See `Run.status`.
    """
    control, ready, learner = workers.control, workers.ready, workers.learner
    status = Status(
        phase=control.phase,
        interactions={name: worker.status for name, worker in workers.inference.items()},
        compiles_after_ready=workers.compiles.total if ready is not None else 0,
        wakeups=dict(control.wakeups),
        metrics_dropped=rows.dropped,
        errors=tuple(str(error) for error in control.errors),
        stuck=watchdog.stuck,
    )
    if ready is None or learner is None:
        return status
    return status._replace(
        seconds=workers.clock.now() - ready.at,
        version=ready.cells.store.latest.version,
        trainers=_trainer_statuses(workers, learner),
        buffers=buffer_statuses(workers.system, ready.cells, learner),
    )


def _trainer_statuses(workers: Workers, learner: LearnerState) -> dict[str, TrainerStatus]:
    return {
        name: TrainerStatus(
            phase=workers.phases[name],
            reason=run.reason,
            runs=run.runs,
            steps=run.steps,
            step_in_run=run.chunk * workers.system.trainers[name].chunk,
            metrics=floats(workers.metrics[name]),
        )
        for name, run in learner.trainers.items()
    }
