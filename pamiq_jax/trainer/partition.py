"""A gradient step on a part of a model's arrays, beside which others are kept: statistics, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.arguments import is_tuple_of
from pamiq_jax.errors import InvalidValueError, LossOutputError
from pamiq_jax.trainer.arrays import check_arrays
from pamiq_jax.trainer.asked import asked_for
from pamiq_jax.trainer.base import Trainer, TrainerState, custom_trainer
from pamiq_jax.trainer.evaluated import evaluated
from pamiq_jax.trainer.optimization import Optimization, apply_gradients, first_opt_state
from pamiq_jax.trainer.step_state import one_model
from pamiq_jax.types import Metrics, Params


class Partition(NamedTuple):
    """How one model's arrays are taken apart and put together.

    Attributes:
        split: `(model) -> (trained, rest)`.
        merge: `(trained, rest) -> model`.
        check: `(name, model)`; raises where the model is not what can be taken apart.
    """

    split: Callable[[Params], tuple[Params, Params]]
    merge: Callable[[Params, Params], Params]
    check: Callable[[str, Params], None] = check_arrays


def partitioned_trainer(
    loss_fn: Callable[[Params, Any, jax.Array], tuple[jax.Array, tuple[Params, Metrics]]],
    optimization: optax.GradientTransformation | Optimization,
    partition: Partition,
    *,
    model: str | None = None,
    kind: str = "partitioned_trainer",
) -> Trainer[TrainerState[Any], Any]:
    """Return a trainer that follows the gradient with respect to a part of a model, and takes over the rest.

    The whole model is published, and is `state.params`; the optimizer has seen the trained part alone.

    Args:
        loss_fn: `(model, batch, rng_key) -> (loss, (model, metrics))`: the model that comes back has the rest as the
            step leaves it; what it has in the trained part is not looked at.
        optimization: any optax transformation, of the trained part.
        partition: which part is trained.
        model: the model's name in a system; None: the parameters are one model, as they are.
        kind: what made it, for its text.

    Example:
        >>> partition = Partition(lambda m: (m["w"], m["mean"]), lambda w, mean: {"w": w, "mean": mean})
        >>> def loss_fn(m, batch, rng_key):
        ...     return jnp.mean((m["w"] - batch) ** 2), ({**m, "mean": batch.mean()}, {})
        >>> trainer = partitioned_trainer(loss_fn, optax.sgd(0.5), partition)
        >>> state = trainer.init(jax.random.key(0), {"w": jnp.float32(0), "mean": jnp.float32(0)})
        >>> state, metrics = trainer.step(state, jnp.full(4, 3.0))
        >>> print(state.params["w"], state.params["mean"])
        3.0 3.0
    """
    used = optimization if isinstance(optimization, Optimization) else Optimization(optimization)

    def init(rng_key: jax.Array, params: Params, /) -> TrainerState[Any]:
        whole = one_model(params, model, "trainer.init")
        partition.check("params" if model is None else f"model {model!r}", whole)
        trained, _ = partition.split(whole)
        if not jax.tree.leaves(trained):
            raise InvalidValueError("the trained part of the model", trained, "at least one array")
        opt_state = first_opt_state(used, trained)
        params = whole if model is None else {model: whole}
        return TrainerState(params, opt_state, jnp.zeros((), jnp.int32), rng_key)

    def step(state: TrainerState[Any], batch: Any, /) -> tuple[TrainerState[Any], Metrics]:
        trained, rest = partition.split(one_model(state.params, model, "trainer.init"))
        rng_key = jax.random.fold_in(state.rng_key, state.step)

        def loss_of(trained: Params) -> tuple[jax.Array, tuple[Params, Metrics]]:
            return _checked(loss_fn(partition.merge(trained, rest), batch, rng_key))

        (loss, (after, metrics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
        # optax's own arithmetic mixes dtypes, which users who promote strictly must not pay for.
        with jax.numpy_dtype_promotion("standard"):
            asked = asked_for(lambda trained: loss_of(trained)[0], loss, gradients)
            trained, opt_state, measured = apply_gradients(used, gradients, state.opt_state, trained, **asked)
        whole = partition.merge(trained, partition.split(after)[1])
        params = whole if model is None else {model: whole}
        state = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        return state, {"loss": loss, **measured, **metrics}

    def with_optimization(change: Callable[[Optimization], Optimization]) -> Trainer[TrainerState[Any], Any]:
        return partitioned_trainer(loss_fn, change(used), partition, model=model, kind=kind)

    def publish(state: TrainerState[Any], /) -> Params:
        if used.evaluate is None:
            return state.params
        trained, rest = partition.split(one_model(state.params, model, "trainer.publish"))
        whole = partition.merge(evaluated(used, state.opt_state, trained), rest)
        return whole if model is None else {model: whole}

    trainer = custom_trainer(init, step, publish=publish, trains=None if model is None else (model,))
    return trainer._replace(with_optimization=with_optimization, kind=kind)


def _checked(output: Any) -> Any:
    if not is_tuple_of(2, output) or jnp.shape(output[0]) != () or not isinstance(output[1][1], Mapping):
        raise LossOutputError(output)
    return output[0], (output[1][0], dict(output[1][1]))
