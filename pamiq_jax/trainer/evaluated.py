"""What of an optimizer is to be used in the place of the parameters that it trains, published in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from pamiq_jax.errors import InvalidValueError, noted
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.optimization import Optimization
from pamiq_jax.trainer.wrapped import change_optimization
from pamiq_jax.types import Params

type EvaluateFn = Callable[[Any, Params], Params]
"""`(opt_state, params) -> params` to use, in the form of those that are trained: `schedule_free_eval_params`."""


def publish_evaluated[S, B](trainer: Trainer[S, B], evaluate: EvaluateFn) -> Trainer[S, B]:
    """Return a trainer that publishes what its optimizer means to be used, and trains what it did.

    The gradients of a schedule-free optimizer are taken at one point, and another one is what has been learned
    (Defazio et al. 2024): `publish_evaluated(trainer, optax.contrib.schedule_free_eval_params)`. An optimizer that
    walks away from the parameters and comes back (SAM) takes a function of yours.

    It is put around the trainer that has the optimizer; `clip_gradients`, `accumulate_gradients` and `with_optimizers`
    go around it. Of an `optax.chain` the function picks the state: `lambda opt_state, params:
    schedule_free_eval_params(opt_state[1], params)`. An `ema` around it would average the wrong ones.

    Args:
        trainer: one that shows its gradients: `gradient_trainer`, `linen_trainer`, `nnx_trainer`, combinators around
            these.
        evaluate: `(opt_state, params) -> params`, traced; of all that the optimizer trains.

    Raises:
        InvalidValueError: no function, or a trainer that does not show its gradients.

    Example:
        >>> import jax.numpy as jnp, pamiq_jax as pj
        >>> tx = optax.contrib.schedule_free(optax.sgd(1.0), learning_rate=1.0, b1=0.5)
        >>> inner = pj.gradient_trainer(lambda w, batch, key: (w * batch, {}), tx)
        >>> trainer = publish_evaluated(inner, optax.contrib.schedule_free_eval_params)
        >>> state = trainer.init(jax.random.key(0), jnp.float32(0))
        >>> for _ in range(2):
        ...     state, metrics = trainer.step(state, jnp.float32(1))
        >>> print(state.params, trainer.publish(state))  # the average of the two steps of plain descent, -1 and -2
        -1.75 -1.5
    """
    if not callable(evaluate):
        remedy = "give it itself: optax.contrib.schedule_free_eval_params"
        raise InvalidValueError("publish_evaluated(evaluate)", evaluate, "a function (opt_state, params)", remedy)

    def change(optimization: Optimization) -> Optimization:
        return optimization._replace(evaluate=evaluate)

    return change_optimization("publish_evaluated", trainer, change)


def evaluate_within(optimization: Optimization, pick: Callable[[Any], optax.OptState]) -> EvaluateFn | None:
    """Return how to evaluate with an optimizer that has another one's state within its own.

    Args:
        optimization: of the inner optimizer.
        pick: `(opt_state) -> opt_state` of the inner one.

    Example:
        >>> inner = Optimization(optax.sgd(0.1), evaluate=lambda opt_state, params: params + opt_state)
        >>> evaluate_within(inner, lambda opt_state: opt_state["inner"])({"inner": 2}, 3)
        5
    """
    evaluate = optimization.evaluate
    return None if evaluate is None else lambda opt_state, params: evaluate(pick(opt_state), params)


def evaluated(optimization: Optimization, opt_state: optax.OptState, params: Params) -> Params:
    """Return what is to be published of parameters, in their dtypes.

    Args:
        optimization: of the trainer.
        opt_state: of its optimizer.
        params: that the optimizer trains.

    Example:
        >>> evaluated(Optimization(optax.sgd(0.1)), (), {"w": 1.0})
        {'w': 1.0}
    """
    if optimization.evaluate is None:
        return params
    # optax's own arithmetic mixes dtypes, which users who promote strictly must not pay for.
    with jax.numpy_dtype_promotion("standard"), noted(_NOTE):
        used = optimization.evaluate(opt_state, params)
        return jax.tree.map(lambda leaf, new: new.astype(leaf.dtype), params, used)


_NOTE = (
    "in what `publish_evaluated` was given: it gets the state of the whole optimizer. Put it around the trainer that "
    "has the optimizer, other combinators around it, and pick the state where it is one of several"
)
