"""An agent in its environment, and at what pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pamiq_jax.arguments import checked_positive
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.facts import facts_html, facts_text
from pamiq_jax.runtime.agent import Agent, PythonAgent
from pamiq_jax.runtime.environment import Environment
from pamiq_jax.types import PyTree

AGENT = "agent"
"""The name of a system's only interaction."""

type FallbackFn = Callable[[PyTree, PyTree], PyTree]
"""`(observation, last action) -> action` for a policy that is late; arrays as the environment's spec says."""


@dataclass(frozen=True)
class Interaction:
    """An agent in an environment.

    Args:
        agent: a pure `Agent`, or a `PythonAgent`.
        environment: what it acts in.
        interval_seconds: time from one tick to the next; None runs freely.
        collect: for each buffer that is fed, `(record) -> what to store`. A record is a dict with
            "observation", "action", the environment's feedback and the agent's extras. By default
            every buffer of the system gets the whole record.
        fallback: `(observation, last action) -> action`, done in place of an action that is late. The policy then
            runs in a thread of its own, and what it finds out later goes into the next tick's carry. Such a tick is
            counted and not recorded, since the policy's extras are not known: the records have a gap there.
            None waits for the policy, however long it takes.
        deadline_seconds: how long after the observation an action is late; None is the interval. In lockstep, and
            on any clock that stands still within a tick, no action is late.
        on_paused: called on the inference thread once it has stopped, before the pause is acknowledged.
        on_resumed: called on the inference thread before it goes on.

    Raises:
        InvalidValueError: an interval or a deadline out of range, a fallback without a deadline or a deadline
            without a fallback, or an agent that is neither.

    Example:
        A robot that stands still when its policy has no answer within 20 ms of each 50:

        >>> import numpy as np
        >>> robot, agent = None, Agent(lambda params, carry, observation, rng_key: (carry, params["policy"], {}))
        >>> interaction = Interaction(
        ...     agent, robot, interval_seconds=0.05, deadline_seconds=0.02,
        ...     fallback=lambda observation, last_action: np.zeros_like(last_action),
        ... )
        >>> interaction.deadline
        0.02
    """

    agent: Agent[Any] | PythonAgent
    environment: Environment
    interval_seconds: float | None = None
    collect: Mapping[str, Callable[[dict[str, Any]], PyTree]] | None = None
    fallback: FallbackFn | None = None
    deadline_seconds: float | None = None
    on_paused: Callable[[], None] | None = None
    on_resumed: Callable[[], None] | None = None
    _repr_html_, __repr__ = facts_html, facts_text

    def __post_init__(self) -> None:
        self._check_agent()
        if self.interval_seconds is not None:
            remedy = "None runs without a fixed interval"
            checked_positive("Interaction(interval_seconds)", self.interval_seconds, remedy)
        self._check_deadline()

    def _check_agent(self) -> None:
        agent: Any = self.agent
        if not isinstance(agent, Agent | PythonAgent):
            raise InvalidValueError(
                "Interaction(agent)",
                type(agent).__name__,
                "an Agent(act) or an object with `extras`, `reset` and `act`",
                "wrap a pure function as Agent(act)",
            )

    def _check_deadline(self) -> None:
        deadline, interval = self.deadline_seconds, self.interval_seconds
        if deadline is not None:
            checked_positive("Interaction(deadline_seconds)", deadline, "None is the interval")
        if deadline is not None and not 0 < deadline <= (deadline if interval is None else interval):
            expected = "more than 0" if interval is None else f"more than 0, and at most the interval of {interval}"
            raise InvalidValueError("Interaction(deadline_seconds)", deadline, expected)
        if deadline is not None and self.fallback is None:
            remedy = "without one the tick waits for the policy, and deadline_misses counts the ticks left out"
            raise InvalidValueError("Interaction(fallback)", None, "one, since there is a deadline", remedy)
        if self.fallback is not None and self.deadline is None:
            remedy = "give deadline_seconds or interval_seconds"
            raise InvalidValueError("Interaction(deadline_seconds)", None, "seconds, since there is a fallback", remedy)

    @property
    def deadline(self) -> float | None:
        """Seconds after which the fallback acts; None without a fallback."""
        if self.fallback is None:
            return None
        return self.interval_seconds if self.deadline_seconds is None else self.deadline_seconds
