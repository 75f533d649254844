"""Hyper-parameters in the state, so that they can be changed between two steps without a compile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import DictKey, GetAttrKey

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.wrapped import WrappedState
from pamiq_jax.types import Metrics, Params

REMEDY = (
    "others are compiled in: to change one later, build the optimizer with optax.inject_hyperparams, "
    "or the trainer with with_hyperparameters"
)


class HyperparameterState[S](WrappedState[S]):
    """A trainer's state beside the numbers that the trainer is built from.

    Attributes:
        hyperparameters: `float32[]` by name.
    """

    hyperparameters: dict[str, jax.Array]


def with_hyperparameters[S, B](
    make_trainer: Callable[..., Trainer[S, B]], /, **hyperparameters: float
) -> Trainer[HyperparameterState[S], B]:
    """Return a trainer whose numbers are part of its state: learning rate, weights in the loss, decays.

    Read them with `get_hyperparameters`, change them with `set_hyperparameters`. Under `vmap` each
    member of a population has its own.

    Args:
        make_trainer: `(**hyperparameters) -> trainer`; pure. It is called again whenever a function
            of the trainer is traced, with arrays `[]` for the numbers, and must not branch on them.
        hyperparameters: the first values, finite as float32. None is named `timeout`, for `set` of a run takes that.

    Raises:
        InvalidValueError: such a name, or a value that is no such number.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> def make_trainer(learning_rate, weight):
        ...     def loss_fn(w, batch, rng_key):
        ...         return weight * jnp.mean((w - batch) ** 2), {}
        ...     return pj.gradient_trainer(loss_fn, optax.sgd(learning_rate))
        >>> trainer = with_hyperparameters(make_trainer, learning_rate=0.5, weight=1.0)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> state, metrics = trainer.step(set_hyperparameters(state, weight=0.5), jnp.full(4, 3.0))
        >>> print(state.params, get_hyperparameters(state))
        1.5 {'learning_rate': 0.5, 'weight': 0.5}
    """
    for name, value in hyperparameters.items():
        _check_given(name, value)
    facts = make_trainer(**hyperparameters)  # with numbers, it refuses what is out of range

    def init(rng_key: jax.Array, params: Params, /) -> HyperparameterState[S]:
        values = {name: jnp.asarray(value, jnp.float32) for name, value in hyperparameters.items()}
        return HyperparameterState(inner=make_trainer(**values).init(rng_key, params), hyperparameters=values)

    def step(state: HyperparameterState[S], batch: B, /) -> tuple[HyperparameterState[S], Metrics]:
        inner, metrics = make_trainer(**state.hyperparameters).step(state.inner, batch)
        return state.replace(inner=inner), metrics

    def change(function: str) -> Callable[..., HyperparameterState[S]]:
        def changed(state: HyperparameterState[S], *rest: Any) -> HyperparameterState[S]:
            trainer = make_trainer(**state.hyperparameters)
            return state.replace(inner=getattr(trainer, function)(state.inner, *rest))

        return changed

    def publish(state: HyperparameterState[S], /) -> Params:
        return make_trainer(**state.hyperparameters).publish(state.inner)

    fields: dict[str, Any] = {name: change(name) for name in ("setup", "teardown", "receive")}

    def with_optimization(change: Any) -> Any:
        def make_changed(**values: Any) -> Trainer[Any, Any]:
            trainer = make_trainer(**values)
            assert trainer.with_optimization is not None, "it shows its gradients, whatever its numbers are"
            return trainer.with_optimization(change)

        return with_hyperparameters(make_changed, **hyperparameters)

    fields["with_optimization"] = None if facts.with_optimization is None else with_optimization
    kind = f"with_hyperparameters({facts.kind})"
    return cast(Any, facts._replace(**fields, init=init, step=step, publish=publish, kind=kind))


def get_hyperparameters(state: Any) -> dict[str, Any]:
    """Return the hyper-parameters in a trainer's state by name; also those that follow a schedule.

    They are what `with_hyperparameters` and `optax.inject_hyperparams` keep, wherever it is, and any dict in
    a field `hyperparameters` of your own. If several have one name, the model or the optimizer's label is put in
    front: "value.learning_rate".

    Args:
        state: any trainer's state with real arrays.

    Returns:
        Floats (or ints), or numpy arrays `[N]` for a population.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
        >>> trainer = pj.gradient_trainer(lambda w, batch, key: (w * w, {}), tx)
        >>> get_hyperparameters(trainer.init(jax.random.key(0), jnp.float32(0)))
        {'learning_rate': 0.5}
    """
    found = _find(state)
    return {name: value.item() if np.ndim(value) == 0 else np.array(value) for name, (_, value, _) in found.items()}


def set_hyperparameters[S](state: S, **values: Any) -> S:
    """Return a trainer's state with other hyper-parameters, in a form for which nothing compiles again.

    Args:
        state: any trainer's state.
        values: numbers by name as in `get_hyperparameters`; for a population also arrays `[N]`. A
            name with a dot is given as `**{"value.learning_rate": 1e-4}`.

    Raises:
        InvalidValueError: a name that is not there, is there more than once or follows a schedule, or a
            value that is no number, not finite in the form that is stored, or no integer where one must be.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
        >>> trainer = pj.gradient_trainer(lambda w, batch, key: (w * w, {}), tx)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> get_hyperparameters(set_hyperparameters(state, learning_rate=0.25))
        {'learning_rate': 0.25}
    """
    found = _find(state)
    leaves, treedef = jax.tree.flatten(state)
    changeable = sorted(name for name, place in found.items() if not place.is_scheduled)
    for name, value in values.items():
        if name not in changeable:
            remedy = "it follows a schedule: build the optimizer with a number" if name in found else REMEDY
            raise InvalidValueError("the name of a hyper-parameter", name, f"one of {changeable}", remedy)
        leaves[found[name].position] = _like(name, found[name].value, value)
    return cast(S, jax.tree.unflatten(treedef, leaves))


class _Place(NamedTuple):
    """Where a hyper-parameter is in a flattened state, what it is, and whether a schedule sets it."""

    position: int
    value: Any
    is_scheduled: bool


def _find(state: Any) -> dict[str, _Place]:
    """Return hyper-parameters by a name as short as it can be without being another's."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    scheduled = {_from(path, "hyperparams_states") for path, _ in leaves}
    places: dict[Any, _Place] = {}
    for position, (path, value) in enumerate(leaves):
        if len(path) > 1 and path[-2] in (GetAttrKey("hyperparams"), GetAttrKey("hyperparameters")):
            places[path] = _Place(position, value, (path[:-2], path[-1]) in scheduled)
    forms = [{path: form(path) for path in places} for form in (_short, _qualified, jax.tree_util.keystr)]
    counts = [Counter(form.values()) for form in forms]

    def name_of(path: Any) -> str:
        return next(form[path] for form, count in zip(forms, counts, strict=True) if count[form[path]] == 1)

    return {name_of(path): place for path, place in places.items()}


