"""Target networks: slow copies of trained models, that the loss reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from pamiq_jax import trees
from pamiq_jax.arguments import checked_names
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer.averaging import Decay, check_decay, decay_at, decayed
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.wrapped import check_trainer_given, lift_optimization
from pamiq_jax.types import Metrics, Params


def with_targets[S, B](
    trainer: Trainer[S, B],
    targets: Mapping[str, str],
    decay: Decay,
    *,
    publishes: tuple[str, ...] | None = None,
) -> Trainer[S, B]:
    """Return a trainer that itself refreshes models which its loss only reads, from models that it trains.

    A target starts as a copy of its source; after each step `target = decay * target + (1 - decay) * source`.
    The loss finds it among its parameters, as a constant (BYOL, Grill et al. 2020; DQN, Mnih et al. 2015).

    Args:
        trainer: one that reads the targets: `gradient_trainer(..., reads=("target",))`.
        targets: `{target: source}`, names of models.
        decay: the share that stays at a step, in [0, 1), or a schedule of it:
            `lambda step: jnp.where(step % 1000 == 0, 0.0, 1.0)` copies every 1,000 steps.
        publishes: names of the models that inference may see, targets or others that the trainer
            publishes; by default those alone that the trainer publishes.

    Raises:
        UnknownNameError: a target that the trainer does not read, a source that it does not train, or a
            model to publish that it does not have.
        InvalidValueError: a decay outside [0, 1), no trainer, no dict, no target; from `init`, a target given in
            another form than its source.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> def loss_fn(params, batch, rng_key):
        ...     return jnp.mean((params["online"] - params["target"] - batch) ** 2), {}
        >>> inner = pj.gradient_trainer(loss_fn, optax.sgd(0.5), trains=("online",), reads=("target",))
        >>> trainer = with_targets(inner, {"target": "online"}, decay=0.5, publishes=("target",))
        >>> state = trainer.init(jax.random.key(0), {"online": jnp.float32(1)})
        >>> state, metrics = trainer.step(state, jnp.full(4, 2.0))
        >>> print(state.params["online"], trainer.publish(state)["target"])
        3.0 2.0
    """
    published = _check(trainer, targets, decay, publishes)

    def init(rng_key: jax.Array, params: Params, /) -> S:
        by_name = cast(Mapping[str, Params], params)
        for source in targets.values():
            if source not in by_name:
                raise UnknownNameError("model", source, by_name, "trainer.init")
        for target, source in targets.items():
            if target in by_name and (problem := trees.difference(by_name[source], by_name[target])) is not None:
                remedy = f"initialize it like {source!r}, or leave it out: it starts as a copy"
                raise InvalidValueError(f"target {target!r}", problem, f"the form of its source {source!r}", remedy)
        copies = {target: jax.tree.map(jnp.copy, by_name[source]) for target, source in targets.items()}
        return trainer.init(rng_key, {**by_name, **copies})

    def step(state: S, batch: B, /) -> tuple[S, Metrics]:
        state, metrics = trainer.step(state, batch)
        known, share = cast(Any, state), decay_at(decay, cast(Any, state).step)
        moved = {name: decayed(known.reads[name], known.params[source], share) for name, source in targets.items()}
        return trainer.receive(state, moved), metrics

    def publish(state: S, /) -> Params:
        available = {**trainer.publish(state), **{name: cast(Any, state).reads[name] for name in targets}}
        return {name: available[name] for name in published}

    reads = tuple(name for name in trainer.reads if name not in targets)
    again = partial(with_targets, targets=targets, decay=decay, publishes=publishes)
    change = lift_optimization(trainer, again)
    return trainer._replace(
        init=init,
        step=step,
        publish=publish,
        publishes=published,
        reads=reads,
        with_optimization=change,
        kind=f"with_targets({trainer.kind})",
    )


def _check(
    trainer: Trainer[Any, Any], targets: Mapping[str, str], decay: Decay, publishes: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return what is published."""
    check_trainer_given("with_targets", trainer)
    check_decay("with_targets(decay)", decay)
    if not isinstance(cast(Any, targets), Mapping):
        raise InvalidValueError("with_targets(targets)", targets, "a dict {target: source} of models' names")
    if not targets:
        remedy = "write {target: source}, or leave with_targets out"
        raise InvalidValueError("with_targets(targets)", targets, "one target or more", remedy)
    for target, source in targets.items():
        if target not in trainer.reads:
            raise UnknownNameError("read model", target, trainer.reads, "with_targets(targets)")
        if source not in (trainer.trains or ()):
            raise UnknownNameError("trained model", source, trainer.trains or (), "with_targets(targets)")
    checked_names("with_targets(publishes)", publishes, "model")
    known = tuple(trainer.publishes or ())
    for name in publishes or ():
        if name not in known and name not in targets:
            raise UnknownNameError("published model", name, [*known, *targets], "with_targets(publishes)")
    return known if publishes is None else publishes
