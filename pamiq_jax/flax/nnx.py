"""Models of flax.nnx: split into values when a trainer is built, put together only within a traced function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.extend.core import Var

from pamiq_jax import trees
from pamiq_jax.arguments import is_tuple_of
from pamiq_jax.errors import InvalidValueError, LossOutputError, MutatedModuleError, StepStructureError
from pamiq_jax.trainer import Trainer, TrainerState
from pamiq_jax.trainer.arrays import check_arrays
from pamiq_jax.trainer.partition import Partition, partitioned_trainer
from pamiq_jax.types import Params

type NnxLossFn = Callable[[Any, Any], Any]
"""`(module, batch [B, ...]) -> (loss [], metrics)`: the module is in training mode and may be changed."""


class ModuleParts(NamedTuple):
    """An nnx module taken apart: values that may cross threads, as the module may not.

    Attributes:
        train: the module's graph in training mode.
        evaluate: its graph in evaluation mode: no dropout, running averages.
        params: what inference needs, an `nnx.State` of parameters and statistics; a model's `params` in a system.
        rngs: its streams of random numbers, which each step of a trainer renews.
        rest: all else.

    Example:
        >>> parts = split_module(nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
        >>> sorted(parts.params)
        ['bias', 'kernel']
    """

    train: Any
    evaluate: Any
    params: Any
    rngs: Any
    rest: Any

    def apply(self, params: Params, *arguments: Any, method: Callable[..., Any] | None = None, **keywords: Any) -> Any:
        """Return what the module in evaluation mode says, with these parameters.

        Use it as a model's `apply`, and in an agent. A module is made for this call alone; one that is changed by it
        is refused, since what it would remember is lost. A key that is drawn and not used (`nnx.RNN` draws one for a
        first carry of zeros) is no change.

        Args:
            params: as published.
            arguments: of the module.
            method: called as `method(module, ...)` in the module's place.
            keywords: of the module.

        Raises:
            MutatedModuleError: the call changes the module: it uses random numbers, or updates statistics.
        """

        def call(rngs: Any) -> tuple[Any, list[str], bool]:
            state = _fresh(nnx.merge_state(params, rngs, self.rest))
            before = dict(zip(trees.leaf_names(state), jax.tree.leaves(state), strict=True))
            module = nnx.merge(self.evaluate, state)
            output = module(*arguments, **keywords) if method is None else method(module, *arguments, **keywords)
            graph, after = nnx.split(module)
            leaves = zip(trees.leaf_names(after), jax.tree.leaves(after), strict=True)
            return output, [name for name, leaf in leaves if before.get(name) is not leaf], graph == self.evaluate

        output, changed, is_same = call(self.rngs)
        is_random = bool(changed) and set(changed) <= set(trees.leaf_names(self.rngs))
        if not is_same or (changed and not (is_random and _is_independent(lambda rngs: call(rngs)[0], self.rngs))):
            raise MutatedModuleError(changed)
        return output


def split_module(module: Any, *, published: Any = (nnx.Param, nnx.BatchStat)) -> ModuleParts:
    """Return an nnx module as values; the module itself is no longer needed, and is left as it is.

    Args:
        module: any nnx module.
        published: nnx's filter for what inference needs.

    Raises:
        InvalidValueError: it is no nnx module.

    Example:
        >>> parts = split_module(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))))
        >>> parts.apply(parts.params, jnp.ones((4, 2))).shape
        (4, 3)
    """
    if not isinstance(module, nnx.Module):
        raise InvalidValueError("split_module(module)", type(module), "an nnx module", "for linen use `module.init`")
    copy = nnx.merge(*nnx.split(module), copy=True)
    copy.train()
    train, params, rngs, rest = nnx.split(copy, published, nnx.RngState, ...)
    copy.eval()
    return ModuleParts(train, nnx.graphdef(copy), params, rngs, rest)


def nnx_trainer(
    parts: ModuleParts,
    loss_fn: NnxLossFn,
    tx: optax.GradientTransformation,
    *,
    model: str | None = None,
    wrt: Any = nnx.Param,
) -> Trainer[TrainerState[Any], Any]:
    """Return a trainer of one nnx module.

    Each step puts a module together within the traced function, hands it to the loss in training mode, and takes it
    apart again: statistics become what the loss left, random streams are renewed from the trainer's key. Variables
    that are not published (caches, intermediates) begin as they were at every step.

    Args:
        parts: of `split_module`; give the system `pj.Model(parts.params, parts.apply)`.
        loss_fn: `(module, batch) -> (loss, metrics)`.
        tx: any optax transformation, of the variables that `wrt` names.
        model: the model's name in a system; None: the parameters are `parts.params` as they are.
        wrt: nnx's filter for what is trained: a kind of variable, `nnx.PathContains("head")`, several in `nnx.All`.

    Raises:
        InvalidValueError: the parameters are a module object, or another model's, or `wrt` fits none of them.

    Example:
        >>> parts = split_module(nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
        >>> def loss_fn(module, batch):
        ...     return (module(batch) ** 2).mean(), {}
        >>> trainer = nnx_trainer(parts, loss_fn, optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), parts.params)
        >>> state, metrics = jax.jit(trainer.step)(state, jnp.ones((4, 2)))
        >>> parts.apply(state.params, jnp.ones((4, 2))).shape
        (4, 1)
    """

    def loss_of(params: Params, batch: Any, rng_key: jax.Array) -> Any:
        rngs = _renewed(parts.rngs, rng_key)
        module = nnx.merge(parts.train, _fresh(params), rngs, _fresh(parts.rest))
        output = loss_fn(module, batch)
        if not is_tuple_of(2, output):
            raise LossOutputError(output)
        return output[0], (_taken_over(params, nnx.state(module)), output[1])

    def split(params: Params) -> tuple[Params, Params]:
        trained, rest = nnx.split_state(params, wrt, ...)
        return trained, rest

    def check(name: str, params: Params) -> None:
        check_arrays(name, params)
        if (problem := trees.difference(parts.params, params)) is not None:
            raise InvalidValueError(name, type(params), f"the module's `parts.params`: {problem}", "give those")

    return partitioned_trainer(loss_of, tx, Partition(split, nnx.merge_state, check), model=model, kind="nnx_trainer")


def _is_independent(function: Callable[[Any], Any], rngs: Any) -> bool:
    """Return whether no array that a function returns is computed from the keys in random streams."""
    leaves, treedef = jax.tree.flatten(rngs)
    places = [place for place, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]

    def of_keys(keys: list[jax.Array]) -> list[Any]:
        by_place = dict(zip(places, keys, strict=True))
        output = function(treedef.unflatten([by_place.get(place, leaf) for place, leaf in enumerate(leaves)]))
        return [leaf for leaf in jax.tree.leaves(output) if isinstance(leaf, jax.Array)]

    jaxpr = jax.make_jaxpr(of_keys)([leaves[place] for place in places]).jaxpr
    computed: set[Any] = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(isinstance(value, Var) and value in computed for value in equation.invars):
            computed.update(equation.outvars)
    return not any(isinstance(value, Var) and value in computed for value in jaxpr.outvars)


def _fresh(state: Any) -> Any:
    """Return a state with new variables: nnx lets a variable be changed only where it was made."""
    return jax.tree.map(lambda leaf: leaf, state)


def _renewed(rngs: Any, rng_key: jax.Array) -> Any:
    """Return random streams of this step: another key each, and counts from 0."""
    leaves, treedef = jax.tree.flatten(rngs)
    renewed = [
        jax.random.fold_in(rng_key, index) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros_like(leaf)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, renewed)


def _taken_over(params: Params, state: Any) -> Params:
    """Return, of all a module holds after a step, what is in `params`."""
    after = dict(zip(trees.leaf_names(state), jax.tree.leaves(state), strict=True))
    names = trees.leaf_names(params)
    if missing := [name for name in names if name not in after]:
        raise StepStructureError(f"the loss took {', '.join(missing)} out of the module; leave its variables in it")
    return jax.tree.unflatten(jax.tree.structure(params), [after[name] for name in names])