def _from(path: tuple[Any, ...], field: str) -> tuple[Any, ...]:
    """Return `(path before the field, key after it)`, or nothing."""
    if GetAttrKey(field) not in path:
        return ()
    index = path.index(GetAttrKey(field))
    return path[:index], path[index + 1]


def _short(path: tuple[Any, ...]) -> str:
    return str(path[-1].key)


def _qualified(path: tuple[Any, ...]) -> str:
    return ".".join(str(part.key) for part in path if isinstance(part, DictKey))


def _like(name: str, old: Any, value: Any) -> jax.Array:
    """Return a value in the form of the old one: shape, dtype, sharding, and whether it is committed."""
    if isinstance(old, Tracer) or isinstance(value, Tracer):
        return jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
    array = _checked_number(name, value, old.dtype)
    if array.ndim and array.shape != old.shape:
        raise InvalidValueError(f"hyper-parameter {name}", value, f"a number, or an array of shape {old.shape}")
    # By way of numpy: a jax operation here would be compiled while the agent acts.
    return jax.device_put(np.broadcast_to(array, old.shape), old.sharding if old.committed else None)


def _checked_number(name: str, value: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Return a number, or an array of them, as a dtype, unless it is none or becomes another one."""
    kinds = (jnp.number,) if not jnp.issubdtype(dtype, jnp.bool_) else (jnp.bool_,)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths
        array = np.asarray(None)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds) or jnp.issubdtype(array.dtype, jnp.complexfloating):
        remedy = "write float(value), or an array of such numbers for a population"
        raise InvalidValueError(f"hyper-parameter {name}", value, "a number", remedy)
    with np.errstate(over="ignore", invalid="ignore"):
        cast_array = array.astype(dtype)
        is_exact = np.all(cast_array.astype(np.float64) == array.astype(np.float64))
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    if not np.all(np.isfinite(cast_array.astype(np.float64))) or (is_integer and not is_exact):
        expected = f"an integer that {dtype} holds" if is_integer else f"a finite number, also as {dtype}"
        raise InvalidValueError(f"hyper-parameter {name}", value, expected)
    return cast_array


def _check_given(name: str, value: Any) -> None:
    if name == "timeout":
        remedy = "`run.trainers[...].set` has an argument of this name; choose another"
        raise InvalidValueError("with_hyperparameters(name)", name, "a name that is free", remedy)
    if not isinstance(value, Tracer):
        _checked_number(name, value, np.dtype(np.float32))
