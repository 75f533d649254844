"""The optimizer that a loss is followed with: one, or one a model; clipped; on accumulated gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import optax

from pamiq_jax.arguments import checked_integer
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.types import Params

type Optimizer = optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
"""An optax transformation for all parameters, or one for each model by name."""


def build_optimizer(
    optimizer: Optimizer, *, max_gradient_norm: float | None = None, accumulate: int = 1
) -> optax.GradientTransformation:
    """Return one optax transformation: gradients are accumulated, then clipped, then used.

    Args:
        optimizer: a transformation, or `{model: transformation}` for parameters by model name.
        max_gradient_norm: the global norm, over all models, that gradients are scaled down to.
        accumulate: how many steps' gradients are averaged for one update; parameters rest meanwhile.

    Raises:
        InvalidValueError: a number out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> tx = build_optimizer({"policy": optax.sgd(1.0), "value": optax.sgd(10.0)}, accumulate=2)
        >>> gradients = params = {"policy": jnp.ones(()), "value": jnp.ones(())}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     with jax.numpy_dtype_promotion("standard"):
        ...         updates, state = tx.update(gradients, state, params)
        ...     print(updates["policy"], updates["value"])
        0.0 0.0
        -1.0 -10.0
    """
    # A traced number (see `with_hyperparameters`) cannot be looked at.
    if isinstance(max_gradient_norm, int | float) and not max_gradient_norm > 0:
        raise InvalidValueError(
            "gradient_trainer(max_gradient_norm)", max_gradient_norm, "more than 0", "float('inf') only measures"
        )
    checked_integer("gradient_trainer(accumulate)", accumulate, least=1)
    tx = _one_a_model(dict(optimizer)) if isinstance(optimizer, Mapping) else optimizer
    if max_gradient_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(max_gradient_norm), tx)
    return tx if accumulate == 1 else optax.MultiSteps(tx, accumulate).gradient_transformation()


def _one_a_model(optimizers: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    def labels(params: Params) -> dict[str, str]:
        return {name: name for name in cast(Mapping[str, Any], params)}

    return optax.partition({**optimizers}, labels)
