"""The lifecycle as data: phases, events, transition tables, and one function that looks them up."""

from pamiq_jax.lifecycle.drawing import mermaid
from pamiq_jax.lifecycle.machine import Event, Phase, allowed_events, is_final, transition
from pamiq_jax.lifecycle.system import SYSTEM_TRANSITIONS, SystemEvent, SystemPhase
from pamiq_jax.lifecycle.trainer import TRAINER_TRANSITIONS, TrainerEvent, TrainerPhase

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
    "mermaid",
    "transition",
]
