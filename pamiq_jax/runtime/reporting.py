"""The status of a launched system, put together from what each thread has left to be looked at."""

from __future__ import annotations

from pamiq_jax.runtime.rows import MetricRows
from pamiq_jax.runtime.status import Status, buffer_statuses, trainer_statuses
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
        errors=tuple(str(error) for error in (*control.errors, *workers.quarantined.values())),
        saves=workers.saving.status,
        stuck=watchdog.stuck,
        recording=None if workers.recorder is None else workers.recorder.status,
    )
    if ready is None or learner is None:
        return status
    return status._replace(
        seconds=workers.clock.now() - ready.at,
        version=ready.cells.store.latest.version,
        trainers=trainer_statuses(workers.system, learner, workers.phases, workers.metrics),
        buffers=buffer_statuses(workers.system, ready.cells, learner),
    )
