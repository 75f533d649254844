"""A trainer made of a train step that somebody has already, which is not edited for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.errors import InvalidValueError, StepSignatureError
from pamiq_jax.trainer.base import Trainer, custom_trainer
from pamiq_jax.trainer.signature import DECLARE, KEY_NAMES, StepSignature, bind, read_output, step_signature
from pamiq_jax.trainer.step_donation import without_donation
from pamiq_jax.trainer.step_state import StepState, as_arrays, find_params, one_model, receive_params, strong
from pamiq_jax.types import Metrics, Params, PyTree


def trainer_from_step(
    step: Callable[..., Any],
    init: Any,
    *,
    signature: str | None = None,
    model: str | None = None,
    params: Callable[[Any], Params] | None = None,
    compiled: bool = True,
    donates: bool | None = None,
) -> Trainer[StepState, Any]:
    """Return a trainer that takes the steps of a function as it is, jitted or not.

    Arguments whose names `init` gives a value go on from step to step. `key`, `rng` and the like get another key at
    every step, `step` the count, and what is left the batch, or its parts by name. Of what comes back, the
    values that go on are known by their form; the rest are metrics, averaged where they have axes.

    Args:
        step: for example `update(params, opt_state, batch, key) -> (params, opt_state, loss)`, or
            `train_step(state, batch) -> (state, metrics)`. Bind other arguments with `functools.partial`.
        init: `(rng_key, params) -> values`: a dict by the step's argument names, or the only one as it is. Or an optax
            transformation, for `params` and `opt_state`. Or a value to begin with, such as a flax
            `TrainState`, whose `params` are replaced by those of the model.
        signature: what the step takes and returns, as "params, opt_state, x, y -> params, opt_state, loss". A
            value on the left alone does not change.
        model: the name of the model in a system that this step trains; None: the parameters are a dict by model
            name, or the trainer is used alone.
        params: picks the model's parameters out of the values, for what is published: by default `params`, as a
            name or an attribute. With batch statistics `lambda state: {"params": state.params, ...}`.
        compiled: False for a step that cannot be traced; it runs as it is.
        donates: only for `compiled=False`: whether the step donates what it is given; None finds out. Of a step
            that is traced, a donation of its own counts for nothing: the library's plan is used.

    Raises:
        StepSignatureError: it is not known what an argument or a result is; when built, or when traced.
        InvalidValueError: the parameters are not found, or something in the values is no array.

    Example:
        >>> tx = optax.sgd(0.5)
        >>> @jax.jit
        ... def update(params, opt_state, batch):
        ...     loss, gradients = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(params)
        ...     updates, opt_state = tx.update(gradients, opt_state)
        ...     return optax.apply_updates(params, updates), opt_state, loss
        >>> trainer = trainer_from_step(update, tx)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> state, metrics = trainer.step(state, jnp.full(4, 3.0))
        >>> print(state.params, metrics["loss"])
        3.0 9.0
    """
    known = step_signature(step, signature)
    make = _init_function(init)

    def call(values: Any, count: jax.Array, rng_key: jax.Array, batch: Any) -> Any:
        arguments = bind(known, values, count, rng_key, batch)
        keywords = {name: arguments.pop(name) for name in known.by_keyword}
        with _explained(known):
            output = step(*arguments.values(), **keywords)
        return read_output(known, values, output)

    # Under `jit`, what the step donates stays alive: this is the reason for it.
    run = jax.jit(call) if compiled else without_donation(known.step, call, donates)

    def init_state(rng_key: jax.Array, models: Params, /) -> StepState:
        values = _by_argument(known, make(rng_key, one_model(models, model, "trainer_from_step(model)")))
        values = {name: as_arrays(f"init's {name}", value) for name, value in values.items()}
        return StepState(values, jnp.zeros((), jnp.int32), rng_key, find_params(values, params, model))

    def step_once(state: StepState, batch: Any, /) -> tuple[StepState, Metrics]:
        values, metrics = run(state.values, state.step, jax.random.fold_in(state.rng_key, state.step), batch)
        return state.replace(values=jax.tree.map(strong, values), step=state.step + 1), metrics

    names = None if model is None else (model,)
    trainer = custom_trainer(init_state, step_once, receive=receive_params, trains=names, compiled=compiled)
    return trainer._replace(kind="trainer_from_step")


@contextlib.contextmanager
def _explained(signature: StepSignature) -> Generator[None]:
    """Say, of a step that cannot be traced, what to do."""
    try:
        yield
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        error.add_note(f"{signature.step} cannot be traced: trainer_from_step(..., compiled=False) runs it as it is")
        raise


def _init_function(init: Any) -> Callable[[jax.Array, Params], PyTree]:
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


def _by_argument(signature: StepSignature, made: Any) -> dict[str, PyTree]:
    """Return what `init` made, by the names of the step's arguments."""
    is_dict = isinstance(made, dict)
    if is_dict and made and all(name in signature.inputs for name in made):
        return dict(cast(dict[str, PyTree], made))
    first = [name for name in signature.inputs if name not in KEY_NAMES][:1]
    names = first if signature.outputs is None else [name for name in signature.inputs if name in signature.outputs]
    if (
        len(names) != 1
        or isinstance(made, _OfOptimizer)
        or any(name in signature.inputs for name in (is_dict and made) or ())
    ):
        kind = f"a dict with {', '.join(map(str, made))}" if is_dict else f"a {type(made).__name__}"
        raise StepSignatureError(
            signature.step,
            f"tried to find what `init` returned, {kind}, among its arguments by name",
            "let `init` return {argument: value}; or " + DECLARE,
        )
    return {names[0]: made}


class _OfOptimizer(dict[str, Any]):
    """Values for arguments of these names; not a state that is a dict."""
