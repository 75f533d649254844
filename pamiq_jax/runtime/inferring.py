"""What an inference thread does: the same tick as in lockstep, again and again, at its interaction's pace."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import numpy as np

from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.control import Control
from pamiq_jax.runtime.deadline import DeadlinePolicy
from pamiq_jax.runtime.failures import named_hook, worker_error
from pamiq_jax.runtime.heartbeat import CLOSE, ON_INTERACTION, RESET
from pamiq_jax.runtime.infer import infer_tick
from pamiq_jax.runtime.inline import call_inline
from pamiq_jax.runtime.interaction import AGENT, Interaction
from pamiq_jax.runtime.process import CompileCounter
from pamiq_jax.runtime.programs import Compiled, Programs, Ready
from pamiq_jax.runtime.saving import Saving
from pamiq_jax.runtime.state import ActorState, InferReport
from pamiq_jax.runtime.status import InferenceStatus, InferenceTally, Meanwhile
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.watched import watched_act, watched_interaction, watched_tell
from pamiq_jax.runtime.worlds import load_world, save_world

INFERENCE = "pamiq-inference"
_CLOSING_SECONDS = 5.0


def inference_thread(interaction: str) -> str:
    """Return the name of an interaction's thread.

    Example:
        >>> inference_thread("agent"), inference_thread("left arm")
        ('pamiq-inference', 'pamiq-inference-left arm')
    """
    return INFERENCE if interaction == AGENT else f"{INFERENCE}-{interaction}"


def reset_interaction(system: System, name: str, seed: int) -> None:
    """Start an environment, and an agent that is a Python object, anew.

    Args:
        system: what the interaction belongs to.
        name: of the interaction.
        seed: of the first interaction; each further one has the next number, so that no two worlds are the same.
    """
    interaction = system.interactions[name]
    seed += list(system.interactions).index(name)
    interaction.environment.reset(seed)
    if not isinstance(interaction.agent, Agent):
        interaction.agent.reset(seed)


def begin_interaction(
    system: System, name: str, seed: int, compiled: Compiled, world: Mapping[str, Any] | None
) -> ActorState:
    """Start an interaction, or let it go on in a restored world, and return the state of its next tick.

    A world that cannot be restored begins anew, with another seed than before; the agent's carry too, if the agent has
    a flag for that.

    Args:
        system: what the interaction belongs to.
        name: of the interaction.
        seed: as given to the run.
        compiled: with the actors' first states.
        world: what was saved of environment and agent; None if nothing was restored.
    """
    actor = compiled.actors[name]
    if world is None:
        reset_interaction(system, name, seed)
        return actor
    reset_interaction(system, name, seed + actor.tick)
    if load_world(system.interactions[name], dict(world)):
        return actor
    return actor._replace(resets=jax.tree.map(np.ones_like, actor.resets))


class InferenceWorker:
    """One interaction's thread, and the newest value that it has left to be looked at.

    Only this thread writes. `actor` is an immutable value and `status` makes one; reading them takes no lock.

    Args:
        system: what the interaction belongs to.
        name: of the interaction.
        seed: of all randomness.
        clock: for everything that asks for the time.
        control: where the threads meet.
        compiles: counts what this thread compiles.
        refuse_compiles: raises, in strict mode, if a thread of that name has compiled.
        on_interaction: called after each tick, on this thread.
        on_version: told from which tick on the interaction acts with another version: `(interaction, tick, version)`.
        get_meanwhile: returns what the rest of the system does, for the latencies to be told apart by.
    """

    def __init__(
        self,
        system: System,
        name: str,
        *,
        seed: int,
        clock: Clock,
        control: Control,
        compiles: CompileCounter,
        refuse_compiles: Callable[[str], None],
        on_interaction: Callable[[InferReport], Any] | None,
        on_version: Callable[[str, int, int], None] | None = None,
        get_meanwhile: Callable[[], Meanwhile] = lambda: Meanwhile.IDLE,
    ) -> None:
        self.interaction: Interaction = system.interactions[name]
        self.thread = inference_thread(name)
        self.actor: ActorState | None = None
        self._pulse = control.heartbeats[self.thread]
        self._tally = InferenceTally()
        self._system, self._name, self._seed = system, name, seed
        self._ready: Ready | None = None
        self._on_paused = named_hook(f"on_paused of interaction {name!r}", self.interaction.on_paused)
        self._on_resumed = named_hook(f"on_resumed of interaction {name!r}", self.interaction.on_resumed)
        self._clock, self._control, self._compiles = clock, control, compiles
        self._refuse_compiles, self._on_interaction = refuse_compiles, on_interaction
        self._on_version, self._get_meanwhile = on_version, get_meanwhile

    @property
    def status(self) -> InferenceStatus:
        """What was counted so far. Called from any thread."""
        return self._tally.status

    def run(self, get_ready: Callable[[], Ready | None]) -> None:
        """Act until the system ends. The thread's target.

        Args:
            get_ready: returns the compiled system, once it runs.
        """
        self._compiles.watch(self.thread)
        self._pulse = self._control.heartbeats.attach(self.thread)
        try:
            self._infer_until_end(get_ready)
        except BaseException as error:  # nobody acts here any more; the last one to go takes the system with it
            self._control.report_error(worker_error(self.thread, error))
            self._control.leave(self.thread, is_fatal=self._control.is_last(self.thread, INFERENCE))
        finally:
            self._close()
            self._control.leave(self.thread)

    def hand_in(self, saving: Saving, ready: Ready) -> None:
        """Add this interaction's state to the save under way. Called on this thread, between two ticks.

        Args:
            saving: where to.
            ready: what the interaction begins from, should it not have begun yet.
        """

        def get() -> tuple[ActorState, dict[str, Any]]:
            if self.actor is None:
                return ready.compiled.actors[self._name], dict(ready.world(self._name) or {})
            return self.actor, save_world(self.interaction)

        saving.hand_in(self._name, get)

    def _mark_gaps(self) -> None:
        """Say that the next record does not follow the last one."""
        if self._ready is not None:  # before that nothing was recorded
            for buffer in self._system.collects(self._name):
                self._ready.cells.collectors[buffer].mark_gap()

    def _resumed(self) -> None:
        self._mark_gaps()
        if self._on_resumed is not None:
            self._on_resumed()

    def _goes_on(self) -> bool:
        return self._control.checkpoint(self.thread, self._on_paused, self._resumed)

    def _infer_until_end(self, get_ready: Callable[[], Ready | None]) -> None:
        if not self._goes_on():
            return
        self._pulse.enter(RESET)
        ready = get_ready()
        assert ready is not None, "a worker runs only once the system is ready"
        self.actor = begin_interaction(self._system, self._name, self._seed, ready.compiled, ready.world(self._name))
        with self._with_deadline(ready.compiled.programs) as programs:
            self._ready = ready
            watched = watched_interaction(programs, self._name, self._pulse)
            ticks = functools.partial(self._tick_until_end, watched, ready, self.actor)
            # A Python agent may start programs and go on; one with a fallback acts on the policy's thread.
            if isinstance(self.interaction.agent, Agent) and self.interaction.fallback is None:
                call_inline(ticks)
            else:
                ticks()

    def _tick_until_end(self, programs: Programs, ready: Ready, actor: ActorState) -> None:
        interval, due = self.interaction.interval_seconds, self._clock.now()
        while self._goes_on():
            remaining = due - self._clock.now()
            if interval is not None and remaining > 0:
                self._control.sleep(self.thread, remaining)
                continue  # a pause may have ended the sleep: the tick is not due before its time
            actor, report = infer_tick(programs, actor, ready.cells, self._clock, self._name)
            self.actor = actor
            if report.is_fallback:
                self._mark_gaps()
            if self._on_version is not None and (report.version != self._tally.version or not self._tally.ticks):
                self._on_version(self._name, actor.tick - 1, report.version)
            self._count(report)
            if self._on_interaction is not None:
                self._pulse.enter(ON_INTERACTION)
                try:
                    self._on_interaction(report)
                except Exception as error:
                    error.add_note("in on_interaction")
                    raise
            self._refuse_compiles(self.thread)
            if interval is not None:
                due = self._next_due(due, interval)

    @contextlib.contextmanager
    def _with_deadline(self, programs: Programs) -> Generator[Programs]:
        """Give the programs in which a fallback acts for a late policy, if the interaction has one."""
        fallback, deadline = self.interaction.fallback, self.interaction.deadline
        if fallback is None or deadline is None:
            yield programs
            return
        acting, thread = programs.acting[self._name], f"{self.thread}-policy"
        heartbeats = self._control.heartbeats
        tell = watched_tell(acting.tell, lambda: heartbeats[thread])

        def on_start() -> None:
            self._compiles.watch(self.thread)
            heartbeats.attach(thread)

        policy = DeadlinePolicy(
            watched_act(acting.act, lambda: heartbeats[thread], rests=True),
            fallback,
            deadline / self._clock.scale,
            self.interaction.environment.spec.action,
            thread,
            on_start=on_start,
            inline=isinstance(self.interaction.agent, Agent),
            **({} if tell is None else {"tell": tell}),
        )
        try:
            acting = acting._replace(act=policy.act, tell=None if tell is None else policy.tell)
            yield programs._replace(acting={**programs.acting, self._name: acting})
        finally:
            if policy.close(_CLOSING_SECONDS):
                heartbeats.detach(thread)
            else:
                error = TimeoutError(f"the policy has not answered for {_CLOSING_SECONDS} seconds; its thread is left")
                self._control.report_error(worker_error(thread, error))

    def _count(self, report: InferReport) -> None:
        self._tally.version = report.version
        self._tally.fallbacks += report.is_fallback
        self._tally.acted(report.latency_seconds, report.staleness_seconds, self._meanwhile(report))

    def _meanwhile(self, report: InferReport) -> Meanwhile:
        """Return what else goes on: publishing is over too soon to be met, but leaves a newer version."""
        meanwhile = self._get_meanwhile()
        if meanwhile is Meanwhile.SAVING or self._ready is None:
            return meanwhile
        return meanwhile if self._ready.cells.store.latest.version == report.version else Meanwhile.PUBLISHING

    def _next_due(self, due: float, interval: float) -> float:
        """Return the next multiple of the interval that is not past; those that are count as missed."""
        missed = max(0, math.floor((self._clock.now() - due) / interval))
        self._tally.deadline_misses += missed
        return due + (missed + 1) * interval

    def _close(self) -> None:
        self._pulse.enter(CLOSE)
        try:
            self.interaction.environment.close()
        except Exception as error:
            self._control.report_error(worker_error(f"environment.close of interaction {self._name!r}", error))
