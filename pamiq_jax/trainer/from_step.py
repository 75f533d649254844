"""A trainer made of a train step that somebody has already, which is not edited for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.errors import InvalidValueError, PamiqError, StepSignatureError
from pamiq_jax.trainer.base import Trainer, custom_trainer
from pamiq_jax.trainer.signature import (
    BATCH_NAMES,
    DECLARE,
    KEY_NAMES,
    StepSignature,
    bind,
    step_keys,
    step_signature,
)
from pamiq_jax.trainer.step_donation import without_donation
from pamiq_jax.trainer.step_modules import check_no_modules, module_remedy
from pamiq_jax.trainer.step_output import StepOutput, read_output
from pamiq_jax.trainer.step_state import (
    ParamsPlace,
    StepState,
    as_arrays,
    find_params,
    one_model,
    receive_params,
    strong,
)
from pamiq_jax.types import Metrics, Params, PyTree

_AS_IT_IS = "trainer_from_step(..., compiled=False) runs it as it is"


def trainer_from_step(
    step: Callable[..., Any],
    init: Any,
    *,
    signature: str | None = None,
    model: str | None = None,
    params: Callable[[Any], Params] | None = None,
    compiled: bool = True,
    donates: bool | None = None,
    warm_up: bool = True,
) -> Trainer[StepState, Any]:
    """Return a trainer that takes the steps of a function as it is, jitted or not.

    Arguments whose names `init` gives a value go on from step to step. `key`, `rng` and the like get another key at
    every step, or the one that the step returned; `step` gets the count, and what is left the batch, or its parts by
    name. Of what comes back, the values that go on are known by their form, where one output alone has it; a single
    number is not, since a loss looks the same, and is declared. The rest are metrics, averaged where they have axes.

    Args:
        step: for example `update(params, opt_state, batch, key) -> (params, opt_state, loss)`, or
            `train_step(state, batch) -> (state, metrics)`. Bind other arguments with `functools.partial`.
        init: `(rng_key, params) -> values`: a dict by the step's argument names, or the only one as it is. Or an optax
            transformation, for `params` and `opt_state`. Or a value to begin with, such as a flax
            `TrainState`, whose `params` are replaced by those of the model.
        signature: what the step takes and returns, as "params, opt_state, x, y -> params, opt_state, (loss, norm)".
            A value on the left alone does not change.
        model: the name of the model in a system that this step trains; None: the parameters are a dict by model
            name, or the trainer is used alone.
        params: picks the model's parameters out of the values, for what is published: by default `params`, as a
            name or an attribute. With batch statistics `lambda state: {"params": state.params, ...}`.
        compiled: False for a step that cannot be traced, or is compiled ahead of time; it runs as it is. What a
            system publishes of it is copied, once a run, so nothing that is read can be deleted.
        donates: only for `compiled=False`: whether the step donates what it is given. None finds out by giving the
            first call copies, and then copies at every step what was donated; True copies all at every step; False
            copies nothing after the first call, which checks it. Of a step that is traced, a donation of its own
            counts for nothing: the library's plan is used.
        warm_up: only for `compiled=False`: a system calls the step once more while it is compiled, on copies and a
            batch that is mostly zeros, so that its own jitted pieces are compiled before an agent starts. False for
            a step that does more than compute.

    Raises:
        StepSignatureError: it is not known what an argument or a result is; when built, or when traced.
        StepStructureError: a metric is no number.
        InvalidValueError: the parameters are not found, or something in the values is no array.
        DonationError: of a step with `donates=False` that donates; nothing is deleted.

    Example:
        >>> tx = optax.sgd(0.5)
        >>> @jax.jit
        ... def update(params, opt_state, batch):
        ...     loss, gradients = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(params)
        ...     updates, opt_state = tx.update(gradients, opt_state)
        ...     return optax.apply_updates(params, updates), opt_state, loss
        >>> trainer = trainer_from_step(update, tx)
        >>> state = trainer.init(jax.random.key(0), jnp.zeros(1))
        >>> state, metrics = trainer.step(state, jnp.full(4, 3.0))
        >>> print(state.params, metrics["loss"])
        [3.] 9.0
    """
    if compiled and isinstance(step, jax.stages.Compiled):
        problem = "the step is compiled ahead of time, so it cannot be part of another program"
        raise StepSignatureError("trainer_from_step", problem, f"{_AS_IT_IS}; or give the jitted function itself")
    known = step_signature(step, signature)
    make = _init_function(init)

    def call(values: Any, keys: Any, count: jax.Array, batch: Any) -> StepOutput:
        arguments = bind(known, {**values, **keys}, count, batch)
        keywords = {name: arguments.pop(name) for name in known.by_keyword}
        with _explained(known, {**arguments, **keywords}):
            output = step(*arguments.values(), **keywords)
        return read_output(known, values, keys, output)

    # Under `jit`, what the step donates stays alive: this is the reason for it.
    run = jax.jit(call) if compiled else without_donation(known.step, call, donates)

    def init_state(rng_key: jax.Array, models: Params, /) -> StepState:
        made = make(rng_key, one_model(models, model, "trainer_from_step(model)"))
        values = _by_argument(known, made, step)
        for name, value in values.items():
            check_no_modules(f"init's {name}", value)
        values = {name: as_arrays(f"init's {name}", value) for name, value in values.items()}
        place = find_params(values, params, model)
        _check_returned(known, values, place)
        count = jnp.zeros((), jnp.int32)
        return StepState(values, count, rng_key, step_keys(known, values, rng_key, count), place)

    def step_once(state: StepState, batch: Any, /) -> tuple[StepState, Metrics]:
        values, keys, metrics = run(state.values, state.keys, state.step, batch)
        count = state.step + 1
        if len(keys) < len(state.keys):
            keys = {**step_keys(known, state.values, state.rng_key, count), **keys}
        return state.replace(values=jax.tree.map(strong, values), keys=keys, step=count), metrics

    names = None if model is None else (model,)
    trainer = custom_trainer(
        init_state, step_once, receive=receive_params, trains=names, compiled=compiled, warm_up=warm_up
    )
    return trainer._replace(kind="trainer_from_step")


@contextlib.contextmanager
def _explained(signature: StepSignature, arguments: dict[str, Any]) -> Generator[None]:
    """Say, of a step that cannot be traced, or was given what it does not expect, what to do."""
    try:
        yield
    except PamiqError:
        raise
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        error.add_note(f"{signature.step} cannot be traced: {_AS_IT_IS}")
        raise
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        if "Cannot apply JAX transformations" in str(error):
            error.add_note(f"{signature.step} calls what is compiled ahead of time: {_AS_IT_IS}")
        given = ", ".join(f"{name}={type(value).__name__}" for name, value in arguments.items())
        error.add_note(f"it was called as {signature.step} with {given}; if it means something else, {DECLARE}")
        raise


def _init_function(init: Any) -> Callable[[jax.Array, Params], PyTree]:
    check_no_modules("trainer_from_step(init)", init)
    if isinstance(init, optax.GradientTransformation):
        return lambda rng_key, params: _OfOptimizer(params=params, opt_state=init.init(params))
    if hasattr(init, "params") and hasattr(init, "replace"):
        return lambda rng_key, params: init.replace(params=params)
    if not callable(init) or isinstance(init, type):
        raise InvalidValueError(
            "trainer_from_step(init)",
            init,
            "a function (rng_key, params) -> values, an optax transformation, or a TrainState",
        )
    return cast(Any, init)


def _by_argument(signature: StepSignature, made: Any, step: Any) -> dict[str, PyTree]:
    """Return what `init` made, by the names of the step's arguments."""
    is_dict = isinstance(made, dict)
    if is_dict and made and all(name in signature.inputs for name in made):
        return dict(cast(dict[str, PyTree], made))
    names = [name for name in signature.inputs if name not in KEY_NAMES]
    if signature.outputs is not None:
        names = [name for name in names if name in signature.returned and name != "step"]
    else:
        names = ([name for name in names if name not in BATCH_NAMES] or names)[:1]
    if (
        len(names) != 1
        or isinstance(made, _OfOptimizer)
        or any(name in signature.inputs for name in (is_dict and made) or ())
    ):
        kind = f"a dict with {', '.join(map(str, made))}" if is_dict else f"a {type(made).__name__}"
        raise StepSignatureError(
            signature.step,
            f"tried to find what `init` returned, {kind}, among its arguments by name",
            module_remedy(step, made) or "let `init` return {argument: value}; or " + DECLARE,
        )
    return {names[0]: made}


def _check_returned(signature: StepSignature, values: dict[str, PyTree], place: ParamsPlace) -> None:
    """Raise if it is declared that nothing of the parameters comes back."""
    names = [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(values)[0]]
    trained = sorted({names[leaf] for leaf in place.leaves})
    if signature.outputs is not None and not set(trained) & set(signature.returned):
        raise StepSignatureError(
            signature.step,
            f"the parameters, in {' and '.join(trained)}, are not among what it is declared to return: "
            f"{', '.join(signature.returned)}",
            DECLARE,
        )


class _OfOptimizer(dict[str, Any]):
    """Values for arguments of these names; not a state that is a dict."""
