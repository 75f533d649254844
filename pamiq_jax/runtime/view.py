"""What a run, and a trainer of one, show in a notebook."""

from __future__ import annotations

from pamiq_jax.conditions import Progress, terms
from pamiq_jax.conditions.view import term_cells
from pamiq_jax.display import escape, table
from pamiq_jax.lifecycle import lifecycle_svg
from pamiq_jax.runtime.cards import status_html
from pamiq_jax.runtime.scheduling import progress
from pamiq_jax.runtime.status import Status
from pamiq_jax.runtime.workers import Workers


def trainer_html(name: str, workers: Workers) -> str:
    """Return a trainer's lifecycle with its present phase, and its conditions with their present truth.

    Args:
        name: of the trainer.
        workers: of the run.
    """
    learner = workers.learner
    if learner is None or workers.ready is None:
        return f"<p>trainer {escape(name)}: not compiled yet</p>"
    run = learner.trainers[name]
    head = f"<p><b>{escape(name)}</b>: {run.steps:,} steps in {run.runs:,} runs. {escape(run.reason)}</p>"
    return head + lifecycle_svg(workers.phases[name]) + conditions_html(workers, (name,))


def run_html(status: Status, workers: Workers) -> str:
    """Return the system's lifecycle with its present phase, its status, and each trainer's conditions.

    Args:
        status: of the run.
        workers: of the run.
    """
    return status_html(status) + conditions_html(workers, tuple(workers.system.trainers))


def conditions_html(workers: Workers, names: tuple[str, ...]) -> str:
    """Return the conditions of trainers, taken apart: which parts hold now, and why. "" before they are known.

    Args:
        workers: of the run.
        names: of the trainers.
    """
    learner, ready = workers.learner, workers.ready
    if learner is None or ready is None or not names:
        return ""
    rows: list[tuple[str, ...]] = []
    for name in names:
        last = learner.trainers[name].last
        now = progress(ready.compiled.programs, learner, ready.cells, workers.clock, name)
        for key, source in workers.system.trainers[name].sources.items():
            parts = terms(source.condition, now[key], last.get(key, Progress()))
            rows += [(name, source.buffer, *term_cells(term)) for term in parts]
    return table(["trainer", "buffer", "condition", "now", "why"], rows)
