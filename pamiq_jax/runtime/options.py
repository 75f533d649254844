"""What a launched run is told, beside the system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pamiq_jax.runtime.events import OnTransition
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
from pamiq_jax.runtime.limits import DEADLINES, Deadlines
from pamiq_jax.runtime.rows import OnMetrics
from pamiq_jax.runtime.state import InferReport


class Observers(NamedTuple):
    """What looks on at a run; each is described at `launch`."""

    on_metrics: OnMetrics | None = None
    on_interaction: Callable[[InferReport], Any] | None = None
    on_transition: OnTransition | None = None
    record: bool = False
    history: int = 0


class Watching(NamedTuple):
    """What watches over a run; each is described at `launch`."""

    deadlines: Deadlines = DEADLINES
    save_signals: tuple[int, ...] = ()
    faults: FaultPolicy = FAIL_FAST
