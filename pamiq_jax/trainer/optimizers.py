"""Several optimizers, each with its schedule, for groups of a trainer's parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import jax
import optax

from pamiq_jax.arguments import checked_function, checked_optimizer, in_short
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer.asked import takes_what_is_asked
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.evaluated import EvaluateFn, evaluate_within
from pamiq_jax.trainer.optimization import Optimization
from pamiq_jax.trainer.wrapped import change_optimization, check_trainer_given
from pamiq_jax.types import Params

type Labels = Callable[[Params], Any]
"""`(params) -> names of groups`: a tree of strings in the form of the parameters, or of its upper part."""


def with_optimizers[S, B](
    trainer: Trainer[S, B], by_group: Mapping[str, optax.GradientTransformation], *, labels: Labels | None = None
) -> Trainer[S, B]:
    """Return a trainer that updates some groups of its parameters with optimizers of their own.

    All others keep the optimizer that the trainer has. Where a group has a hyper-parameter of the same name, its own is
    then "rest.learning_rate".

    Args:
        trainer: one that shows its gradients: `gradient_trainer`, `linen_trainer`, `nnx_trainer`, combinators around
            these.
        by_group: an optax transformation for each group, with a schedule of its own if it has one.
        labels: which group a parameter is in. By default groups are the first keys of the parameters: names of models
            where the trainer has several, else names of layers.

    Raises:
        InvalidValueError: no group, no optimizer, or a trainer that does not show its gradients.
        UnknownNameError: a model that the trainer does not train; from `init`, a group that has no parameters.

    Example:
        >>> import jax.numpy as jnp, pamiq_jax as pj
        >>> def loss_fn(params, batch, rng_key):
        ...     return params["policy"] + params["value"], {}
        >>> inner = pj.gradient_trainer(loss_fn, optax.sgd(1.0), trains=("policy", "value"))
        >>> trainer = with_optimizers(inner, {"value": optax.sgd(10.0)})
        >>> state = trainer.init(jax.random.key(0), {"policy": jnp.float32(0), "value": jnp.float32(0)})
        >>> state, metrics = trainer.step(state, None)
        >>> print(state.params["policy"], state.params["value"])
        -1.0 -10.0
    """
    check_trainer_given("with_optimizers", trainer)
    if not isinstance(cast(Any, by_group), Mapping):
        raise InvalidValueError("with_optimizers(by_group)", in_short(by_group), "a dict of optimizers by group")
    for name, tx in by_group.items():
        checked_optimizer(f"with_optimizers(by_group) of group {name!r}", tx)
    checked_function("with_optimizers(labels)", labels, "(params) -> names of groups", is_optional=True)
    groups, rest = dict(by_group), "rest"
    while rest in groups:
        rest += "_"
    if not groups:
        raise InvalidValueError("with_optimizers(by_group)", by_group, "at least one group")
    for name in groups:
        if labels is None and trainer.trains is not None and len(trainer.trains) > 1 and name not in trainer.trains:
            raise UnknownNameError("trained model", name, trainer.trains, "with_optimizers(by_group)")

    def label(params: Params) -> Any:
        found = _first_keys(params) if labels is None else labels(params)
        known = {*jax.tree.leaves(found)}
        for name in groups:
            if name not in known:
                raise UnknownNameError("group of parameters", name, sorted(known), "with_optimizers(by_group)")
        return jax.tree.map(lambda group: group if group in groups else rest, found)

    def change(optimization: Optimization) -> Optimization:
        asked: dict[Hashable, Any] = {
            name: takes_what_is_asked(tx) for name, tx in {**groups, rest: optimization.tx}.items()
        }
        tx = optax.partition(asked, label)
        return optimization._replace(tx=tx, evaluate=_evaluate_rest(optimization, rest, label))

    return change_optimization("with_optimizers", trainer, change)


def _evaluate_rest(optimization: Optimization, rest: str, label: Labels) -> EvaluateFn | None:
    """Return what evaluates the parameters of the inner optimizer, and hands the others through."""
    evaluate = evaluate_within(optimization, lambda opt_state: opt_state.inner_states[rest].inner_state)
    if evaluate is None:
        return None

    def evaluate_rest(opt_state: optax.OptState, params: Params) -> Params:
        groups = label(params)
        seen = jax.tree.map(lambda group, part: part if group == rest else optax.MaskedNode(), groups, params)
        used = evaluate(opt_state, seen)
        return jax.tree.map(lambda group, new, old: new if group == rest else old, groups, used, params)

    return evaluate_rest


def _first_keys(params: Params) -> Any:
    """Return, at each leaf's place, the first key on the way to it."""

    def first_key(path: tuple[Any, ...], _: Any) -> str:
        if not path:
            raise InvalidValueError("the parameters", "one array", "a dict, by model or by layer", "it has no groups")
        return jax.tree_util.keystr(path[:1], simple=True)

    return jax.tree_util.tree_map_with_path(first_key, params)
