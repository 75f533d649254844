"""What the agent acts in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from pamiq_jax.types import PyTree


class EnvironmentSpec(NamedTuple):
    """Examples of what passes between an agent and its environment.

    Everything is compiled from these before the first tick, so shapes and dtypes must be right.

    Attributes:
        observation: what `observe` returns: arrays, or `jax.ShapeDtypeStruct`s.
        action: what `affect` takes.
        feedback: what `affect` returns; `{}` where there is none.
    """

    observation: PyTree
    action: PyTree
    feedback: Mapping[str, Any]


class Environment(Protocol):
    """A simulator, a robot, a stream. All methods are called from the inference thread.

    Example:
        >>> import numpy as np
        >>> class Echo:
        ...     spec = EnvironmentSpec(np.zeros(2, np.float32), np.zeros(2, np.float32), {})
        ...     def reset(self, seed):
        ...         self.position = np.zeros(2, np.float32)
        ...     def observe(self):
        ...         return self.position
        ...     def affect(self, action):
        ...         self.position += action
        ...         return {}
        ...     def close(self):
        ...         pass
        >>> environment: Environment = Echo()
    """

    @property
    def spec(self) -> EnvironmentSpec:
        """Examples of observation, action and feedback; known before `reset`."""
        ...

    def reset(self, seed: int) -> None:
        """Start anew; with equal seeds a simulator behaves equally."""
        ...

    def observe(self) -> PyTree:
        """Return the observation as of now. The arrays may be reused: whoever keeps them copies."""
        ...

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Carry out an action and return its outcome, for example reward and terminated."""
        ...

    def close(self) -> None:
        """Release what is held; called once, at the end of a launched run."""
        ...


class WorldFunctions(NamedTuple):
    """An environment as pure functions of its state, to be compiled with whatever acts and learns in it.

    Attributes:
        start: `(rng_key) -> world`, its first state: a pytree of arrays.
        observe: `(world) -> observation`.
        affect: `(world, action) -> (world, feedback)`, a world of equal form.
    """

    start: Callable[[jax.Array], PyTree]
    observe: Callable[[PyTree], PyTree]
    affect: Callable[[PyTree, PyTree], tuple[PyTree, Mapping[str, Any]]]


@runtime_checkable
class PureEnvironment(Environment, Protocol):
    """An environment that shows its state and its pure functions, so that `run_scanned` can take it into its program.

    `pamiq_jax.envs.JaxEnvironment` is one; whoever writes another has `reset`, `observe` and `affect` do the same as
    the functions.

    Attributes:
        world: its state as of now; `run_scanned` leaves the last one here.
    """

    world: PyTree

    @property
    def functions(self) -> WorldFunctions:
        """What it is made of."""
        ...
