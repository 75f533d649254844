"""Models of equinox: a module's arrays are trained and published, all else of it stays in a closure.

An extra, not imported by `pamiq_jax` itself: `pip install pamiq-jax[equinox]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax

from pamiq_jax import trees
from pamiq_jax.arguments import is_tuple_of
from pamiq_jax.errors import InvalidValueError, LossOutputError, StepStructureError
from pamiq_jax.trainer import Trainer, TrainerState
from pamiq_jax.trainer.partition import Partition, partitioned_trainer
from pamiq_jax.types import Params

__all__ = ["EquinoxLossFn", "ModuleParts", "equinox_trainer", "split_module"]

type EquinoxLossFn = Callable[[Any, Any, Any, jax.Array], Any]
"""`(module, state, batch [B, ...], rng_key) -> (loss [], (state, metrics))`; a module without state gets None."""


class ModuleParts(NamedTuple):
    """An equinox module taken apart into what changes and what does not.

    Attributes:
        params: a dict of the module's arrays ("module": a module with None for all else) and of its state ("state":
            a tuple of arrays, such as batch statistics); a model's `params` in a system.
        static: the module without its arrays.
        state: the form of its state.

    Example:
        >>> parts = split_module(eqx.nn.Linear(2, 1, key=jax.random.key(0)))
        >>> parts.params["module"].weight.shape, parts.params["state"]
        ((1, 2), ())
    """

    params: Any
    static: Any
    state: Any

    def module(self, params: Params) -> tuple[Any, Any]:
        """Return the module with these arrays, in training mode, and its state, None if it has none."""
        state = jax.tree.unflatten(self.state, params["state"])
        return eqx.combine(params["module"], self.static), state

    def apply(self, params: Params, *arguments: Any, method: Callable[..., Any] | None = None, **keywords: Any) -> Any:
        """Return what the module in inference mode says, with these parameters: no dropout, running averages.

        Use it as a model's `apply`, and in an agent. A module with state is called with it as `state=`; the state that
        it gives back is left out.

        Args:
            params: as published.
            arguments: of the module.
            method: called as `method(module, ...)` in the module's place, to map it over a batch for example.
            keywords: of the module.
        """
        module, state = self.module(params)
        module = eqx.nn.inference_mode(module)
        call = module if method is None else lambda *a, **k: method(module, *a, **k)
        with jax.numpy_dtype_promotion("standard"):  # equinox's own arithmetic mixes dtypes
            if state is None:
                return call(*arguments, **keywords)
            output, _ = call(*arguments, state=state, **keywords)
        return output


def split_module(module: Any, state: Any = None) -> ModuleParts:
    """Return an equinox module as arrays, and as what stays the same.

    Args:
        module: any equinox module, or a tree of them.
        state: of a module with state; both come from `eqx.nn.make_with_state(Module)(...)`.

    Raises:
        InvalidValueError: there is no array in it, or a module has state that was not given.

    Example:
        >>> import jax.numpy as jnp
        >>> parts = split_module(eqx.nn.MLP(2, 3, width_size=8, depth=1, key=jax.random.key(0)))
        >>> parts.apply(parts.params, jnp.ones(2)).shape
        (3,)
    """
    arrays, static = eqx.partition(module, eqx.is_array)
    if not jax.tree.leaves(arrays):
        raise InvalidValueError("split_module(module)", type(module).__name__, "a module with arrays in it")
    if state is None and any(isinstance(part, eqx.nn.StateIndex) for part in _parts(module)):
        raise InvalidValueError(
            "split_module(state)", None, "the module's state", "take both from eqx.nn.make_with_state(Module)(...)"
        )
    leaves, treedef = jax.tree.flatten(state)
    return ModuleParts({"module": arrays, "state": tuple(leaves)}, static, treedef)


def _parts(module: Any) -> list[Any]:
    return jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, eqx.nn.StateIndex))


def equinox_trainer(
    parts: ModuleParts,
    loss_fn: EquinoxLossFn,
    tx: optax.GradientTransformation,
    *,
    model: str | None = None,
    trained: Any = eqx.is_inexact_array,
) -> Trainer[TrainerState[Any], Any]:
    """Return a trainer of one equinox module.

    Args:
        parts: of `split_module`; give the system `pj.Model(parts.params, parts.apply)`.
        loss_fn: `(module, state, batch, rng_key) -> (loss, (state, metrics))`. The module is in training mode and
            handles one example, as usual in equinox: map it over the batch with `jax.vmap`.
        tx: any optax transformation, of the arrays that are trained.
        model: the model's name in a system; None: the parameters are `parts.params` as they are.
        trained: equinox's filter for what is trained: a function of a leaf, or a tree of booleans in the module's form.

    Raises:
        InvalidValueError: the parameters are a module with functions in it, or another model's.
        StepStructureError: when traced, if the loss does not return the state in the form it got it.

    Example:
        >>> import jax.numpy as jnp
        >>> parts = split_module(eqx.nn.Linear(2, 1, key=jax.random.key(0)))
        >>> def loss_fn(module, state, batch, rng_key):
        ...     return (jax.vmap(module)(batch) ** 2).mean(), (state, {})
        >>> trainer = equinox_trainer(parts, loss_fn, optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), parts.params)
        >>> state, metrics = jax.jit(trainer.step)(state, jnp.ones((4, 2)))
        >>> parts.apply(state.params, jnp.ones(2)).shape
        (1,)
    """

    def loss_of(params: Params, batch: Any, rng_key: jax.Array) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            output = loss_fn(*parts.module(params), batch, rng_key)
        if not is_tuple_of(2, output) or not is_tuple_of(2, output[1]):
            raise LossOutputError(output)
        loss, (state, metrics) = output
        leaves, treedef = jax.tree.flatten(state)
        if treedef != parts.state:
            raise StepStructureError(
                f"loss_fn of equinox_trainer returned the state {treedef}, expected {parts.state}; "
                "return `loss, (state, metrics)` with the state that the module gave back, None if it has none"
            )
        return loss, ({**params, "state": tuple(leaves)}, metrics)

    def split(params: Params) -> tuple[Params, Params]:
        chosen, rest = eqx.partition(params["module"], trained)
        return chosen, {**params, "module": rest}

    def merge(chosen: Params, rest: Params) -> Params:
        return {**rest, "module": eqx.combine(chosen, rest["module"])}

    def check(name: str, params: Params) -> None:
        if (problem := trees.difference(parts.params, params)) is not None:
            remedy = "give those; a module holds functions, which cannot be state"
            raise InvalidValueError(name, type(params), f"the module's `parts.params`: {problem}", remedy)

    return partitioned_trainer(loss_of, tx, Partition(split, merge, check), model=model, kind="equinox_trainer")
