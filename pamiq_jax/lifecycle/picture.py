"""The transition tables as pictures, an SVG or the text of a diagram, with the present phase marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pamiq_jax.display import ACCENT, ALARM, PAPER, Arrow, Box, drawing
from pamiq_jax.lifecycle.machine import Phase, allowed_events
from pamiq_jax.lifecycle.tables import SYSTEM_TRANSITIONS, TRAINER_TRANSITIONS, SystemPhase, TrainerPhase

_COMMON = 3
"""An event that leads as many phases to one target is drawn once, lest its arrows hide the others."""

_TRAINER_PLACES: Mapping[Phase, tuple[float, float]] = {
    TrainerPhase.WAITING: (70, 130),
    TrainerPhase.SETTING_UP: (230, 50),
    TrainerPhase.TRAINING: (420, 50),
    TrainerPhase.PUBLISHING: (420, 210),
    TrainerPhase.TEARING_DOWN: (230, 210),
    TrainerPhase.FAILED: (610, 100),
    TrainerPhase.STOPPED: (610, 170),
}
_SYSTEM_PLACES: Mapping[Phase, tuple[float, float]] = {
    SystemPhase.NEW: (55, 50),
    SystemPhase.COMPILING: (205, 50),
    SystemPhase.RESTORING: (375, 50),
    SystemPhase.READY: (535, 50),
    SystemPhase.RUNNING: (665, 50),
    SystemPhase.PAUSING: (835, 50),
    SystemPhase.PAUSED: (835, 140),
    SystemPhase.RESUMING: (665, 140),
    SystemPhase.STOPPING: (500, 140),
    SystemPhase.STOPPED: (335, 140),
    SystemPhase.FAILED: (190, 140),
}


def lifecycle_svg(phase: Phase) -> str:
    """Return the lifecycle that a phase belongs to as an SVG in which that phase is marked.

    What ends it from almost anywhere (`stop`, `fail`, a roll-back) has no arrows; the caption says so.

    Args:
        phase: a `TrainerPhase` or a `SystemPhase`.

    Example:
        >>> from pamiq_jax.lifecycle import TrainerPhase
        >>> picture = lifecycle_svg(TrainerPhase.TRAINING)
        >>> picture[:4], picture.count("<rect")
        ('<svg', 7)
    """
    is_trainer = isinstance(phase, TrainerPhase)
    table = TRAINER_TRANSITIONS if is_trainer else SYSTEM_TRANSITIONS
    places = _TRAINER_PLACES if is_trainer else _SYSTEM_PLACES
    boxes = {str(each): Box(each.value.replace("_", " "), x, y, _fill(each, phase)) for each, (x, y) in places.items()}
    drawn: list[Arrow] = []
    for (source, event), target in table.items():
        alike = sum(1 for (_, other), end in table.items() if (other, end) == (event, target))
        if alike < _COMMON and source != target:
            back = any(a == target and b == source for (a, _), b in table.items())
            drawn.append(Arrow(str(source), str(target), str(event).replace("_", " "), 22.0 if back else 0.0))
    answers = ", ".join(str(event).replace("_", " ") for event in allowed_events(phase)) or "nothing, it is final"
    return drawing(boxes, drawn, f"{phase.value.replace('_', ' ')}. Possible now: {answers}")


def _fill(phase: Phase, current: Phase) -> str:
    if phase != current:
        return PAPER
    return ALARM if phase.value == "failed" else ACCENT


def mermaid[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], current: P | None = None) -> str:
    """Return the table as the text of a Mermaid `stateDiagram-v2`.

    The initial phase is that of the table's first key; a phase without a row is final. An event that at
    least three phases answer in the same way gets one arrow, from a node that says which phases those are.

    Args:
        table: the phase that follows on each (phase, event).
        current: a phase to highlight, for a live view.

    Example:
        >>> mermaid(TRAINER_TRANSITIONS).splitlines()[:3]
        ['stateDiagram-v2', '    [*] --> waiting', '    waiting --> setting_up: start']
    """
    arrows: dict[tuple[E, P], list[str]] = {}
    for (source, event), target in table.items():
        arrows.setdefault((event, target), []).append(source)
    lines = [f"[*] --> {next(iter(table))[0]}"]
    for (event, target), sources in arrows.items():
        if len(sources) < _COMMON:
            lines += [f"{source} --> {target}: {event}" for source in sources]
        else:
            node, label = _common_node(table, sources)
            lines += [f'state "{label}" as {node}', f"{node} --> {target}: {event}"]
    with_row = {source for source, _ in table}
    lines += [f"{phase} --> [*]" for phase in dict.fromkeys(table.values()) if phase not in with_row]
    if current is not None:
        lines += ["classDef current fill:#ffe8a3,stroke:#b7791f,color:#1a202c", f"class {current} current"]
    # As keys, since two events that come from the same phases declare the same node.
    return "stateDiagram-v2\n" + "".join(f"    {line}\n" for line in dict.fromkeys(lines))


def _common_node[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], sources: Sequence[str]) -> tuple[str, str]:
    others = [phase for phase in dict.fromkeys(source for source, _ in table) if phase not in sources]
    return "_but_".join(["any_phase", *others]), ", but not ".join(["any phase that is not final", *others])
