"""An environment written in JAX: one or many at once, live like any other, or compiled with who acts in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.arguments import checked_integer, checked_names, is_tuple_of
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, StepStructureError, UnknownNameError, noted
from pamiq_jax.runtime import EnvironmentSpec, WorldFunctions
from pamiq_jax.types import PyTree

type ResetFn = Callable[[jax.Array, Any], tuple[PyTree, PyTree]]
"""`(rng_key, params) -> (observation, state)`."""

type StepFn = Callable[[jax.Array, PyTree, PyTree, Any], tuple[PyTree, PyTree, Any, Any, Mapping[str, Any]]]
"""`(rng_key, state, action, params) -> (observation, state, reward, done, info)`."""


class JaxWorld(NamedTuple):
    """The state of a `JaxEnvironment`; with several environments all but the key have an axis `[N, ...]`.

    Attributes:
        state: the environment's own.
        observation: the newest one.
        rng_key: `key[]`, for all that follows.

    Example:
        >>> JaxWorld(state=(), observation=1.0, rng_key=None).observation
        1.0
    """

    state: PyTree
    observation: PyTree
    rng_key: jax.Array


class JaxEnvironment:
    """An environment of two pure functions in the form of gymnax, as what a system acts in.

    `launch` and `run_lockstep` take it like any other and call its compiled functions. `run_scanned` takes the
    functions themselves into the one program that agent, buffers and trainers are compiled to.

    Feedback is `{"reward": float32[], "done": bool[]}`, and what is asked for of `info`; with `num_envs` every leaf of
    observation, action and feedback has an axis `[N, ...]` in front. After `done` the next observation is the first of
    another episode, so `Agent(resets_on="done")` renews a carry there. With `autoreset` the feedback has
    "next_observation" too, the true one, which a truncated episode is bootstrapped from.

    Args:
        reset: `(rng_key, params) -> (observation, state)`.
        step: `(rng_key, state, action, params) -> (observation, state, reward, done, info)`.
        params: what both are given as their last argument: any pytree, or None.
        action: one action, for its form; without the axis of `num_envs`.
        num_envs: how many environments are stepped together, by `jax.vmap`; None is one without an axis.
        autoreset: whether to begin another episode after `done`; False for a `step` that does so itself, as
            gymnax's `env.step` does, unlike its `env.step_env`.
        info: names of what of `info` belongs into the feedback.

    Raises:
        InvalidValueError: a number of environments below 1, a `done` that is no bool, or a reward that is no scalar.
        StepStructureError: `step` returns something else than five values, or a state of another form than `reset`.
        RecordMismatchError: `step` returns an observation of another form than `reset`.
        UnknownNameError: a name that `info` does not have.

    Example:
        >>> def reset(rng_key, params):  # walk until 3 is passed
        ...     position = jax.random.uniform(rng_key)
        ...     return position, position
        >>> def step(rng_key, position, action, params):
        ...     position = position + action
        ...     return position, position, -1.0, position > params["end"], {}
        >>> environment = JaxEnvironment(reset, step, {"end": 3.0}, action=0.0, num_envs=2, autoreset=True)
        >>> environment.reset(seed=0)
        >>> feedback = environment.affect(np.array([1.0, 4.0], np.float32))
        >>> feedback["done"].tolist(), environment.observe().shape
        ([False, True], (2,))
    """

    def __init__(
        self,
        reset: ResetFn,
        step: StepFn,
        params: Any = None,
        *,
        action: PyTree,
        num_envs: int | None = None,
        autoreset: bool = False,
        info: tuple[str, ...] = (),
    ) -> None:
        if num_envs is not None:
            num_envs = checked_integer("JaxEnvironment(num_envs)", num_envs, least=1)
        checked_names("JaxEnvironment(info)", info, "entry of `info`")
        self.num_envs = num_envs
        one = _Single(reset, step, params, autoreset, info)
        forms = _checked_forms(one, action)
        self._functions = _functions(one, forms, num_envs)
        actions = trees.zeros_of(trees.spec_of(action), *(() if num_envs is None else (num_envs,)))
        form = jax.eval_shape(self._functions.start, jax.random.key(0))
        feedback = jax.eval_shape(self._functions.affect, form, actions)[1]
        self._spec = EnvironmentSpec(form.observation, trees.spec_of(actions), feedback)
        self._start, self._affect = jax.jit(self._functions.start), jax.jit(self._functions.affect)
        self.world: Any = None

    @property
    def spec(self) -> EnvironmentSpec:
        """The forms of observation, action and feedback."""
        return self._spec

    @property
    def functions(self) -> WorldFunctions:
        """The same as pure functions of a `JaxWorld`."""
        return self._functions

    def reset(self, seed: int) -> None:
        """Start first episodes.

        Args:
            seed: of all of the environment's randomness.
        """
        self.world = self._start(jax.random.key(seed))

    def observe(self) -> PyTree:
        """Return the newest observation."""
        return self._begun().observation

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Take a step.

        Args:
            action: arrays of the form of `spec.action`.
        """
        self.world, feedback = self._affect(self._begun(), action)
        return jax.device_get(feedback)

    def save_state(self) -> PyTree:
        """Return the state as a list of numpy arrays."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(_without_keys(self._begun()))]

    def load_state(self, state: PyTree) -> None:
        """Go on from a state. Called after `reset`.

        Args:
            state: what `save_state` returned.

        Raises:
            StepStructureError: it is of an environment of another form.
        """
        leaves, treedef = jax.tree.flatten(self._begun())
        if problem := trees.difference([*map(_data, leaves)], list(state)):
            raise StepStructureError(f"the state saved of a JaxEnvironment has another form: {problem}")
        loaded = [_like(leaf, saved) for leaf, saved in zip(leaves, state, strict=True)]
        self.world = jax.tree.unflatten(treedef, loaded)

    def close(self) -> None:
        """Do nothing."""

    def _begun(self) -> JaxWorld:
        if self.world is None:
            raise InvalidValueError("JaxEnvironment.world", None, "a state", "call `reset(seed)` first")
        return self.world


class _Single(NamedTuple):
    """What one of the environments is made of."""

    reset: ResetFn
    step: StepFn
    params: Any
    autoreset: bool
    info: tuple[str, ...]

    @property
    def given(self) -> str:
        params = "None, since none were given" if self.params is None else f"a {type(self.params).__name__}"
        return f": params is {params}; decide on traced values with jnp.where or jax.lax.cond, not with `if`"

    def start(self, rng_key: jax.Array) -> tuple[PyTree, PyTree]:
        return self.reset(rng_key, self.params)

    def affect(self, rng_key: jax.Array, state: PyTree, action: PyTree) -> tuple[PyTree, PyTree, dict[str, Any]]:
        """Return observation, state and feedback."""
        # Two keys also where one is not used: a split costs nothing then.
        rng_key, reset_key = jax.random.split(rng_key)
        output: Any = self.step(rng_key, state, action, self.params)
        if not is_tuple_of(5, output):
            got = type(output).__name__ + (f" of {len(output)}" if isinstance(output, tuple) else "")
            expected = "(observation, state, reward, done, info)"
            raise StepStructureError(f"JaxEnvironment's step returned {got}, expected {expected}")
        observation, state, reward, done, info = output
        for name in self.info:
            if name not in info:
                raise UnknownNameError("entry of `info`", name, info, "JaxEnvironment(info)")
        feedback = {"reward": _cast(reward, jnp.float32), "done": done, **{name: info[name] for name in self.info}}
        if not self.autoreset:
            return observation, state, feedback
        anew = self.start(reset_key)
        first, new = jax.tree.map(
            lambda fresh, old: jnp.where(done, fresh, _cast(old, jnp.result_type(fresh))), anew, (observation, state)
        )
        return first, new, {**feedback, "next_observation": observation}


_RESET_NOTE = "in JaxEnvironment's reset, which is called as reset(rng_key, params) and traced"
_STEP_NOTE = "in JaxEnvironment's step, which is called as step(rng_key, state, action, params) and traced"


def _checked_forms(one: _Single, action: PyTree) -> tuple[PyTree, PyTree]:
    """Return the forms of observation and state, or say which of the two functions does not fit the other."""
    rng_key = jax.random.key(0)
    with noted(_RESET_NOTE + one.given):
        forms = trees.spec_of(jax.eval_shape(one.start, rng_key))
    if not is_tuple_of(2, forms):
        raise StepStructureError(f"JaxEnvironment's reset returned {forms}, expected (observation, state)")
    observation, state = forms
    zeros = trees.zeros_of(trees.spec_of(action))
    with noted(_STEP_NOTE + one.given):
        seen, changed, feedback = jax.eval_shape(one._replace(autoreset=False).affect, rng_key, state, zeros)
    if problem := trees.difference(observation, seen):
        raise RecordMismatchError(f"JaxEnvironment's step returned another observation than its reset: {problem}")
    if problem := trees.difference(state, changed):
        remedy = "return every leaf with the shape and dtype it came with (`.astype(old.dtype)`)"
        raise StepStructureError(f"JaxEnvironment's step returned another state than its reset: {problem}; {remedy}")
    for name, dtype in (("reward", jnp.float32), ("done", jnp.bool_)):
        if trees.difference(jax.ShapeDtypeStruct((), dtype), feedback[name]):
            form, remedy = trees.describe_leaf(feedback[name]), "num_envs adds the axis of several environments"
            raise InvalidValueError(
                f"JaxEnvironment's {name}", form, f"{np.dtype(dtype)}[], of one environment", remedy
            )
    return observation, state


def _functions(one: _Single, forms: tuple[PyTree, PyTree], num_envs: int | None) -> WorldFunctions:
    """Return the functions of a world of one environment, or of several that are stepped together."""
    start, affect = (one.start, one.affect) if num_envs is None else (jax.vmap(one.start), jax.vmap(one.affect))

    def keys(rng_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        following, rng_key = jax.random.split(rng_key)
        return following, rng_key if num_envs is None else jax.random.split(rng_key, num_envs)

    def strong(observation: PyTree, state: PyTree, rng_key: jax.Array) -> JaxWorld:
        # Without weak types, which would make of the second tick another program than of the first.
        observation, state = jax.tree.map(lambda form, leaf: _cast(leaf, form.dtype), forms, (observation, state))
        return JaxWorld(state, observation, rng_key)

    def start_world(rng_key: jax.Array) -> JaxWorld:
        following, used = keys(rng_key)
        return strong(*start(used), following)

    def affect_world(world: JaxWorld, action: PyTree) -> tuple[JaxWorld, Mapping[str, Any]]:
        following, used = keys(world.rng_key)
        observation, state, feedback = affect(used, world.state, action)
        return strong(observation, state, following), feedback

    return WorldFunctions(start_world, lambda world: world.observation, affect_world)


def _cast(leaf: Any, dtype: Any) -> jax.Array:
    return leaf if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(leaf, dtype)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _without_keys(tree: PyTree) -> PyTree:
    return jax.tree.map(_data, tree)


def _like(leaf: jax.Array, saved: Any) -> jax.Array:
    array = jnp.asarray(saved)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
