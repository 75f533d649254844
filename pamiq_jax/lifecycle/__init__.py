"""The lifecycle as data: phases, events, transition tables, and one function that looks them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.lifecycle.machine import Event, Phase, allowed_events, is_final, transition
    from pamiq_jax.lifecycle.picture import lifecycle_svg, mermaid
    from pamiq_jax.lifecycle.tables import (
        SYSTEM_TRANSITIONS,
        TRAINER_TRANSITIONS,
        SystemEvent,
        SystemPhase,
        TrainerEvent,
        TrainerPhase,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "machine": "Event Phase allowed_events is_final transition",
            "picture": "lifecycle_svg mermaid",
            "tables": "SYSTEM_TRANSITIONS TRAINER_TRANSITIONS SystemEvent SystemPhase TrainerEvent TrainerPhase",
        },
    )

__all__ = [
    "SYSTEM_TRANSITIONS",
    "TRAINER_TRANSITIONS",
    "Event",
    "Phase",
    "SystemEvent",
    "SystemPhase",
    "TrainerEvent",
    "TrainerPhase",
    "allowed_events",
    "is_final",
    "lifecycle_svg",
    "mermaid",
    "transition",
]
