"""NaN and infinity in data, loss and gradient, with and without a guard: nothing of that kind is ever published."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
from pamiq_jax.trainer import guard
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import errors_of
from tests.runtime.fakes import PATIENCE

KINDS = ("data", "loss", "gradient")
POISONS = (math.nan, math.inf, -math.inf)
BATCH = 4


@jax.custom_vjp
def _same(params: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the parameters; their gradient is multiplied by a factor."""
    return params


_same.defvjp(lambda params, factor: (params, factor), lambda factor, gradient: (gradient * factor, None))


def _trainer(kind: str, model: str) -> pj.Trainer[Any, Any]:
    """Return a trainer that one kind of poison in its batch reaches, and the others not."""

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        factor, loss = jnp.mean(batch[kind]), 0.0
        values = params[model]
        if kind == "gradient":
            values = _same(values, factor)
        loss = jnp.mean((values - (factor if kind == "data" else 1.0)) ** 2)
        return (loss + jax.lax.stop_gradient(factor) if kind == "loss" else loss), {}

    return pj.gradient_trainer(loss_fn, optax.adam(0.05), trains=(model,))


def poisoned_system() -> pj.System:
    """Return a system of six trainers: for each kind of poison one with a guard and one without."""
    trainers = {kind: _trainer(kind, kind) for kind in KINDS}
    trainers |= {f"{kind}, guarded": guard(_trainer(kind, f"{kind}, guarded")) for kind in KINDS}
    return pj.System(
        models={name: pj.Model(jnp.zeros(3)) for name in trainers},
        buffers={"x": pj.ring_buffer(BATCH, sampling="in_order", example=dict.fromkeys(KINDS, 1.0))},
        trainers={
            name: pj.Schedule(trainer, data="x", batch_size=BATCH, when=pj.min_new(BATCH))
            for name, trainer in trainers.items()
        },
    )


def _feed(run: pj.Run, kind: str, poison: float) -> None:
    for position in range(BATCH):
        record = dict.fromkeys(KINDS, 1.0)
        if kind in KINDS and position == 0:
            record[kind] = poison
        run.collect("x", record)


class Published:
    """Looks at each snapshot when it is published, and counts those of each trainer.

    Args:
        losses: by kind of poison.
    """

    def __init__(self, losses: Mapping[str, Losses]) -> None:
        self.counts = Counter[str]()
        self._losses = losses
        self._changed = threading.Condition()

    def watch(self, run: pj.Run) -> None:
        """Look on at a run from here on."""

        def look(transition: Any) -> None:
            if transition.event is TrainerEvent.PUBLISHED:
                for name, params in run.snapshot.params.items():
                    is_finite = bool(np.isfinite(np.asarray(params)).all())
                    self._losses[name.partition(",")[0]].check(is_finite, f"{name} was published not finite")
                with self._changed:
                    self.counts[transition.machine.removeprefix("trainer ")] += 1
                    self._changed.notify_all()

        run.subscribe(look)

    def until_all(self, names: Sequence[str], count: int) -> bool:
        """Return whether each of these has published so often, before all patience was lost."""
        with self._changed:
            return self._changed.wait_for(lambda: all(self.counts[name] >= count for name in names), PATIENCE)


def poisoned(form: Form) -> list[Row]:
    """Poison random batches, and look at every snapshot that is published."""
    losses = {kind: Losses() for kind in KINDS}
    published, done = Published(losses), Counter[str]()
    guarded = [f"{kind}, guarded" for kind in KINDS]
    with pj.launch(poisoned_system()) as run:
        run.wait_until_ready()
        published.watch(run)
        while done.total() - done["good"] < form.times(6, 600):
            kind = form.rng.choice((*KINDS, "good"))
            done[kind] += 1
            _feed(run, kind, form.rng.choice(POISONS))
            went_on = published.until_all(guarded, done.total())  # whatever came
            for each in KINDS:
                losses[each].check(went_on, "a guarded trainer stood still")
        run.pause(PATIENCE)
        told = [error.worker for error in errors_of(run)]
        learner, trainers = run.learner, run.status.trainers
    rows: list[Row] = []
    for kind, name in zip(KINDS, guarded, strict=True):
        skipped, has_failed = int(learner.trainers[name].state.skipped), trainers[kind].phase is TrainerPhase.FAILED
        losses[kind].check(skipped == done[kind], f"{skipped} of {done[kind]} bad updates were skipped")
        losses[kind].check(has_failed == (f"trainer {kind}" in told), "a failure was not told")
        losses[kind].check(trainers[name].phase is not TrainerPhase.FAILED, "a guarded trainer failed")
        alone = "ended with NonFiniteError, told by run.wait" if has_failed else "went on, its parameters stayed finite"
        happened = (
            f"guarded: {skipped} updates skipped, training went on; without a guard the trainer {alone}; "
            f"{published.counts.total():,} snapshots looked at, all finite"
        )
        rows.append(Row(f"NaN or infinity in the {kind}", done[kind], happened, losses[kind].found))
    return rows
