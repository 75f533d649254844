"""Make an agent ready to act: compiled ahead of time, with inputs that nobody else can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, StepStructureError
from pamiq_jax.runtime.agent import Agent, PythonAgent
from pamiq_jax.runtime.state import ActorState
from pamiq_jax.runtime.system import Interaction, System
from pamiq_jax.trainer import own
from pamiq_jax.types import Params, PyTree


class ActFn(Protocol):
    """An agent as the inference tick calls it."""

    def __call__(
        self, params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        """Return the next carry, and action and extras as numpy arrays.

        Args:
            params: one snapshot's parameters by model name.
            actor: the state before the tick.
            observation: numpy arrays that nobody else writes to.
        """
        ...


class Acting(NamedTuple):
    """An agent made ready, and the interaction it belongs to.

    Attributes:
        interaction: agent and environment.
        collects: what each buffer stores of a record.
        copy: returns an observation as numpy arrays of its own. Environments write into the array
            they returned, and a JAX computation or a record may still need it then.
        act: the agent.
    """

    interaction: Interaction
    collects: Mapping[str, Callable[[dict[str, Any]], PyTree]]
    copy: Callable[[PyTree], PyTree]
    act: ActFn


def first_actor(interaction: Interaction, rng_key: jax.Array) -> ActorState:
    """Return the state before the first tick.

    Args:
        interaction: whose agent it is.
        rng_key: `key[]`, kept.
    """
    agent = interaction.agent
    carry = own(agent.init(rng_key)) if isinstance(agent, Agent) else ()
    return ActorState(carry=carry, rng_key=own(rng_key))


def acting_program(
    system: System, interaction: Interaction, params: Mapping[str, Params], actor: ActorState
) -> tuple[Acting, dict[str, PyTree]]:
    """Return what acts, and the form of the records that come of it.

    Args:
        system: what the interaction belongs to.
        interaction: agent and environment.
        params: version 0.
        actor: the state before the first tick.
    """
    agent, spec = interaction.agent, interaction.environment.spec
    if isinstance(agent, Agent):
        act, extras = _compile_agent(agent, params, actor, spec.observation, spec.action)
    else:
        act, extras = _python_act(agent, spec.action), agent.extras
    fed = ["observation", "action", *spec.feedback, *extras]
    if repeated := sorted({name for name in fed if fed.count(name) > 1}):
        expected = "other names than those of observation, action and feedback"
        raise InvalidValueError("names of the agent's extras and the environment's feedback", repeated, expected)
    parts = {"observation": spec.observation, "action": spec.action, **spec.feedback, **extras}
    return Acting(interaction, system.collects(), observation_copier(spec.observation), act), {
        name: trees.spec_of(part) for name, part in parts.items()
    }


def observation_copier(example: PyTree) -> Callable[[PyTree], PyTree]:
    """Return what copies an observation into numpy arrays, and refuses one of another form.

    Args:
        example: an observation, arrays or specs.

    Example:
        >>> observation_copier(np.float32(0))(np.zeros(3))
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.RecordMismatchError: the observation differs from the environment's spec: leaf the tree ...
    """
    expected = trees.spec_of(example)
    specs, treedef = jax.tree.flatten(expected)

    def copy(observation: PyTree) -> PyTree:
        leaves, actual = jax.tree.flatten(observation)
        arrays = [np.array(leaf) for leaf in leaves]
        if actual != treedef or any(
            array.shape != spec.shape or (array.dtype != spec.dtype and not _becomes(array, spec.dtype))
            for array, spec in zip(arrays, specs, strict=True)
        ):
            problem = trees.difference(expected, observation)
            raise RecordMismatchError(f"the observation differs from the environment's spec: {problem}")
        return treedef.unflatten(
            [array.astype(spec.dtype, copy=False) for array, spec in zip(arrays, specs, strict=True)]
        )

    return copy


def _becomes(array: np.ndarray[Any, Any], dtype: Any) -> bool:
    return jax.dtypes.canonicalize_dtype(array.dtype) == dtype


def _check_action(expected: PyTree, action: PyTree) -> None:
    if (problem := trees.difference(expected, action)) is not None:
        raise RecordMismatchError(f"the agent's action differs from the environment's spec: {problem}")


def _tick_words(tick: int) -> np.ndarray[Any, Any]:
    return np.array([tick >> 32, tick & 0xFFFFFFFF], np.uint32)  # 32 bits are 11 days of 4,000 ticks a second


def _compile_agent(
    agent: Agent[Any], params: Mapping[str, Params], actor: ActorState, observation: PyTree, action_spec: PyTree
) -> tuple[ActFn, Mapping[str, Any]]:
    def act(params: Mapping[str, Params], carry: Any, observation: PyTree, rng_key: jax.Array, tick: jax.Array) -> Any:
        rng_key = jax.random.fold_in(jax.random.fold_in(rng_key, tick[0]), tick[1])
        output: Any = agent.act(params, carry, observation, rng_key)
        if not (isinstance(output, tuple) and len(cast(tuple[Any, ...], output)) == 3):
            raise StepStructureError(f"Agent.act returned {type(output).__name__}, expected (carry, action, extras)")
        return output

    arguments = (dict(params), actor.carry, trees.spec_of(observation), actor.rng_key, _tick_words(0))
    carry, action, extras = jax.eval_shape(act, *arguments)
    if (problem := trees.difference(actor.carry, carry)) is not None:
        raise StepStructureError(f"Agent.act returned a carry of another form than Agent.init's: {problem}")
    _check_action(action_spec, action)
    compiled = jax.jit(act).lower(*arguments).compile()

    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        outputs = compiled(dict(params), actor.carry, observation, actor.rng_key, _tick_words(actor.tick))
        action, extras = jax.device_get(outputs[1:])
        return outputs[0], action, extras

    return program, extras


def _python_act(agent: PythonAgent, action_spec: PyTree) -> ActFn:
    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        action, extras = agent.act(params, observation)
        _check_action(action_spec, action)
        return actor.carry, action, extras

    return program
