"""The lifecycle as data: phases, events, transition tables, and one function that looks them up."""

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
