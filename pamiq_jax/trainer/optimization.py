"""How a trainer uses the gradients it computes: the part of it that combinators can change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pamiq_jax.arguments import checked_floating
from pamiq_jax.trainer.asked import takes_what_is_asked
from pamiq_jax.types import Metrics, Params


def no_metrics(gradients: Params, /) -> Metrics:
    """Return no metrics.

    Example:
        >>> no_metrics({"w": 1.0})
        {}
    """
    return {}


class Optimization(NamedTuple):
    """What becomes of gradients.

    Attributes:
        tx: turns them into updates of the parameters.
        measure: `(gradients) -> metrics` of each step, before anything else is done with them.
        evaluate: `(opt_state, params) -> params` to publish, see `publish_evaluated`; None for the parameters.
    """

    tx: optax.GradientTransformation
    measure: Callable[[Params], Metrics] = no_metrics
    evaluate: Callable[[optax.OptState, Params], Params] | None = None


def first_opt_state(optimization: Optimization, params: Params) -> optax.OptState:
    """Return the optimizer's state, none of whose arrays is one of the parameters.

    Some optimizers start from the parameters themselves. Their state is donated, parameters are
    not, and one buffer can't be both.

    Args:
        optimization: of a trainer.
        params: what it trains.

    Raises:
        InvalidValueError: naming a leaf that is no float.

    Example:
        >>> params = {"w": jnp.zeros(2)}
        >>> tx = optax.GradientTransformation(lambda params: params, lambda updates, state, params: (updates, state))
        >>> first_opt_state(Optimization(tx), params)["w"] is params["w"]
        False
    """
    taken = {id(leaf) for leaf in jax.tree.leaves(params)}
    first = optimization.tx.init(checked_floating(params))
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in taken else leaf, first)


def apply_gradients(
    optimization: Optimization, gradients: Params, opt_state: optax.OptState, params: Params, **asked: Any
) -> tuple[Params, optax.OptState, Metrics]:
    """Return the updated parameters, the optimizer's next state, and what was measured.

    Args:
        optimization: what to do.
        gradients: in the form of the parameters.
        opt_state: of `optimization.tx`.
        params: to update.
        asked: what line searches, plateaus and Polyak steps ask for (`value`, `grad`, `value_fn`), and SAM (`grad_fn`).

    Example:
        >>> tx = optax.sgd(0.5)
        >>> apply_gradients(Optimization(tx), jnp.float32(4), tx.init(jnp.float32(0)), jnp.float32(3))[0].item()
        1.0
    """
    updates, opt_state = takes_what_is_asked(optimization.tx).update(gradients, opt_state, params, **asked)
    return optax.apply_updates(params, updates), opt_state, optimization.measure(gradients)
