"""flax's `TrainState`, in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from pamiq_jax.trainer import TrainerState
from pamiq_jax.trainer.arrays import check_arrays


def from_train_state(train_state: TrainState, rng_key: jax.Array) -> TrainerState[Any]:
    """Return a trainer's state that goes on from a `TrainState`, for a `gradient_trainer` with the same `tx`.

    Nothing is copied. A step of yours on a `TrainState` need not be translated: see `trainer_from_step`.

    Args:
        train_state: parameters, optimizer state and step; what a subclass adds is left out.
        rng_key: `key[]`, which a `TrainState` does not have.

    Raises:
        InvalidValueError: its parameters are no pytree of arrays.

    Example:
        >>> import pamiq_jax as pj
        >>> old = TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=optax.adam(0.1))
        >>> trainer = pj.gradient_trainer(lambda params, batch, rng_key: (jnp.sum(params["w"]), {}), old.tx)
        >>> state, metrics = trainer.step(from_train_state(old, jax.random.key(0)), None)
        >>> print(state.step, metrics["loss"])
        1 2.0
    """
    check_arrays("train_state.params", train_state.params)
    return TrainerState(train_state.params, train_state.opt_state, jnp.asarray(train_state.step, jnp.int32), rng_key)


def to_train_state(
    state: TrainerState[Any], tx: optax.GradientTransformation, *, apply_fn: Callable[..., Any]
) -> TrainState:
    """Return a trainer's state as a `TrainState`, for code that wants one. Nothing is copied.

    Args:
        state: of a `gradient_trainer`.
        tx: the optimizer that it was built with.
        apply_fn: the model's.

    Example:
        >>> import pamiq_jax as pj
        >>> tx, params = optax.sgd(0.1), {"w": jnp.float32(1)}
        >>> trainer = pj.gradient_trainer(lambda params, batch, rng_key: (params["w"] ** 2, {}), tx)
        >>> train_state = to_train_state(trainer.init(jax.random.key(0), params), tx, apply_fn=jnp.dot)
        >>> print(train_state.apply_gradients(grads={"w": jnp.float32(2)}).params["w"])
        0.8
    """
    return TrainState(step=state.step, apply_fn=apply_fn, params=state.params, tx=tx, opt_state=state.opt_state)
