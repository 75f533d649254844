"""An agent in its environment, and at what pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pamiq_jax.arguments import checked_function, checked_positive, in_short
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.facts import facts_html, facts_text
from pamiq_jax.runtime.agent import Agent, PythonAgent
from pamiq_jax.runtime.environment import Environment
from pamiq_jax.types import PyTree

AGENT = "agent"
"""The name of a system's only interaction."""

_PARTS = ("spec", "reset", "observe", "affect", "close")
"""What an `Environment` must have."""

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
            without a fallback, an agent that is neither, an environment that lacks a method, or no function.

    Example:
        A robot that stands still when its policy has no answer within 20 ms of each 50:

        >>> import numpy as np, pamiq_jax as pj
        >>> class Robot:
        ...     spec = pj.EnvironmentSpec(np.zeros(3, np.float32), np.zeros(3, np.float32), {})
        ...     def reset(self, seed): ...
        ...     def observe(self): return np.zeros(3, np.float32)
        ...     def affect(self, action): return {}
        ...     def close(self): ...
        >>> agent = Agent(lambda params, carry, observation, rng_key: (carry, params["policy"], {}))
        >>> interaction = Interaction(
        ...     agent, Robot(), interval_seconds=0.05, deadline_seconds=0.02,
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
        _check_environment(self.environment)
        action = "(observation, last action) -> action"
        checked_function("Interaction(fallback)", self.fallback, action, is_optional=True)
        for hook in ("on_paused", "on_resumed"):
            checked_function(f"Interaction({hook})", getattr(self, hook), "a function", is_optional=True)
        _check_collect(self.collect)
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
        if isinstance(agent, Agent):
            checked_function(
                "Agent(act)", agent.act, "(params, carry, observation, rng_key) -> (carry, action, extras)"
            )
            checked_function(
                "Agent(init)", agent.init, "(rng_key) -> carry", "leave it out for an agent without memory"
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


def _check_environment(environment: Any) -> None:
    """Raise unless this is an environment, and not a class of which there is none yet: users may not type."""
    expected = "an object with " + ", ".join(f"`{part}`" for part in _PARTS)
    if isinstance(environment, type):
        remedy = f"make one of the class: {environment.__name__}(...)"
        raise InvalidValueError("Interaction(environment)", environment, expected, remedy)
    known = dir(environment)  # an environment may take its time to say its `spec`
    if missing := [part for part in _PARTS if part not in known and not hasattr(environment, part)]:
        actual = f"{type(environment).__name__} without {', '.join(missing)}"
        remedy = "see Environment; one of Gymnasium's is wrapped: pamiq_jax.envs.GymnasiumEnvironment(...)"
        raise InvalidValueError("Interaction(environment)", actual, expected, remedy)


def _check_collect(collect: Any) -> None:
    if collect is None:
        return
    expected = "a dict {buffer: (record) -> what to store}"
    if not isinstance(collect, Mapping):
        raise InvalidValueError("Interaction(collect)", in_short(collect), expected, "None stores whole records")
    for buffer, function in collect.items():
        checked_function(f"Interaction(collect) of buffer {buffer!r}", function, "(record) -> what to store")
