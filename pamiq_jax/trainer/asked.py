"""What an optimizer asks for beside the gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from pamiq_jax.types import Params


def asked_for(value_fn: Callable[[Params], jax.Array], value: jax.Array, gradients: Params) -> dict[str, Any]:
    """Return what optimizers may ask for by name: line searches, plateaus and Polyak steps the loss, SAM its gradient.

    Args:
        value_fn: `(params) -> loss []`.
        value: the loss.
        gradients: of it.

    Example:
        >>> sorted(asked_for(lambda params: params**2, 4.0, 4.0))
        ['grad', 'grad_fn', 'value', 'value_fn']
    """
    gradient = jax.grad(value_fn)
    # SAM numbers the steps that it asks for; all are on the batch of this one.
    return {"value": value, "grad": gradients, "value_fn": value_fn, "grad_fn": lambda params, index: gradient(params)}


def takes_what_is_asked(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that is given what it asks for by name, and no more.

    Some of optax say that they take any further arguments, and refuse those that they do not know. One that hands on
    whatever it is given (a chain) is given no `grad_fn`: line searches refuse it, so an opaque SAM stands alone.

    Args:
        tx: any optax transformation.

    Example:
        >>> tx = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1))
        >>> import jax.numpy as jnp
        >>> params = jnp.float32(1)
        >>> with jax.numpy_dtype_promotion("standard"):
        ...     updates, state = takes_what_is_asked(tx).update(params, tx.init(params), params, value=params)
    """
    supported = optax.with_extra_args_support(tx)
    named = inspect.signature(supported.update).parameters
    hands_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in named.values())

    def update(updates: Any, state: Any, params: Any = None, **asked: Any) -> Any:
        given = {name: asked[name] for name in asked if (name != "grad_fn" if hands_on else name in named)}
        return supported.update(updates, state, params, **given)

    return optax.GradientTransformationExtraArgs(supported.init, update)
