"""What an environment, or an agent that is a Python object, can tell of its own state."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.interaction import Interaction
from pamiq_jax.types import PyTree


@runtime_checkable
class Stateful(Protocol):
    """An environment or a `PythonAgent` whose state can be saved. Called from its inference thread, between two ticks.

    A world that is no program has no such methods: it goes on by itself, and a resumed run begins with `reset`.

    Example:
        >>> class Counter:
        ...     count = 0
        ...     def save_state(self): return {"count": self.count}
        ...     def load_state(self, state): self.count = state["count"]
        >>> isinstance(Counter(), Stateful)
        True
    """

    def save_state(self) -> PyTree:
        """Return what decides the future, as dicts, lists and tuples of arrays, numbers, str and None.

        The arrays must not be written to afterwards. None says that the state is not known.
        """
        ...

    def load_state(self, state: PyTree, /) -> None:
        """Go on from what `save_state` returned. Called after `reset`; arrays come as numpy arrays."""
        ...


def save_world(interaction: Interaction) -> dict[str, Any]:
    """Return the states of an interaction's environment and agent, of those that have one.

    Args:
        interaction: whose.
    """
    parts = {"environment": interaction.environment, "agent": interaction.agent}
    states = {name: part.save_state() for name, part in parts.items() if isinstance(part, Stateful)}
    return {name: state for name, state in states.items() if state is not None}


def load_world(interaction: Interaction, states: dict[str, Any]) -> bool:
    """Bring environment and agent to saved states; return whether both go on from where they were.

    Args:
        interaction: whose; its environment has been reset.
        states: what `save_world` returned.
    """
    parts: dict[str, Any] = {"environment": interaction.environment, "agent": interaction.agent}
    for name, state in states.items():
        if isinstance(parts[name], Stateful):
            parts[name].load_state(state)
    return "environment" in states and ("agent" in states or isinstance(interaction.agent, Agent))
