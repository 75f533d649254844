"""Gymnasium's environments, one at a time or many at once, as what a system acts in.

After the last step of an episode the true last observation is observed, so a truncated episode can
be bootstrapped from it. The tick after that ignores its action and starts the next episode; its feedback
has reward 0 and `autoreset`. Gymnasium calls this the NEXT_STEP mode of vector environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pamiq_jax.envs.require import gymnasium
from pamiq_jax.envs.spaces import from_space, space_spec, to_space
from pamiq_jax.envs.state import EnvironmentState, python_state, state_of
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime import EnvironmentSpec
from pamiq_jax.types import PyTree

_NEXT_STEP = gymnasium.vector.AutoresetMode.NEXT_STEP


class GymnasiumEnvironment:
    """One Gymnasium environment.

    Feedback is `{"reward": float32[], "terminated": bool[], "truncated": bool[], "autoreset": bool[]}`.
    Spaces may be Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of them.

    Args:
        environment: what `gymnasium.make` returns. It belongs to the adapter from here on.
        state: how its state is saved and loaded, for runs that are resumed exactly; by default as `state_of` knows.
            Without one, a resumed run begins a new episode.

    Raises:
        InvalidValueError: a space that has no arrays of a fixed shape, or a vector environment.

    Example:
        >>> environment = GymnasiumEnvironment(gymnasium.make("CartPole-v1"))
        >>> environment.reset(seed=0)
        >>> environment.observe().shape, environment.affect(np.int32(1))["reward"].item()
        ((4,), 1.0)
        >>> environment.close()
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], *, state: EnvironmentState | None = None) -> None:
        name = "GymnasiumEnvironment(environment)"
        if isinstance(environment, gymnasium.vector.VectorEnv):
            raise InvalidValueError(name, environment, "one environment", "use GymnasiumVectorEnvironment")
        if not isinstance(environment, gymnasium.Env):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may not type
            raise InvalidValueError(name, environment, "an environment", "pass what gymnasium.make returns")
        self._environment = environment
        self._spec = _environment_spec(environment.observation_space, environment.action_space, ())
        self._observation: Any = _NOT_RESET
        self._has_ended = False
        self._state = state_of(environment) if state is None else state

    @property
    def spec(self) -> EnvironmentSpec:
        """The forms of observation, action and feedback, without a batch axis."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Start a first episode.

        Args:
            seed: of the environment's own randomness, for this and the following episodes.
        """
        self._observation, _ = self._environment.reset(seed=seed)
        self._has_ended = False

    def observe(self) -> PyTree:
        """Return the newest observation."""
        return from_space(self._environment.observation_space, _checked(self._observation))

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Take a step, or start the next episode if the last tick ended one.

        Args:
            action: arrays of the form of `spec.action`; ignored where an episode is started.
        """
        if self._has_ended:
            self._observation, _ = self._environment.reset()
            self._has_ended = False
            return _feedback(0.0, False, False, True)
        step = self._environment.step(to_space(self._environment.action_space, action))
        self._observation, reward, terminated, truncated, _ = step
        self._has_ended = bool(terminated or truncated)
        return _feedback(reward, terminated, truncated, False)

    def save_state(self) -> PyTree | None:
        """Return the state, or None if nobody knows how to save it."""
        return None if self._state is None else _saved(self._state, self._environment, self)

    def load_state(self, state: PyTree) -> None:
        """Go on from a state. Called after `reset`.

        Args:
            state: what `save_state` returned.
        """
        _load(self._state, self._environment, state)
        self._observation, self._has_ended = state["observation"], bool(state["has_ended"])

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()


class GymnasiumVectorEnvironment:
    """Several Gymnasium environments that are stepped together, `N` of them.

    Feedback is `{"reward": float32[N], "terminated": bool[N], "truncated": bool[N], "autoreset": bool[N]}`.

    Args:
        environments: what `gymnasium.make_vec` returns, in the autoreset mode NEXT_STEP, which is the
            default there. It belongs to the adapter from here on.
        state: as in `GymnasiumEnvironment`; known for `vectorization_mode="sync"`.

    Raises:
        InvalidValueError: a space that has no arrays of a fixed shape, or another autoreset mode.

    Example:
        >>> environments = GymnasiumVectorEnvironment(gymnasium.make_vec("CartPole-v1", num_envs=3))
        >>> environments.reset(seed=0)
        >>> environments.observe().shape, environments.affect(np.ones(3, np.int32))["reward"].tolist()
        ((3, 4), [1.0, 1.0, 1.0])
        >>> environments.close()
    """

    def __init__(
        self, environments: gymnasium.vector.VectorEnv[Any, Any, Any], *, state: EnvironmentState | None = None
    ) -> None:
        _check_vector(environments)
        self._environments = environments
        self.num_envs = environments.num_envs
        shape = (self.num_envs,)
        # The batched spaces need not show what is refused here: a Discrete with a start may become a Box.
        space_spec(environments.single_observation_space, "single_observation_space")
        space_spec(environments.single_action_space, "single_action_space")
        self._spec = _environment_spec(environments.observation_space, environments.action_space, shape)
        self._observation: Any = _NOT_RESET
        self._has_ended = np.zeros(shape, np.bool_)
        self._state = state_of(environments) if state is None else state

    @property
    def spec(self) -> EnvironmentSpec:
        """The forms of observation, action and feedback, with the axis `[N, ...]`."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Start a first episode in each.

        Args:
            seed: of the environments' own randomness, for this and the following episodes.
        """
        self._observation, _ = self._environments.reset(seed=seed)
        self._has_ended = np.zeros_like(self._has_ended)

    def observe(self) -> PyTree:
        """Return the newest observations."""
        return from_space(self._environments.observation_space, _checked(self._observation))

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Take a step in each, or start its next episode if the last tick ended one.

        Args:
            action: arrays of the form of `spec.action`; rows where an episode is started are ignored.
        """
        step = self._environments.step(to_space(self._environments.action_space, action))
        self._observation, reward, terminated, truncated, _ = step
        feedback = _feedback(reward, terminated, truncated, self._has_ended)
        self._has_ended = feedback["terminated"] | feedback["truncated"]
        return feedback

    def save_state(self) -> PyTree | None:
        """Return the state, or None if nobody knows how to save it."""
        return None if self._state is None else _saved(self._state, self._environments, self)

    def load_state(self, state: PyTree) -> None:
        """Go on from a state. Called after `reset`.

        Args:
            state: what `save_state` returned.
        """
        _load(self._state, self._environments, state)
        self._observation, self._has_ended = state["observation"], np.array(state["has_ended"])

    def close(self) -> None:
        """Close the environments."""
        self._environments.close()


