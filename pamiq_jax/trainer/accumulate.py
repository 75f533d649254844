"""Gradient accumulation: one update for the gradients of several steps."""

from __future__ import annotations

import optax

from pamiq_jax.arguments import checked_integer
from pamiq_jax.trainer.asked import takes_what_is_asked
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.evaluated import evaluate_within
from pamiq_jax.trainer.optimization import Optimization
from pamiq_jax.trainer.wrapped import change_optimization


def accumulate_gradients[S, B](trainer: Trainer[S, B], steps: int) -> Trainer[S, B]:
    """Return a trainer that averages the gradients of several steps for one update of the parameters.

    So a batch may be larger than memory: if the loss is a mean, k steps of batches of B do what one step of k * B
    does. Of what surrounds a trainer the outermost sees the gradients first: in
    `accumulate_gradients(clip_gradients(trainer, 1.0), 4)` the average is clipped, the other way round each step's
    gradients are. Schedules count updates.

    Args:
        trainer: one that shows its gradients: `gradient_trainer`, `linen_trainer`, `nnx_trainer`, combinators around
            these.
        steps: how many steps' gradients make an update, at least 1; parameters rest meanwhile.

    Raises:
        InvalidValueError: no number of steps, or a trainer that does not show its gradients.

    Example:
        >>> import jax, jax.numpy as jnp, pamiq_jax as pj
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (w * batch, {}), optax.sgd(1.0))
        >>> trainer = accumulate_gradients(inner, 2)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for batch in (1.0, 3.0):
        ...     state, metrics = trainer.step(state, jnp.float32(batch))
        ...     print(state.params)
        0.0
        -2.0
    """
    checked_integer("accumulate_gradients(steps)", steps, least=1)

    def change(optimization: Optimization) -> Optimization:
        tx = optax.MultiSteps(takes_what_is_asked(optimization.tx), steps).gradient_transformation()
        evaluate = evaluate_within(optimization, lambda opt_state: opt_state.inner_opt_state)
        return optimization._replace(tx=tx, evaluate=evaluate)

    return change_optimization("accumulate_gradients", trainer, change)
