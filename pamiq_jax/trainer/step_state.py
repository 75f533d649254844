"""The state of a trainer made of a user's step, and where the parameters are in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.struct
import jax
import jax.numpy as jnp

from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer.arrays import check_arrays
from pamiq_jax.types import Params, PyTree


def one_model(params: Params, model: str | None, where: str) -> Params:
    """Return a model's parameters by its name; None for a name gives all, as they are.

    Args:
        params: of all models.
        model: the name.
        where: what asks, for the error.

    Raises:
        UnknownNameError: there is no such model.

    Example:
        >>> one_model({"line": 1.0}, "line", "init"), one_model(1.0, None, "init")
        (1.0, 1.0)
    """
    if model is None:
        return params
    if not isinstance(params, Mapping) or model not in params:
        known = list(cast(Mapping[str, Any], params)) if isinstance(params, Mapping) else ()
        raise UnknownNameError("model", model, known, where)
    return cast(Mapping[str, Params], params)[model]


class ParamsPlace(NamedTuple):
    """Where the parameters are among a step's values.

    Attributes:
        model: the name they go by; None: they are by model name themselves, or nameless.
        leaves: their positions among the flattened values.
        treedef: their form.
    """

    model: str | None
    leaves: tuple[int, ...]
    treedef: Any


class StepState(Shown, flax.struct.PyTreeNode):
    """The state of a trainer made of a user's step.

    Attributes:
        values: what the step takes and returns, by the names of its arguments.
        step: `int32[]`, steps done since `init`.
        rng_key: `key[]`, never consumed: a step uses `fold_in(rng_key, step)`.
        keys: what the next step is given as keys, by the names of its arguments: those that the last one returned,
            or others at every step.
        place: where the parameters are.
    """

    values: dict[str, PyTree]
    step: jax.Array
    rng_key: jax.Array
    keys: dict[str, jax.Array]
    place: ParamsPlace = flax.struct.field(pytree_node=False)

    @property
    def params(self) -> Params:
        """The parameters: by model name, if the trainer has a `model`."""
        leaves = jax.tree.leaves(self.values)
        params = jax.tree.unflatten(self.place.treedef, [leaves[index] for index in self.place.leaves])
        return params if self.place.model is None else {self.place.model: params}

    @property
    def value(self) -> PyTree:
        """What a step with one such value goes on from, for example its `TrainState`; a dict of several."""
        return _unwrapped(self.values)


def _unwrapped(values: dict[str, PyTree]) -> PyTree:
    return next(iter(values.values())) if len(values) == 1 else values


def find_params(values: dict[str, PyTree], pick: Callable[[Any], Params] | None, model: str | None) -> ParamsPlace:
    """Return the place of the parameters: they are picked out of a tree whose leaves are their own positions."""
    positions = jax.tree.unflatten(jax.tree.structure(values), range(jax.tree.structure(values).num_leaves))
    if pick is not None:
        found = pick(_unwrapped(positions))
    else:
        candidates = [positions["params"]] if "params" in positions else list(_params_within(positions))
        if len(candidates) != 1:
            raise InvalidValueError(
                "trainer_from_step(params)",
                None,
                f"a function that picks the parameters: {len(candidates)} were found in {', '.join(values)}",
                "for example params=lambda state: state.params",
            )
        found = candidates[0]
    leaves, treedef = jax.tree.flatten(found)
    if not leaves or not all(isinstance(leaf, int) for leaf in leaves):
        raise InvalidValueError(
            "trainer_from_step(params)", found, "leaves of the values as they are", "cast with Model(dtype=) instead"
        )
    return ParamsPlace(model, tuple(leaves), treedef)


def _params_within(value: Any) -> list[Any]:
    """Return each `params` in nested dicts and tuples of objects."""
    if hasattr(value, "params"):
        return [value.params]
    if isinstance(value, Mapping):
        by_name = cast(Mapping[str, Any], value)
        return [by_name["params"]] if "params" in by_name else _within_all(by_name.values())
    return _within_all(cast(tuple[Any, ...], value)) if isinstance(value, tuple | list) else []


def _within_all(values: Any) -> list[Any]:
    return [found for value in values for found in _params_within(value)]


def receive_params(state: StepState, models: Mapping[str, Params], /) -> StepState:
    """Return the state with models replaced, wherever among its values they are."""
    params = state.params
    if not isinstance(params, Mapping):
        raise InvalidValueError("state.params", type(params).__name__, "a dict by model name")
    for name in models:
        if name not in params:
            raise UnknownNameError("model", name, params, "trainer.receive")
    new = {**params, **models}
    leaves, treedef = jax.tree.flatten(state.values)
    received = state.place.treedef.flatten_up_to(new if state.place.model is None else new[state.place.model])
    for index, leaf in zip(state.place.leaves, received, strict=True):
        leaves[index] = leaf
    return state.replace(values=jax.tree.unflatten(treedef, leaves))


def as_arrays(name: str, tree: PyTree) -> PyTree:
    """Return a tree with numbers as arrays, and refuse what is no pytree of arrays."""
    check_arrays(name, tree)
    return jax.tree.map(strong, tree)


def strong(leaf: Any) -> Any:
    """Return a leaf as an array that is not weakly typed, which would be traced again."""
    if isinstance(leaf, jax.Array):
        is_weak = getattr(leaf, "weak_type", False)  # keys have none
        return jax.lax.convert_element_type(leaf, leaf.dtype) if is_weak else leaf
    return jnp.asarray(leaf, jnp.result_type(leaf)) if isinstance(leaf, bool | int | float | complex) else leaf
