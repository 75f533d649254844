"""Several trainers that take turns, each on models of its own, with the others' models as constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp

from pamiq_jax.arguments import checked_integer
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.priorities import PRIORITIES
from pamiq_jax.trainer.wrapped import check_traceable
from pamiq_jax.types import Metrics, Params, PyTree


class AlternatingState(Shown, flax.struct.PyTreeNode):
    """The states of trainers that take turns. It holds each model once.

    Attributes:
        parts: the state of each trainer, by the names of its models ("policy+value"); of the models
            that it reads, those that another part trains are left out between its steps.
        step: `int32[]`, rounds done since `init`.
    """

    parts: dict[str, Any]
    step: jax.Array

    @property
    def params(self) -> dict[str, Params]:
        """All trained models, by name."""
        return {name: model for part in self.parts.values() for name, model in part.params.items()}

    @property
    def reads(self) -> dict[str, Params]:
        """The models that no part trains, by name."""
        trained = self.params
        reads = [getattr(part, "reads", {}) for part in self.parts.values()]
        return {name: model for read in reads for name, model in read.items() if name not in trained}


def alternate[B](*trainers: Trainer[Any, B], turns: tuple[int, ...] | None = None) -> Trainer[AlternatingState, B]:
    """Return a trainer whose step is one round: a step of each trainer in turn, as for a GAN.

    Each sees what those before it have made of the models that it reads. Metrics are named
    "models/metric"; the "priorities" that one of them, and only one, may give the batch's records keep their name.
    Every part has its own key, folded from the one that `init` is given.

    Args:
        trainers: two or more, each with `trains` of its own, and what it needs of the others in `reads`.
        turns: how many steps each takes in a round; by default one. A trainer with more of them takes each
            on its own equal share of the batch, one with a single turn takes the whole.

    Raises:
        InvalidValueError: less than two trainers, a trainer that does not name its models or cannot be
            traced, a model trained twice, turns that do not fit the trainers, or, when traced, a batch
            that cannot be shared equally, or priorities from several trainers.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> def chase(params, batch, key):
        ...     return (params["cat"] - params["mouse"]) ** 2, {}
        >>> def flee(params, batch, key):
        ...     return -(params["cat"] - params["mouse"]) ** 2, {}
        >>> cat = pj.gradient_trainer(chase, optax.sgd(0.25), trains=("cat",), reads=("mouse",))
        >>> mouse = pj.gradient_trainer(flee, optax.sgd(0.25), trains=("mouse",), reads=("cat",))
        >>> trainer = alternate(cat, mouse)
        >>> state = trainer.init(jax.random.key(0), {"cat": jnp.float32(0), "mouse": jnp.float32(4)})
        >>> state, metrics = trainer.step(state, None)
        >>> print(state.params["cat"], state.params["mouse"], metrics["cat/loss"], metrics["mouse/loss"])
        2.0 5.0 16.0 -4.0
    """
    _check(trainers, turns)
    parts = {"+".join(trainer.trains or ()): trainer for trainer in trainers}
    counts = dict(zip(parts, turns or (1,) * len(parts), strict=True))
    trains = tuple(name for trainer in trainers for name in trainer.trains or ())
    reads = tuple(dict.fromkeys(name for trainer in trainers for name in trainer.reads if name not in trains))

    def init(rng_key: jax.Array, params: Params, /) -> AlternatingState:
        states: dict[str, Any] = {}
        for number, (key, trainer) in enumerate(parts.items()):
            state = trainer.init(jax.random.fold_in(rng_key, number), params)
            states[key] = trainer.receive(state, {name: () for name in trainer.reads if name in trains})
        return AlternatingState(parts=states, step=jnp.zeros((), jnp.int32))

    def step(state: AlternatingState, batch: B, /) -> tuple[AlternatingState, Metrics]:
        metrics: Metrics = {}
        for key, trainer in parts.items():
            take_turns = partial(_take_turns, trainer.step, counts[key], batch)
            state, its_metrics = _visit(state, key, trainer, take_turns)
            metrics |= _named(key, its_metrics, metrics)
        return state.replace(step=state.step + 1), metrics

    def each(of: Callable[[Trainer[Any, B]], Callable[[Any], Any]]) -> Callable[[AlternatingState], AlternatingState]:
        def change(state: AlternatingState, /) -> AlternatingState:
            for key, trainer in parts.items():
                function = of(trainer)
                state, _ = _visit(state, key, trainer, lambda part: (function(part), None))  # noqa: B023 - used at once
            return state

        return change

    def publish(state: AlternatingState, /) -> Params:
        published = [trainer.publish(state.parts[key]) for key, trainer in parts.items()]
        return {name: model for models in published for name, model in models.items()}

    def receive(state: AlternatingState, models: Mapping[str, Params], /) -> AlternatingState:
        for name in models:
            if name not in trains and name not in reads:
                raise UnknownNameError("model", name, [*trains, *reads], "trainer.receive")
        states = dict(state.parts)
        for key, trainer in parts.items():
            own = {*(trainer.trains or ()), *trainer.reads} - (set(trains) - set(trainer.trains or ()))
            states[key] = trainer.receive(states[key], {name: models[name] for name in models if name in own})
        return state.replace(parts=states)

    return Trainer(
        init,
        setup=each(lambda trainer: trainer.setup),
        step=step,
        teardown=each(lambda trainer: trainer.teardown),
        publish=publish,
        receive=receive,
        trains=trains,
        publishes=tuple(name for trainer in trainers for name in trainer.publishes or ()),
        reads=reads,
        kind=f"alternate({', '.join(trainer.kind for trainer in trainers)})",
    )


def _visit[R](
    state: AlternatingState, key: str, trainer: Trainer[Any, Any], function: Callable[[Any], tuple[Any, R]]
) -> tuple[AlternatingState, R]:
    """Call a function on one part, that is lent the other parts' models for the time."""
    params = state.params
    lent = [name for name in trainer.reads if name in params]
    part, result = function(trainer.receive(state.parts[key], {name: params[name] for name in lent}))
    part = trainer.receive(part, dict.fromkeys(lent, ()))
    return state.replace(parts={**state.parts, key: part}), result


