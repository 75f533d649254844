"""A policy that may be late: it acts in a thread of its own, and a fallback acts when it has no answer in time."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.runtime.acting import ActFn, TellFn, check_action
from pamiq_jax.runtime.inline import call_inline
from pamiq_jax.runtime.interaction import FallbackFn
from pamiq_jax.runtime.state import ActorState
from pamiq_jax.types import Params, PyTree


class _Request(NamedTuple):
    """What the policy is asked in one tick."""

    params: Mapping[str, Params]
    actor: ActorState
    observation: PyTree
    told: tuple[Mapping[str, Any], ...]


def _tell_nobody(feedback: Mapping[str, Any]) -> None:
    pass


class DeadlinePolicy:
    """Acts by the policy if it answers in time, else by the fallback.

    A policy that is still busy when the next tick comes is not asked again before it has answered. Its late action is
    not done; its carry, which has seen that observation, is what the tick after it goes on from. What it should know of
    the time between, feedback and that its carry is to be renewed, waits for that tick.

    Args:
        act: the policy.
        fallback: `(observation, last action) -> action`.
        seconds: real seconds within which the policy must answer.
        action: example of an action: arrays or specs.
        name: of the thread.
        on_start: called first on the policy's thread.
        tell: tells the policy the feedback, on its thread.
        inline: whether the thread computes programs on the CPU itself, see `call_inline`.
    """

    def __init__(
        self,
        act: ActFn,
        fallback: FallbackFn,
        seconds: float,
        action: PyTree,
        name: str,
        on_start: Callable[[], None] = lambda: None,
        tell: TellFn = _tell_nobody,
        *,
        inline: bool = False,
    ) -> None:
        self._policy, self._fallback, self._seconds, self._on_start, self._tell = act, fallback, seconds, on_start, tell
        self._told: list[Mapping[str, Any]] = []
        self._missed_resets: PyTree = None
        self._form = trees.spec_of(action)
        self._last_action = trees.zeros_of(self._form)
        self._changed = threading.Condition()
        self._request: _Request | None = None
        self._answer: tuple[PyTree, PyTree, Mapping[str, Any] | None] | BaseException | None = None
        self._is_busy = self._is_closed = False
        work = functools.partial(call_inline, self._work) if inline else self._work
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def act(
        self, params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any] | None]:
        """Return the next carry, the action, and extras, or None in their place if the fallback acted.

        Called from the interaction's inference thread. What the policy raises is raised here.
        """
        deadline = time.monotonic() + self._seconds
        if self._missed_resets is not None:
            resets = jax.tree.map(lambda *flags: np.array(np.logical_or(*flags)), actor.resets, self._missed_resets)
            actor = actor._replace(resets=resets)
        with self._changed:
            if not self._is_busy:
                if (late := self._take_answer()) is not None:
                    actor = actor._replace(carry=late[0])
                self._request, self._is_busy = _Request(params, actor, observation, tuple(self._told)), True
                self._told, self._missed_resets = [], None
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._is_busy, deadline - time.monotonic())
                answer = self._take_answer()
            else:
                answer, self._missed_resets = None, actor.resets
        carry, action, extras = (actor.carry, self._fall_back(observation), None) if answer is None else answer
        self._last_action = jax.tree.map(np.array, action)
        return carry, action, extras

    def tell(self, feedback: Mapping[str, Any]) -> None:
        """Keep feedback until the policy is asked next. Called from the interaction's inference thread."""
        self._told.append(jax.tree.map(np.array, dict(feedback)))

    def close(self, timeout: float) -> bool:
        """End the thread, and return whether it has ended in time: a policy that hangs keeps it.

        Args:
            timeout: seconds.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _take_answer(self) -> tuple[PyTree, PyTree, Mapping[str, Any] | None] | None:
        answer, self._answer = self._answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _fall_back(self, observation: PyTree) -> PyTree:
        action = self._fallback(observation, self._last_action)
        check_action("fallback", self._form, action)
        return action

    def _work(self) -> None:
        self._on_start()
        while (request := self._next()) is not None:
            try:
                for feedback in request.told:
                    self._tell(feedback)
                answer: Any = self._policy(request.params, request.actor, request.observation)
            except BaseException as error:  # whatever it is, the tick that waits for the answer raises it
                answer = error
            with self._changed:
                self._answer, self._is_busy = answer, False
                self._changed.notify_all()

    def _next(self) -> _Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._request is not None or self._is_closed)
            request, self._request = self._request, None
            return None if self._is_closed else request
