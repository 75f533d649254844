"""Programs that note on their thread's pulse what they are about to do: the ticks themselves know nothing of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pamiq_jax.runtime.acting import ActFn, TellFn
from pamiq_jax.runtime.environment import Environment, EnvironmentSpec
from pamiq_jax.runtime.heartbeat import ACT, AFFECT, CLOSE, OBSERVE, ON_FEEDBACK, RESET, Activity, Pulse
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.state import ActorState
from pamiq_jax.trainer import TrainerPrograms
from pamiq_jax.types import Params, PyTree


class WatchedEnvironment:
    """An environment whose methods are noted before they begin.

    Args:
        environment: what is called.
        pulse: the inference thread's.

    Example:
        >>> from pamiq_jax.runtime.clock import VirtualClock
        >>> from pamiq_jax.runtime.heartbeat import Alarm
        >>> class Still:
        ...     spec = EnvironmentSpec(0.0, 0.0, {})
        ...     def observe(self): return 0.0
        >>> pulse = Pulse(VirtualClock().now, Alarm())
        >>> WatchedEnvironment(Still(), pulse).observe(), pulse.beat.activity.text
        (0.0, 'environment.observe')
    """

    def __init__(self, environment: Environment, pulse: Pulse) -> None:
        self._environment, self._enter = environment, pulse.enter

    @property
    def spec(self) -> EnvironmentSpec:
        """The environment's."""
        return self._environment.spec

    def reset(self, seed: int) -> None:
        """Start anew."""
        self._enter(RESET)
        self._environment.reset(seed)

    def observe(self) -> PyTree:
        """Return the observation."""
        self._enter(OBSERVE)
        return self._environment.observe()

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Carry out an action and return its outcome."""
        self._enter(AFFECT)
        return self._environment.affect(action)

    def close(self) -> None:
        """Release what is held."""
        self._enter(CLOSE)
        self._environment.close()


def watched_act(act: ActFn, pulse: Callable[[], Pulse], *, rests: bool = False) -> ActFn:
    """Return an agent that notes that it acts.

    Args:
        act: the agent.
        pulse: gives the pulse of the thread it acts on.
        rests: whether that thread has nothing to do between two actions.
    """

    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any] | None]:
        pulse().enter(ACT)
        try:
            return act(params, actor, observation)
        finally:
            if rests:
                pulse().rest()

    return program


def watched_tell(tell: TellFn | None, pulse: Callable[[], Pulse]) -> TellFn | None:
    """Return what notes that the agent is told the feedback.

    Args:
        tell: tells it; None for an agent that does not listen.
        pulse: gives the pulse of the thread it is told on.
    """
    if tell is None:
        return None

    def told(feedback: Mapping[str, Any]) -> None:
        pulse().enter(ON_FEEDBACK)
        tell(feedback)

    return told


def watched_interaction(programs: Programs, name: str, pulse: Pulse) -> Programs:
    """Return programs in which an interaction notes what it does.

    Args:
        programs: the compiled system.
        name: of the interaction.
        pulse: the inference thread's.
    """
    acting = programs.acting[name]
    environment = WatchedEnvironment(acting.interaction.environment, pulse)
    interaction = dataclasses.replace(acting.interaction, environment=environment)
    acting = acting._replace(
        interaction=interaction,
        act=watched_act(acting.act, lambda: pulse),
        tell=watched_tell(acting.tell, lambda: pulse),
    )
    return programs._replace(acting={**programs.acting, name: acting})


def watched_trainers(programs: Programs, pulse: Pulse) -> Programs:
    """Return programs in which the trainers note what they do.

    Args:
        programs: the compiled system.
        pulse: the training thread's.
    """
    trainers = {name: _watched_trainer(name, trainer, pulse) for name, trainer in programs.trainers.items()}
    return programs._replace(trainers=trainers)


def _watched_trainer(name: str, trainer: TrainerPrograms[Any], pulse: Pulse) -> TrainerPrograms[Any]:
    def noting[**P, R](function: Callable[P, R], activity: Activity) -> Callable[P, R]:
        def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            pulse.enter(activity)
            return function(*args, **kwargs)

        return noted

    return trainer._replace(
        setup=noting(trainer.setup, Activity("training", f"trainer {name!r}: setting up")),
        chunk=noting(trainer.chunk, Activity("training", f"trainer {name!r}: training")),
        publish=noting(trainer.publish, Activity("publishing", f"trainer {name!r}: publishing")),
        teardown=noting(trainer.teardown, Activity("training", f"trainer {name!r}: tearing down")),
    )
