"""Draw a transition table as a Mermaid state diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

_COMMON = 3
"""An event that leads as many phases to one target is drawn once, lest its arrows hide the others."""


def mermaid[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], current: P | None = None) -> str:
    """Return the table as the text of a Mermaid `stateDiagram-v2`.

    The initial phase is that of the table's first key; a phase without a row is final. An event that at
    least three phases answer in the same way gets one arrow, from a node that says which phases those are.

    Args:
        table: the phase that follows on each (phase, event).
        current: a phase to highlight, for a live view.

    Returns:
        The diagram's lines, without a code fence, ending in a newline.

    Example:
        >>> from pamiq_jax.lifecycle import TRAINER_TRANSITIONS
        >>> mermaid(TRAINER_TRANSITIONS).splitlines()[:3]
        ['stateDiagram-v2', '    [*] --> waiting', '    waiting --> setting_up: start']
    """
    lines = [f"[*] --> {next(iter(table))[0]}"]
    for (event, target), sources in _arrows(table).items():
        if len(sources) < _COMMON:
            lines += [f"{source} --> {target}: {event}" for source in sources]
        else:
            node, label = _common_node(table, sources)
            lines += [f'state "{label}" as {node}', f"{node} --> {target}: {event}"]
    lines += [f"{phase} --> [*]" for phase in _final_phases(table)]
    if current is not None:
        lines += ["classDef current fill:#ffe8a3,stroke:#b7791f,color:#1a202c", f"class {current} current"]
    # As keys, since two events that come from the same phases declare the same node.
    return "stateDiagram-v2\n" + "".join(f"    {line}\n" for line in dict.fromkeys(lines))


def _arrows[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P]) -> dict[tuple[E, P], list[str]]:
    arrows: dict[tuple[E, P], list[str]] = {}
    for (source, event), target in table.items():
        arrows.setdefault((event, target), []).append(source)
    return arrows


def _common_node[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P], sources: Sequence[str]) -> tuple[str, str]:
    others = [phase for phase in dict.fromkeys(source for source, _ in table) if phase not in sources]
    node = "_but_".join(["any_phase", *others])
    label = ", but not ".join(["any phase that is not final", *others])
    return node, label


def _final_phases[P: StrEnum, E: StrEnum](table: Mapping[tuple[P, E], P]) -> list[P]:
    with_row = {source for source, _ in table}
    return [phase for phase in dict.fromkeys(table.values()) if phase not in with_row]