def _saved(state: EnvironmentState, environment: Any, adapter: Any) -> PyTree | None:
    inner = state.save(environment)
    if inner is None and state is python_state:
        return None
    observation = jax.tree.map(np.array, adapter._observation)
    return {"inner": inner, "observation": observation, "has_ended": np.array(adapter._has_ended)}


def _load(state: EnvironmentState | None, environment: Any, saved: PyTree) -> None:
    if state is None:
        raise InvalidValueError("load_state(state)", None, "an environment that can load it", "pass `state=`")
    state.load(environment, saved["inner"])


_NOT_RESET = object()


def _checked(observation: Any) -> Any:
    if observation is _NOT_RESET:
        raise gymnasium.error.ResetNeeded("there is no observation yet; call `reset(seed)` first")
    return observation


def _environment_spec(observation_space: Any, action_space: Any, shape: tuple[int, ...]) -> EnvironmentSpec:
    flag = jax.ShapeDtypeStruct(shape, np.bool_)
    feedback = {"terminated": flag, "truncated": flag, "autoreset": flag}
    return EnvironmentSpec(
        observation=space_spec(observation_space, "observation_space"),
        action=space_spec(action_space, "action_space"),
        feedback={"reward": jax.ShapeDtypeStruct(shape, np.float32), **feedback},
    )


def _feedback(reward: Any, terminated: Any, truncated: Any, autoreset: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return copies: some vector environments write the next step into the arrays of the last."""
    return {
        "reward": np.array(reward, np.float32),
        "terminated": np.array(terminated, np.bool_),
        "truncated": np.array(truncated, np.bool_),
        "autoreset": np.array(autoreset, np.bool_),
    }


def _check_vector(environments: Any) -> None:
    name = "GymnasiumVectorEnvironment(environments)"
    if not isinstance(environments, gymnasium.vector.VectorEnv):
        raise InvalidValueError(name, environments, "a vector environment", "use GymnasiumEnvironment for a single one")
    mode: Any = environments.metadata.get("autoreset_mode")
    if mode is not _NEXT_STEP:
        raise InvalidValueError(
            f"{name} autoreset_mode",
            mode,
            str(_NEXT_STEP),
            "another mode hides an episode's last observation; in gymnasium.make_vec pass "
            'vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}',
        )
