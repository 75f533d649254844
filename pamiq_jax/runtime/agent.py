"""Who acts: a pure function, or any Python object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from pamiq_jax.facts import facts_html, facts_text
from pamiq_jax.types import Params, PyTree


class ActFn[C](Protocol):
    """A policy as a pure function; compiled once, ahead of time."""

    def __call__(
        self, params: Mapping[str, Params], carry: C, observation: PyTree, rng_key: jax.Array, /
    ) -> tuple[C, PyTree, Mapping[str, Any]]:
        """Return the next carry, the action, and what else to record.

        Args:
            params: one snapshot's parameters by model name.
            carry: what the agent remembers, for example a recurrent state; `()` for nothing.
            observation: what the environment observed.
            rng_key: `key[]`, consumed; another one at every tick.
        """
        ...


class CarryFn[C](Protocol):
    """Makes the first carry."""

    def __call__(self, rng_key: jax.Array, /) -> C:
        """Return what the agent remembers before its first tick."""
        ...


def _no_carry(rng_key: jax.Array, /) -> Any:
    return ()


class Agent[C](NamedTuple):
    """An agent as pure functions.

    Attributes:
        act: `(params, carry, observation, rng_key) -> (carry, action, extras)`; extras is a dict whose
            entries are recorded beside observation and action.
        init: `(rng_key) -> carry`; by default `()`.
        resets_on: the name of a flag in the environment's feedback: in the tick after one where it was set, the
            agent acts with a new carry. For Gymnasium's environments that is "autoreset". A flag `[N]` of several
            environments renews the rows of a carry whose leaves are `[N, ...]`. None never forgets.

    Example:
        >>> agent = Agent(lambda params, carry, observation, rng_key: (carry, observation @ params["policy"], {}))
        >>> agent.init(jax.random.key(0))
        ()
    """

    act: ActFn[C]
    init: CarryFn[C] = _no_carry
    resets_on: str | None = None
    _repr_html_, __repr__ = facts_html, facts_text


@runtime_checkable
class PythonAgent(Protocol):
    """An agent that is a Python object with a memory of its own. Called from the inference thread.

    Attributes:
        extras: example of the dict that `act` returns beside the action; `{}` for nothing.
    """

    extras: Mapping[str, Any]

    def reset(self, seed: int) -> None:
        """Forget everything; with equal seeds it then acts equally."""
        ...

    def act(self, params: Mapping[str, Params], observation: PyTree) -> tuple[PyTree, Mapping[str, Any]]:
        """Return the action and what else to record.

        Args:
            params: one snapshot's parameters by model name; read only.
            observation: what the environment observed.
        """
        ...


@runtime_checkable
class FeedbackAgent(PythonAgent, Protocol):
    """A `PythonAgent` that is told what came of each action: its reward, and whether an episode has ended.

    Example:
        >>> class Patient:
        ...     extras = {}
        ...     def reset(self, seed): self.memory = 0.0
        ...     def act(self, params, observation): return params["policy"] + self.memory, {}
        ...     def on_feedback(self, feedback):
        ...         self.memory = 0.0 if feedback["autoreset"] else self.memory + feedback["reward"]
        >>> isinstance(Patient(), FeedbackAgent)
        True
    """

    def on_feedback(self, feedback: Mapping[str, Any]) -> None:
        """Take note of what the environment answered. Called between two calls of `act`, on the same thread.

        Args:
            feedback: of the last action, also if a fallback chose it: numpy arrays, to keep. If the policy was late for
                several ticks, it is called for each of them, oldest first.
        """
        ...
