"""Make an agent ready to act: compiled ahead of time, with inputs that nobody else can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.arguments import is_tuple_of
from pamiq_jax.errors import (
    InvalidValueError,
    RecordMismatchError,
    StepStructureError,
    UnknownNameError,
)
from pamiq_jax.publishing.snapshot import PublishedParams
from pamiq_jax.runtime.agent import Agent, FeedbackAgent, PythonAgent
from pamiq_jax.runtime.interaction import FallbackFn, Interaction
from pamiq_jax.runtime.state import ActorState
from pamiq_jax.runtime.system import System
from pamiq_jax.trainer.compile import own
from pamiq_jax.trainer.step_modules import noted_captured_module
from pamiq_jax.types import Params, PyTree


class ActFn(Protocol):
    """An agent as the inference tick calls it."""

    def __call__(
        self, params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any] | None]:
        """Return the next carry, and action and extras as numpy arrays; no extras for a fallback action.

        Args:
            params: one snapshot's parameters by model name.
            actor: the state before the tick.
            observation: numpy arrays that nobody else writes to.
        """
        ...


type TellFn = Callable[[Mapping[str, Any]], None]
"""`(feedback)`, for an agent that listens."""


class Acting(NamedTuple):
    """An agent made ready, and the interaction it belongs to.

    Attributes:
        interaction: agent and environment.
        collects: what each buffer stores of a record.
        copy: returns an observation as numpy arrays of its own. Environments write into the array
            they returned, and a JAX computation or a record may still need it then.
        act: the agent.
        resets: returns of a tick's feedback whether the next one begins with a new carry; `()` if none ever does.
        tell: tells the agent a tick's feedback; None for one that does not listen.
    """

    interaction: Interaction
    collects: Mapping[str, Callable[[dict[str, Any]], PyTree]]
    copy: Callable[[PyTree], PyTree]
    act: ActFn
    resets: Callable[[Mapping[str, Any]], PyTree]
    tell: TellFn | None


def first_actor(interaction: Interaction, rng_key: jax.Array) -> ActorState:
    """Return the state before the first tick.

    Args:
        interaction: whose agent it is.
        rng_key: `key[]`, kept.

    Raises:
        InvalidValueError: the flag that the carry is renewed at is none, or does not fit the carry.
    """
    agent = interaction.agent
    if not isinstance(agent, Agent):
        return ActorState(carry=(), rng_key=own(rng_key))
    carry = own(agent.init(rng_key))
    flag = _reset_flag(agent, interaction.environment.spec.feedback, carry)
    return ActorState(carry, own(rng_key), resets=() if flag is None else np.zeros(flag.shape, np.bool_))


def _reset_flag(agent: Agent[Any], feedback: Mapping[str, Any], carry: PyTree) -> jax.ShapeDtypeStruct | None:
    if agent.resets_on is None:
        return None
    if agent.resets_on not in feedback:
        raise UnknownNameError("flag in the feedback", agent.resets_on, feedback, "Agent(resets_on)")
    flag: jax.ShapeDtypeStruct = trees.spec_of(feedback[agent.resets_on])
    if flag.dtype != np.bool_ or len(flag.shape) > 1:
        raise InvalidValueError("Agent(resets_on)", trees.describe_leaf(flag), "a flag bool[] or bool[N]")
    for name, leaf in zip(trees.leaf_names(carry), jax.tree.leaves(carry), strict=True):
        if np.shape(leaf)[: len(flag.shape)] != flag.shape:
            form, expected = trees.describe_leaf(leaf), f"an axis of {flag.shape[0]} in front, as the flag has"
            raise InvalidValueError(f"Agent.init's carry {name}", form, expected, "to renew the rows that it names")
    return flag


def acting_program(
    system: System, name: str, params: Mapping[str, Params], actor: ActorState
) -> tuple[Acting, dict[str, PyTree]]:
    """Return what acts, and the form of the records that come of it.

    Args:
        system: what the interaction belongs to.
        name: of the interaction.
        params: version 0.
        actor: the state before the first tick.
    """
    interaction = system.interactions[name]
    agent, spec = interaction.agent, interaction.environment.spec
    resets_on = agent.resets_on if isinstance(agent, Agent) else None
    if isinstance(agent, Agent):
        act, extras = _compile_agent(agent, params, actor, spec.observation, spec.action)
    else:
        act, extras = _python_act(agent, spec.action), agent.extras
    if interaction.fallback is not None:
        check_fallback(interaction.fallback, spec.observation, spec.action)
    fed = ["observation", "action", *spec.feedback, *extras]
    if repeated := sorted({name for name in fed if fed.count(name) > 1}):
        expected = "other names than those of observation, action and feedback"
        raise InvalidValueError("names of the agent's extras and the environment's feedback", repeated, expected)
    parts = {"observation": spec.observation, "action": spec.action, **spec.feedback, **extras}

    def resets(feedback: Mapping[str, Any]) -> PyTree:
        return () if resets_on is None else np.array(feedback[resets_on], np.bool_)

    copy, tell = observation_copier(spec.observation), _tell(agent)
    return Acting(interaction, system.collects(name), copy, act, resets, tell), {
        part: trees.spec_of(value) for part, value in parts.items()
    }


def _tell(agent: Agent[Any] | PythonAgent) -> TellFn | None:
    if not isinstance(agent, FeedbackAgent):
        return None
    return lambda feedback: agent.on_feedback(jax.tree.map(np.array, dict(feedback)))


def check_fallback(fallback: FallbackFn, observation: PyTree, action: PyTree) -> None:
    """Raise if a fallback's action, tried on zeros, is not of the form that the environment takes.

    Args:
        fallback: `(observation, last action) -> action`.
        observation: example: arrays or specs.
        action: the same.

    Raises:
        RecordMismatchError: naming the leaf.

    Example:
        >>> check_fallback(lambda observation, last_action: last_action, np.zeros(3), np.zeros(2))
        >>> check_fallback(lambda observation, last_action: observation, np.zeros(3), np.zeros(2))
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.RecordMismatchError: the fallback's action differs from the environment's spec: leaf the ...
    """
    zeros = trees.zeros_of(trees.spec_of((observation, action)))
    check_action("fallback", zeros[1], fallback(*zeros))


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
    is_array = jax.tree_util.treedef_is_leaf(treedef)
    dtype, shape = (specs[0].dtype, specs[0].shape) if is_array else (None, ())

    def copy(observation: PyTree) -> PyTree:
        # One array, as it mostly is, is looked at without JAX: between two ticks the processor forgets all of that.
        if is_array and type(observation) is np.ndarray and observation.dtype == dtype and observation.shape == shape:
            return observation.copy()
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


def check_action(who: str, expected: PyTree, action: PyTree) -> None:
    """Raise if an action is not of the form that the environment takes.

    Raises:
        RecordMismatchError: saying whose it is and naming the leaf.

    Example:
        >>> check_action("agent", np.zeros(2), np.zeros(2))
    """
    if (problem := trees.difference(expected, action)) is not None:
        raise RecordMismatchError(f"the {who}'s action differs from the environment's spec: {problem}")


def _as_numpy(leaves: Sequence[jax.Array]) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(leaf) for leaf in leaves]


def _tick_words(tick: int) -> np.ndarray[Any, Any]:
    return np.array([tick >> 32, tick & 0xFFFFFFFF], np.uint32)  # 32 bits are 11 days of 4,000 ticks a second


def acting_function(agent: Agent[Any]) -> Callable[..., tuple[Any, PyTree, Mapping[str, Any]]]:
    """Return an agent's tick as a pure function, not compiled yet.

    It is `(params, carry, resets, observation, rng_key, tick words) -> (carry, action, extras)`; the tick is two words,
    uint32 `[2]`, and `rng_key` the same at each.

    Args:
        agent: whose.

    Example:
        >>> agent = Agent(lambda params, carry, observation, rng_key: (carry, observation + 1, {}))
        >>> acting_function(agent)({}, (), (), 1.0, jax.random.key(0), np.zeros(2, np.uint32))
        ((), 2.0, {})
    """

    def act(params: Any, carry: Any, resets: Any, observation: PyTree, rng_key: jax.Array, tick: Any) -> Any:
        rng_key = jax.random.fold_in(jax.random.fold_in(rng_key, tick[0]), tick[1])
        with noted_captured_module():
            carry = _renewed(agent, carry, resets, rng_key)
            output: Any = agent.act(params, carry, observation, rng_key)
        if not is_tuple_of(3, output):
            raise StepStructureError(f"Agent.act returned {type(output).__name__}, expected (carry, action, extras)")
        return output

    return act


def _compile_agent(
    agent: Agent[Any], params: Mapping[str, Params], actor: ActorState, observation: PyTree, action_spec: PyTree
) -> tuple[ActFn, Mapping[str, Any]]:
    act = acting_function(agent)
    arguments = (dict(params), actor.carry, actor.resets, trees.spec_of(observation), actor.rng_key, _tick_words(0))
    carry, action, extras = jax.eval_shape(act, *arguments)
    if (problem := trees.difference(actor.carry, carry)) is not None:
        raise StepStructureError(f"Agent.act returned a carry of another form than Agent.init's: {problem}")
    check_action("agent", action_spec, action)
    params_treedef, result_treedef = jax.tree.structure(arguments[0]), jax.tree.structure((action, extras))

    def act_on_leaves(leaves: Sequence[Any], *rest: Any) -> tuple[Any, list[Any]]:
        carry, *result = act(params_treedef.unflatten(leaves), *rest)
        return carry, jax.tree.leaves(tuple(result))

    compiled = _compile_act(act_on_leaves, arguments)
    is_near = all(
        device.platform == "cpu"
        for sharding in jax.tree.leaves(compiled.output_shardings)
        for device in sharding.device_set
    ) and not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves((action, extras)))
    # `device_get` first starts all transfers, which takes longer than all the rest where there is nothing to transfer.
    get = _as_numpy if is_near else jax.device_get

    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        leaves = params.leaves if isinstance(params, PublishedParams) else tuple(jax.tree.leaves(dict(params)))
        words = _tick_words(actor.tick)
        carry, result = compiled(leaves, actor.carry, actor.resets, observation, actor.rng_key, words)
        action, extras = result_treedef.unflatten(get(result))
        return carry, action, extras

    return program, extras


def _compile_act(act: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return jax.jit(act).lower(tuple(jax.tree.leaves(arguments[0])), *arguments[1:]).compile()
    except ValueError as error:
        if "incompatible devices" in str(error):
            places = {
                name: sorted({str(device) for leaf in jax.tree.leaves(model) for device in leaf.devices()})
                for name, model in arguments[0].items()
            }
            remedy = "give all models that the agent uses the same Model(device=), or none of them any"
            error.add_note(f"the agent uses models that lie on different devices, {places}; {remedy}")
        raise


def _renewed(agent: Agent[Any], carry: Any, resets: Any, rng_key: jax.Array) -> Any:
    """Return the carry, new where the flag says so. The key is another one than the agent acts with."""
    if agent.resets_on is None:
        return carry
    new = agent.init(jax.random.fold_in(rng_key, 1))
    return jax.tree.map(
        lambda fresh, old: jnp.where(jnp.reshape(resets, resets.shape + (1,) * (old.ndim - resets.ndim)), fresh, old),
        new,
        carry,
    )


def _python_act(agent: PythonAgent, action_spec: PyTree) -> ActFn:
    def program(
        params: Mapping[str, Params], actor: ActorState, observation: PyTree, /
    ) -> tuple[PyTree, PyTree, Mapping[str, Any]]:
        action, extras = agent.act(params, observation)
        check_action("agent", action_spec, action)
        return actor.carry, action, extras

    return program
