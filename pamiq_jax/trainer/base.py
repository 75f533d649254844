"""What a trainer is: six pure functions over an immutable state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast, override

import flax.struct
import jax
import optax

from pamiq_jax.arguments import checked_function, checked_known, checked_names
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.facts import facts_html
from pamiq_jax.types import Metrics, Params


class TrainerState[P](Shown, flax.struct.PyTreeNode):
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


class ReadingState[P](TrainerState[P]):
    """The state of a trainer that reads models which it does not train.

    Attributes:
        reads: their parameters, by model name.
    """

    reads: dict[str, Params]


type InitFn[S] = Callable[[jax.Array, Params], S]
"""`(rng_key, params) -> state` of step 0; keeps the key `key[]`, does not copy the parameters."""

type StepFn[S, B] = Callable[[S, B], tuple[S, Metrics]]
"""`(state, batch [B, ...]) -> (state, metrics)`: a state of equal form, and metrics: scalars `[]`, and "priorities"."""

type ChangeFn[S] = Callable[[S], S]
"""`(state) -> state` of equal form, at the start (`setup`) or the end (`teardown`) of a run."""

type PublishFn[S] = Callable[[S], Params]
"""`(state) -> {model: params}` that inference may see; a leaf handed out as it is costs no copy."""

type ReceiveFn[S] = Callable[[S, Mapping[str, Params]], S]
"""`(state, {model: params}) -> state` with those models as somebody else has made them, uncopied."""


def receive_models(state: Any, models: Mapping[str, Params], /) -> Any:
    """Return the state with some models replaced, among `state.params` and `state.reads`: the default `receive`.

    Args:
        state: any state whose `params` are a dict by model name.
        models: parameters by model name; they are handed through, not copied.

    Raises:
        UnknownNameError: the state has no model of that name.

    Example:
        >>> state = ReadingState({"policy": 1}, (), 0, None, reads={"world": 2})
        >>> state = receive_models(state, {"world": 3})
        >>> state.params, state.reads
        ({'policy': 1}, {'world': 3})
    """
    params, reads = _by_name(state.params), getattr(state, "reads", {})
    for name in models:
        if name not in params and name not in reads:
            raise UnknownNameError("model", name, [*params, *reads], "trainer.receive")
    trained = {name: model for name, model in models.items() if name in params}
    read = {name: model for name, model in models.items() if name not in params}
    changes = {"params": {**params, **trained}} if trained else {}
    if read:
        changes["reads"] = {**reads, **read}
    replace = getattr(state, "replace", None) or state._replace  # a NamedTuple's
    return replace(**changes)


def _by_name(params: Params) -> Mapping[str, Params]:
    if not isinstance(params, Mapping):
        raise InvalidValueError("state.params", type(params).__name__, "a dict by model name")
    return cast(Mapping[str, Params], params)


class Trainer[S, B](NamedTuple):
    """A trainer: pure functions from a factory that closes over the configuration.

    It works alone like any JAX code (`jax.jit(trainer.step)`, `jax.vmap(trainer.init)`,
    `jax.lax.scan`) and inside a system. See `gradient_trainer` and `custom_trainer`.

    Attributes:
        receive: takes in models that another trainer, or whoever calls, has changed.
        trains: names of the models whose parameters are in the state; None means all of a system's.
        publishes: names of the models that `publish` returns; None means those that are trained.
        reads: names of the models that `init` is given beside these, and that are not changed.
        compiled: whether a system may trace the functions; False runs them as plain Python.
        with_optimization: `(change) -> trainer` that differs in what it does with gradients, see `clip_gradients`;
            None for a trainer that does not show its gradients.
        warm_up: whether a system calls functions that are not traced once before it runs, on copies.
        kind: what made it, for its text.
    """

    init: InitFn[S]
    setup: ChangeFn[S]
    step: StepFn[S, B]
    teardown: ChangeFn[S]
    publish: PublishFn[S]
    receive: ReceiveFn[S] = receive_models
    trains: tuple[str, ...] | None = None
    publishes: tuple[str, ...] | None = None
    reads: tuple[str, ...] = ()
    compiled: bool = True
    with_optimization: Callable[[Callable[[Any], Any]], Trainer[S, B]] | None = None
    warm_up: bool = False
    kind: str = "custom_trainer"
    _repr_html_ = facts_html

    @override
    def __repr__(self) -> str:
        known = {"trains": self.trains, "reads": self.reads or None, "publishes": self.publishes}
        facts = [self.kind, *(f"{what}={names}" for what, names in known.items() if names is not None)]
        return f"Trainer({', '.join(facts + ['compiled=False'] * (not self.compiled))})"


def unchanged[S](state: S, /) -> S:
    """Return the state as it is: the default `setup` and `teardown`.

    Example:
        >>> unchanged("state")
        'state'
    """
    return state


def publish_params(publishes: tuple[str, ...] | None) -> PublishFn[Any]:
    """Return a publish function that hands out `state.params`, or the named part of it, uncopied.

    Example:
        >>> from types import SimpleNamespace
        >>> publish_params(("encoder",))(SimpleNamespace(params={"encoder": 1, "decoder": 2}))
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
    publish: PublishFn[S] | None = None,
    receive: ReceiveFn[S] = receive_models,
    trains: tuple[str, ...] | None = None,
    publishes: tuple[str, ...] | None = None,
    reads: tuple[str, ...] = (),
    compiled: bool = True,
    warm_up: bool = False,
) -> Trainer[S, B]:
    """Return a trainer made of your own functions.

    Args:
        init: `(rng_key, params) -> state`; the state is a pytree with an attribute `params`.
        step: `(state, batch) -> (state, metrics)`.
        setup: `(state) -> state` at the start of a run.
        teardown: `(state) -> state` at the end of a run.
        publish: `(state) -> {model: params}`; by default `state.params`, or what is declared of it.
        receive: `(state, {model: params}) -> state`; by default into `state.params` and `state.reads`.
        trains: names of the models whose parameters `init` is given.
        publishes: names of the models that `publish` returns.
        reads: names of the models that `init` is given beside these, for its state to hold unchanged: `receive`
            replaces them as each run begins, so what a step makes of them is lost.
        compiled: False for a step that cannot be traced (Python control flow around its own jitted
            pieces): it runs as it is, and nothing of its state is donated. What it publishes is copied, once a run,
            so that a piece of it that donates deletes nothing that is read.
        warm_up: for `compiled=False`, call the functions once more while a system is compiled, on copies and a batch
            of the buffer as it is, so that their jitted pieces are compiled before an agent starts.

    Raises:
        InvalidValueError: names that are no tuple of names.
        UnknownNameError: without a `publish`, a model to publish that is not trained.

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
    checked_function("custom_trainer(init)", init, "(rng_key, params) -> state")
    checked_function("custom_trainer(step)", step, "(state, batch) -> (state, metrics)")
    for argument, names in (("trains", trains), ("publishes", publishes), ("reads", reads)):
        checked_names(f"custom_trainer({argument})", names, "model")
    if publish is None and trains is not None:
        remedy = "give a `publish` that returns it"
        checked_known("custom_trainer(publishes)", "trained model", publishes, trains, remedy)
    return Trainer(
        init,
        setup,
        step,
        teardown,
        publish if publish is not None else publish_params(publishes),
        receive,
        trains,
        publishes if publishes is not None else trains,
        reads,
        compiled,
        warm_up=warm_up and not compiled,
    )
