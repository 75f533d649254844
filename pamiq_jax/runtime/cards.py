"""What parts of a system, a moment of one and its status show in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pamiq_jax import conditions, lifecycle
from pamiq_jax.display import escape, table
from pamiq_jax.facts import facts_html

if TYPE_CHECKING:
    from pamiq_jax.runtime.history import Moment
    from pamiq_jax.runtime.status import InferenceStatus, Status
    from pamiq_jax.runtime.system import Schedule


def schedule_html(schedule: Schedule) -> str:
    """Return what a schedule says, and each of its conditions taken apart.

    Args:
        schedule: of a system.
    """
    cards = [conditions.condition_html(source.condition) for source in schedule.sources.values()]
    return "".join([facts_html(schedule), *cards])


def moment_html(moment: Moment) -> str:
    """Return where each trainer was, and the forms of what was published.

    Args:
        moment: of a run.
    """
    rows = [(name, run.phase.value, f"{run.steps:,}", f"{run.runs:,}") for name, run in moment.trainers.items()]
    head = f"<p><b>Moment</b> at {moment.seconds:.3f} s, version {moment.snapshot.version}</p>"
    return head + table(["trainer", "phase", "steps", "runs"], rows) + facts_html(moment.snapshot)


def status_html(status: Status) -> str:
    """Return the system's lifecycle with its present phase, and a table each of trainers, buffers and interactions.

    Args:
        status: of a run.
    """
    head = f"<p>{escape(status.phase)}, {status.seconds:.1f} s since ready, version {status.version}</p>"
    return lifecycle.lifecycle_svg(status.phase) + head + "".join(_tables(status)) + "".join(_troubles(status))


def _tables(status: Status) -> Iterator[str]:
    if status.trainers:
        rows = [
            (name, each.phase, f"{each.steps:,}", f"{each.runs:,}", short_metrics(each.metrics), each.reason)
            for name, each in status.trainers.items()
        ]
        yield table(["trainer", "phase", "steps", "runs", "metrics", "reason"], rows)
    if status.buffers:
        rows = [
            (name, f"{each.size:,} of {each.capacity:,}", f"{each.seen:,}", f"{each.dropped:,}", f"{each.pending:,}")
            for name, each in status.buffers.items()
        ]
        yield table(["buffer", "records", "seen", "dropped", "waiting"], rows)
    acting = {name: each for name, each in status.interactions.items() if each.ticks}
    if acting:
        rows = [row for name, each in acting.items() for row in _latency_rows(name, each)]
        yield table(["interaction", "ticks", "latency p50 (ms)", "p99 (ms)", "p99.9 (ms)"], rows)


def _latency_rows(name: str, inference: InferenceStatus) -> Iterator[tuple[str, ...]]:
    parts = inference.latency_while.items() if len(inference.latency_while) > 1 else ()
    for what, latency in ((name, inference.latency), *((f"{name}, while {what}", each) for what, each in parts)):
        yield what, f"{latency.total:,}", *(f"{each:.2f}" for each in latency.percentiles_ms)


def short_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line.

    Args:
        metrics: numbers by name.

    Example:
        >>> short_metrics({"loss": 0.123456, "norm": 2.0})
        'loss 0.1235, norm 2'
    """
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _troubles(status: Status) -> Iterator[str]:
    lines = [f"stuck: {stuck}" for stuck in status.stuck] + [f"error: {error}" for error in status.errors]
    if lines:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
