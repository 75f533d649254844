"""Gradient clipping by the global norm, which is told as a metric."""

from __future__ import annotations

import jax
import optax

from pamiq_jax.arguments import is_number
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer.asked import takes_what_is_asked
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.evaluated import evaluate_within
from pamiq_jax.trainer.optimization import Optimization
from pamiq_jax.trainer.wrapped import change_optimization
from pamiq_jax.types import Metrics, Params


def clip_gradients[S, B](trainer: Trainer[S, B], max_norm: float | jax.Array) -> Trainer[S, B]:
    """Return a trainer that scales gradients down to a global norm, and reports the norm they had.

    The norm is over all parameters that the trainer trains (Pascanu et al. 2013). The metric "gradient_norm" is that
    of each step's gradients, before anything is done with them.

    Args:
        trainer: one that shows its gradients: `gradient_trainer`, `linen_trainer`, `nnx_trainer`, combinators around
            these.
        max_norm: more than 0; `float("inf")` only measures.

    Raises:
        InvalidValueError: a norm that is not more than 0, or a trainer that does not show its gradients.

    Example:
        >>> import jax, jax.numpy as jnp, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (w * batch, {}), optax.sgd(1.0))
        >>> trainer = clip_gradients(inner, 0.5)
        >>> state, metrics = trainer.step(trainer.init(jax.random.key(0), jnp.float32(0)), jnp.float32(4))
        >>> print(state.params, metrics["gradient_norm"])
        -0.5 4.0
    """
    # A traced number (see `with_hyperparameters`) cannot be looked at.
    if not isinstance(max_norm, jax.Array) and not (is_number(max_norm) and max_norm > 0):
        raise InvalidValueError("clip_gradients(max_norm)", max_norm, "more than 0", "float('inf') only measures")

    def change(optimization: Optimization) -> Optimization:
        def measure(gradients: Params, /) -> Metrics:
            return {**optimization.measure(gradients), "gradient_norm": optax.tree.norm(gradients)}

        tx = optax.chain(optax.clip_by_global_norm(max_norm), takes_what_is_asked(optimization.tx))
        return Optimization(tx, measure, evaluate_within(optimization, lambda opt_state: opt_state[1]))

    return change_optimization("clip_gradients", trainer, change)