def _named(key: str, its_metrics: Metrics, metrics: Metrics) -> Metrics:
    """Return one part's metrics under its name, but priorities, which are the batch's, under theirs."""
    if PRIORITIES in its_metrics and PRIORITIES in metrics:
        remedy = "leave them out of the metrics of the others"
        raise InvalidValueError("alternate: priorities", f"also from {key!r}", "from one trainer", remedy)
    return {name if name == PRIORITIES else f"{key}/{name}": metric for name, metric in its_metrics.items()}


def _take_turns(step: Callable[..., Any], turns: int, batch: PyTree, part: Any) -> tuple[Any, Metrics]:
    if turns == 1:
        return step(part, batch)
    part, metrics = jax.lax.scan(step, part, jax.tree.map(partial(_share, turns), batch))
    means = {
        name: jax.tree.map(lambda values: jnp.mean(values.astype(jnp.float32)), metric)
        for name, metric in metrics.items()
        if name != PRIORITIES
    }
    if PRIORITIES not in metrics:
        return part, means
    # The shares lie in the order of the batch.
    return part, {**means, PRIORITIES: jax.tree.map(jnp.ravel, metrics[PRIORITIES])}


def _share(turns: int, leaf: jax.Array) -> jax.Array:
    """Return `[turns, B / turns, ...]`."""
    if leaf.shape[0] % turns:
        raise InvalidValueError("batch size", leaf.shape[0], f"a multiple of {turns}, the turns of a trainer")
    return leaf.reshape(turns, -1, *leaf.shape[1:])


def _check(trainers: tuple[Trainer[Any, Any], ...], turns: tuple[int, ...] | None) -> None:
    if len(trainers) < 2:
        raise InvalidValueError("alternate(trainers)", f"{len(trainers)} trainers", "two or more")
    for trainer in trainers:
        check_traceable("alternate", trainer)
        if not trainer.trains:
            raise InvalidValueError("alternate(trainer.trains)", trainer.trains, "names of models")
    owners = Counter(name for trainer in trainers for name in trainer.trains or ())
    if twice := [name for name, count in owners.items() if count > 1]:
        raise InvalidValueError(
            "alternate: models of several trainers", twice, "one trainer for each", "let others read it"
        )
    given: Any = turns  # users may not type
    if given is None:
        return
    expected = f"{len(trainers)} integers of at least 1, one a trainer"
    if not isinstance(given, tuple | list) or len(cast(tuple[Any, ...], given)) != len(trainers):
        raise InvalidValueError("alternate(turns)", given, expected)
    for count in cast(tuple[Any, ...], given):
        checked_integer("alternate(turns)", count, least=1)
