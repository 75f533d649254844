"""Models of flax.linen: parameters are trained, mutable collections are taken over, keys are handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import optax
from flax.core import FrozenDict, freeze, unfreeze

from pamiq_jax.errors import InvalidValueError, StepStructureError
from pamiq_jax.trainer import Trainer, TrainerState
from pamiq_jax.trainer.arrays import check_arrays
from pamiq_jax.trainer.partition import Partition, partitioned_trainer
from pamiq_jax.types import Metrics, Params

type LinenLossFn = Callable[[Params, Any, dict[str, jax.Array]], tuple[jax.Array, tuple[Params, Metrics]]]
"""`(variables, batch [B, ...], rngs) -> (loss [], (updates, metrics))`: updates as of `apply(mutable=)`."""


def linen_trainer(
    loss_fn: LinenLossFn,
    tx: optax.GradientTransformation,
    *,
    model: str | None = None,
    rngs: tuple[str, ...] = ("dropout",),
) -> Trainer[TrainerState[Any], Any]:
    """Return a trainer of one linen module's variables.

    Trained is the collection "params"; the others (batch statistics) become what the loss returns of
    them. All are `state.params` and published, so inference has its running averages: apply the module with
    `module.apply(variables, x, train=False)`, or however it is told that it is not being trained.

    Args:
        loss_fn: `(variables, batch, rngs) -> (loss, (updates, metrics))`. It applies the module with
            `mutable=["batch_stats"]`, and returns the collections that came back; `{}` if there are none.
        tx: any optax transformation, of the collection "params".
        model: the model's name in a system; None: the parameters are the variables as they are.
        rngs: names of the keys that the loss is given, other ones at every step.

    Raises:
        InvalidValueError: the model's parameters are no dict of collections with "params" among them.
        StepStructureError: when traced, if `updates` has other collections, or of other form, than the variables.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train):
        ...         return nn.Dropout(0.5, deterministic=not train)(nn.BatchNorm(not train)(nn.Dense(1)(x)))
        >>> net, x = Net(), jnp.ones((4, 2))
        >>> def loss_fn(variables, batch, rngs):
        ...     y, updates = net.apply(variables, batch, train=True, mutable=["batch_stats"], rngs=rngs)
        ...     return (y**2).mean(), (updates, {})
        >>> trainer = linen_trainer(loss_fn, optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), net.init(jax.random.key(1), x, train=False))
        >>> state, metrics = jax.jit(trainer.step)(state, x)
        >>> sorted(state.params)
        ['batch_stats', 'params']
    """
    if isinstance(rngs, str):
        raise InvalidValueError("linen_trainer(rngs)", rngs, "a tuple of names", f"write ({rngs!r},)")

    def loss_of(variables: Params, batch: Any, rng_key: jax.Array) -> Any:
        keys = {name: jax.random.fold_in(rng_key, index) for index, name in enumerate(rngs)}
        output = loss_fn(variables, batch, keys)
        try:
            loss, (updates, metrics) = output
        except (TypeError, ValueError):
            raise StepStructureError(
                "loss_fn of linen_trainer returned something else than (loss, (updates, metrics)); "
                "return `loss, (updates, {})`, with the collections that `apply(mutable=...)` returned, or {}"
            ) from None
        return loss, (_updated(variables, updates), metrics)

    return partitioned_trainer(loss_of, tx, Partition(_split, _merge, _check), model=model, kind="linen_trainer")


def _split(variables: Params) -> tuple[Params, Params]:
    rest = {name: variables[name] for name in variables if name != "params"}
    return variables["params"], _contained_as(variables, rest)


def _merge(params: Params, collections: Params) -> Params:
    return _contained_as(collections, {"params": params, **collections})


def _updated(variables: Params, updates: Params) -> Params:
    if unknown := [name for name in updates if name not in variables]:
        known = ", ".join(name for name in variables if name != "params") or "none"
        raise StepStructureError(
            f"the loss returned the collections {', '.join(unknown)}, which the model's variables do not have; "
            f"name only those in `mutable=` that it has: {known}"
        )
    updated = {name: _formed_as(variables[name], updates[name]) for name in updates}
    return _contained_as(variables, {**variables, **updated})


def _contained_as(container: Params, collections: dict[str, Params]) -> Params:
    return freeze(collections) if isinstance(container, FrozenDict) else collections


def _formed_as(old: Params, new: Params) -> Params:
    """Return a collection with frozen dicts where the old one has them: `apply` returns others than it was given."""
    structure = jax.tree.structure(old)
    is_same = jax.tree.structure(unfreeze(old)) == jax.tree.structure(unfreeze(new))
    return jax.tree.unflatten(structure, jax.tree.leaves(new)) if is_same else new


def _check(name: str, variables: Params) -> None:
    check_arrays(name, variables)
    if not isinstance(variables, Mapping) or "params" not in variables:
        by_name = cast(Mapping[str, Any], variables) if isinstance(variables, Mapping) else {}
        raise InvalidValueError(
            name,
            f"a {type(variables).__name__} with {', '.join(by_name) or 'no names'}",
            'a dict of collections with "params" among them',
            "give what `module.init(key, x)` returned, whole",
        )
