"""What a trainer is: five pure functions over an immutable state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import optax

from pamiq_jax.types import Metrics, Params


class TrainerState[P](flax.struct.PyTreeNode):
    """Everything that the next step of a trainer needs, and nothing else.

    Subclass it to add fields (an average of the parameters, a recurrent carry). Every field is
    a pytree of arrays: a function in here would be compared by identity and compiled again.

    Attributes:
        params: the trainable arrays. In a system: a dict by model name.
        opt_state: the optimizer's state.
        step: `int32[]`, steps done since `init`.
        rng_key: `key[]`, never consumed: a step uses `fold_in(rng_key, step)`.
    """

    params: P
    opt_state: optax.OptState
    step: jax.Array
    rng_key: jax.Array


class InitFn[S](Protocol):
    """Builds a trainer's first state."""

    def __call__(self, rng_key: jax.Array, params: Params, /) -> S:
        """Return the state of step 0.

        Args:
            rng_key: `key[]`, kept in the state.
            params: the parameters to start from; they are not copied.
        """
        ...


class StepFn[S, B](Protocol):
    """One optimization step."""

    def __call__(self, state: S, batch: B, /) -> tuple[S, Metrics]:
        """Return the next state, of equal structure, shapes and dtypes, and scalar metrics `[]`.

        Args:
            state: the state to go on from.
            batch: one batch `[B, ...]`.
        """
        ...


class ChangeFn[S](Protocol):
    """Changes a state at the start (`setup`) or the end (`teardown`) of a run."""

    def __call__(self, state: S, /) -> S:
        """Return the changed state, of equal structure, shapes and dtypes."""
        ...


class PublishFn[S](Protocol):
    """Chooses what the inference thread may see."""

    def __call__(self, state: S, /) -> Params:
        """Return parameters by model name; a leaf of the state handed out as it is costs no copy."""
        ...


class Trainer[S, B](NamedTuple):
    """A trainer: pure functions from a factory that closes over the configuration.

    It works alone like any JAX code (`jax.jit(trainer.step)`, `jax.vmap(trainer.init)`,
    `jax.lax.scan`) and inside a system.

    Attributes:
        init: `(rng_key, params) -> state`.
        setup: `(state) -> state`, at the start of a run.
        step: `(state, batch) -> (state, metrics)`.
        teardown: `(state) -> state`, at the end of a run.
        publish: `(state) -> {model: params}` for the inference thread.
        trains: names of the models whose parameters are in the state; None means all of a system's.
        publishes: names of the models that `publish` returns; None means those that are trained.
        compiled: whether a system may trace the functions; False runs them as plain Python.
    """

    init: InitFn[S]
    setup: ChangeFn[S]
    step: StepFn[S, B]
    teardown: ChangeFn[S]
    publish: PublishFn[S]
    trains: tuple[str, ...] | None = None
    publishes: tuple[str, ...] | None = None
    compiled: bool = True


def unchanged[S](state: S, /) -> S:
    """Return the state as it is: the default `setup` and `teardown`.

    Example:
        >>> unchanged("state")
        'state'
    """
    return state


def publish_params(publishes: tuple[str, ...] | None) -> PublishFn[Any]:
    """Return a publish function that hands out `state.params`, or the named part of it, uncopied.

    Args:
        publishes: names of models in `state.params`; None hands out all of it.

    Example:
        >>> from types import SimpleNamespace
        >>> state = SimpleNamespace(params={"encoder": 1, "decoder": 2})
        >>> publish_params(("encoder",))(state)
        {'encoder': 1}
    """

    def publish(state: Any, /) -> Params:
        return state.params if publishes is None else {name: state.params[name] for name in publishes}

    return publish


def custom_trainer[S, B](
    init: InitFn[S],
    step: StepFn[S, B],
    *,
    setup: ChangeFn[S] = unchanged,
    teardown: ChangeFn[S] = unchanged,
    publish: Callable[[S], Params] | None = None,
    trains: tuple[str, ...] | None = None,
    publishes: tuple[str, ...] | None = None,
    compiled: bool = True,
) -> Trainer[S, B]:
    """Return a trainer made of your own functions.

    Args:
        init: `(rng_key, params) -> state`; the state needs the attributes of `TrainerState` that
            your functions and the default `publish` use: `params`.
        step: `(state, batch) -> (state, metrics)`.
        setup: `(state) -> state` at the start of a run.
        teardown: `(state) -> state` at the end of a run.
        publish: `(state) -> {model: params}`; by default `state.params`, or `publishes` of it.
        trains: names of the models whose parameters `init` is given.
        publishes: names of the models that `publish` returns.
        compiled: False for a step that cannot be traced (Python control flow around its own jitted
            pieces): it runs as it is, and nothing of its state is donated.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def init(rng_key, params):
        ...     return TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)
        >>> def step(state, batch):
        ...     params = 0.9 * state.params + 0.1 * batch.mean()
        ...     return state.replace(params=params, step=state.step + 1), {"mean": params}
        >>> trainer = custom_trainer(init, step)
        >>> state = trainer.init(jax.random.key(0), jnp.zeros(()))
        >>> state, metrics = jax.jit(trainer.step)(state, jnp.ones(4))
        >>> print(state.params)
        0.1
    """
    return Trainer(
        init=init,
        setup=setup,
        step=step,
        teardown=teardown,
        publish=publish if publish is not None else publish_params(publishes),
        trains=trains,
        publishes=publishes if publishes is not None else trains,
        compiled=compiled,
    )
