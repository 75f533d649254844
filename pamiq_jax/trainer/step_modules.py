"""Steps that change module objects, or take them apart: what to do with those instead."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import jax

from pamiq_jax.errors import InvalidValueError

_REMEDIES = {
    "nnx": "nnx changes module and optimizer objects, which are no state: give the step's loss to pamiq_jax.flax."
    "nnx_trainer(split_module(model), loss_fn, tx); see docs/howto/your_train_step.md",
    "equinox": "equinox has functions among its arrays, which are no state: give the step's loss to pamiq_jax.equinox."
    "equinox_trainer(split_module(model), loss_fn, tx); see docs/howto/your_train_step.md",
    "linen": "a module object is no state: give its arrays, `module.init(...)`",
}


def module_remedy(step: Any, value: Any = None) -> str | None:
    """Return what to do about a step made for modules, or a value with a module in it; None if it is neither.

    Args:
        step: as it was given, in `nnx.jit` or `eqx.filter_jit` or not.
        value: anything.

    Example:
        >>> from flax import nnx
        >>> module_remedy(nnx.jit(lambda model, optimizer, batch: 0)).partition(":")[0]
        'nnx changes module and optimizer objects, which are no state'
    """
    modules = (type(part) for part in jax.tree.leaves(value, is_leaf=_is_module) if _is_module(part))
    kinds = (_kind(cls) for cls in (*modules, type(step)))
    return next((_REMEDIES[kind] for kind in kinds if kind), None)


def check_no_modules(name: str, value: Any) -> None:
    """Raise if a value has a module in it that is no pytree of arrays.

    Args:
        name: what it is, for the message.
        value: what should be a pytree of arrays.

    Raises:
        InvalidValueError: naming the module's type, and the factory that takes it.

    Example:
        >>> check_no_modules("params", {"w": 1.0})
    """
    for path, part in jax.tree_util.tree_flatten_with_path(value, is_leaf=_is_module)[0]:
        kind = _kind(type(part)) if _is_module(part) else None
        if kind is not None and (kind != "equinox" or not all(map(_is_array, jax.tree.leaves(part)))):
            place = f"{name}{jax.tree_util.keystr(path)}"
            raise InvalidValueError(place, type(part), "a pytree of arrays", _REMEDIES[kind])


def _is_module(value: Any) -> bool:
    """Return whether it is a module, or an nnx optimizer, by name: to import these takes a while."""
    names = {(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__}
    return bool(names & {("flax", "Module"), ("flax", "Optimizer"), ("equinox", "Module")})


def _kind(cls: type) -> str | None:
    for start, kind in (("flax.nnx.", "nnx"), ("equinox.", "equinox"), ("flax.linen.", "linen")):
        if any(base.__module__.startswith(start) for base in cls.__mro__):
            return kind
    return None


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


@contextlib.contextmanager
def noted_captured_module() -> Generator[None]:
    """Add the remedy to what flax raises within, when traced code changes an nnx module that it found outside.

    Example:
        >>> with noted_captured_module():
        ...     pass
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # by name: nnx takes a while to import
            error.add_note(
                "an nnx module made outside of the traced function is changed in it: by `nnx.update`, by being in "
                "training mode, or by an attribute that is set. Take it apart outside, `parts = "
                "pamiq_jax.flax.split_module(module)`, and call `parts.apply(params, ...)` with the parameters that "
                "are given, or train it with nnx_trainer; what is to be remembered goes into the carry"
            )
        raise
