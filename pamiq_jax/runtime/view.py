"""What a run, and a trainer of one, show in a notebook."""

from __future__ import annotations

from pamiq_jax.conditions import Progress, terms
from pamiq_jax.display import escape, table
from pamiq_jax.lifecycle import SystemPhase, lifecycle_svg
from pamiq_jax.runtime.scheduling import progress
from pamiq_jax.runtime.status import Status
from pamiq_jax.runtime.workers import Workers


def trainer_html(name: str, workers: Workers) -> str:
    """Return a trainer's lifecycle with its present phase, and its conditions with their present truth.

    Args:
        name: of the trainer.
        workers: of the run.
    """
    learner, ready = workers.learner, workers.ready
    if learner is None or ready is None:
        return f"<p>trainer {escape(name)}: not compiled yet</p>"
    run = learner.trainers[name]
    now = progress(ready.compiled.programs, learner, ready.cells, workers.clock, name)
    rows = [
        (key, "\N{NO-BREAK SPACE}" * 4 * term.depth + term.text, "holds" if term.holds else "no", term.reason)
        for key, source in workers.system.trainers[name].sources.items()
        for term in terms(source.condition, now[key], run.last.get(key, Progress()))
    ]
    head = f"<p><b>{escape(name)}</b>: {run.steps:,} steps in {run.runs:,} runs. {escape(run.reason)}</p>"
    return head + lifecycle_svg(workers.phases[name]) + table(["source", "condition", "now", "why"], rows)


def run_html(status: Status) -> str:
    """Return the system's lifecycle with its present phase, above its status in words.

    Args:
        status: of the run.
    """
    return f"{lifecycle_svg(SystemPhase(status.phase))}<pre>{escape(status)}</pre>"
