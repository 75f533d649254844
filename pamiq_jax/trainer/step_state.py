"""The state of a trainer made of a user's step, and where the parameters are in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError, UnknownNameError
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


def check_arrays(name: str, tree: PyTree) -> None:
    """Raise unless a tree has nothing but arrays and numbers for leaves, and no module in it.

    Args:
        name: what it is, for the message.
        tree: what should be a pytree of arrays.

    Raises:
        InvalidValueError: naming the leaf.

    Example:
        >>> check_arrays("params", {"w": jnp.ones(2), "steps": 3})
        >>> check_arrays("params", {"w": "ones"})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.InvalidValueError: params['w'] is 'ones', expected an array; ...
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_flax_module)[0]:
        place = f"{name}{jax.tree_util.keystr(path)}"
        if _is_flax_module(leaf):
            remedy = _MODULE + (_NNX if _is_a_module_of(leaf, "flax.nnx") else _LINEN)
            raise InvalidValueError(place, type(leaf), "a pytree of arrays", remedy)
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic | complex | float | int):
            actual = leaf if isinstance(leaf, str) else type(leaf)
            raise InvalidValueError(place, actual, "an array", _EQUINOX if _has_equinox(tree) else _NO_ARRAY)
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm":
            raise InvalidValueError(place, f"of dtype {leaf.dtype}", "an array of numbers", "keep others in a closure")


_MODULE = "a module object is no state: none ever crosses threads; "
_NNX = (
    "write `parts = pamiq_jax.flax.split_module(module)`, then `Model(parts.params, parts.apply)` and nnx_trainer; "
    "by hand `nnx.split(module)[1]`"
)
_LINEN = "give its variables, `module.init(key, x)`, as in `Model(variables, module.apply)` and linen_trainer"
_EQUINOX = (
    "an equinox module holds functions: write `parts = pamiq_jax.equinox.split_module(module)`, then "
    "`Model(parts.params, parts.apply)` and equinox_trainer; by hand `eqx.partition(module, eqx.is_array)[0]`"
)
_NO_ARRAY = "keep what is no array in a closure, or a static field"


def _is_a_module_of(leaf: Any, *packages: str) -> bool:
    """Return whether it is a module of one of these, by name: they take a while to import, and need not be there."""
    return any(
        base.__name__ in ("Module", "Pytree") and f"{base.__module__}.".startswith(f"{package}.")
        for base in type(leaf).__mro__
        for package in packages
    )


def _is_flax_module(leaf: Any) -> bool:
    return _is_a_module_of(leaf, "flax.nnx", "flax.linen")


def _has_equinox(tree: PyTree) -> bool:
    def is_equinox(node: Any) -> bool:
        return _is_a_module_of(node, "equinox")

    return any(map(is_equinox, jax.tree.leaves(tree, is_leaf=is_equinox)))
