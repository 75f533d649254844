"""Make an agent ready to act: compiled ahead of time, with inputs that nobody else can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepStructureError
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
        act, extras = _compile_agent(agent, params, actor, spec.observation)
    else:
        act, extras = _python_act(agent), agent.extras
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, trees.spec_of(spec.observation))

    def copy(observation: PyTree) -> PyTree:
        return jax.tree.map(np.array, observation, dtypes)

    parts = {"observation": spec.observation, "action": spec.action, **spec.feedback, **extras}
    return Acting(interaction, system.collects(), copy, act), {
        name: trees.spec_of(part) for name, part in parts.items()
    }


def _compile_agent(
    agent: Agent[Any], params: Mapping[str, Params], actor: ActorState, observation: PyTree
) -> tuple[ActFn, Mapping[str, Any]]:
    def act(params: Mapping[str, Params], carry: Any, observation: PyTree, rng_key: jax.Array, tick: jax.Array) -> Any:
        return agent.act(params, carry, observation, jax.random.fold_in(rng_key, tick))

    arguments = (dict(params), actor.carry, trees.spec_of(observation), actor.rng_key, np.int32(0))
    carry, _, extras = jax.eval_shape(act, *arguments)
    if (problem := trees.difference(actor.carry, carry)) is not None:
        raise StepStructureError(f"Agent.act returned a carry of another form than Agent.init's: {problem}")
    compiled = jax.jit(act).lower(*arguments).compile()

    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        outputs = compiled(dict(params), actor.carry, observation, actor.rng_key, np.int32(actor.tick))
        action, extras = jax.device_get(outputs[1:])
        return outputs[0], action, extras

    return program, extras


def _python_act(agent: PythonAgent) -> ActFn:
    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        action, extras = agent.act(params, observation)
        return actor.carry, action, extras

    return program
