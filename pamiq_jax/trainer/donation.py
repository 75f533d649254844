"""Which arrays of a trainer's state may be donated, and why.

Donation lets XLA write the new state over the old one. A published array must never be donated:
the inference thread still reads it (`RuntimeError: Array has been deleted`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast, override

import jax

from pamiq_jax import trees
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.forward import forwarded_leaves
from pamiq_jax.types import Params

PARAMETER = "a parameter, in a snapshot"
PUBLISHED = "published as it is"
READ = "read from another trainer"
NOT_COMPILED = "the trainer is not compiled"
OWNED = "only the next step reads it"
KEPT = "kept whole, to be saved or gone back to"
COPIED = "copied as a run begins, the run's own until it ends"


class DonationRow(NamedTuple):
    """What is done with one leaf: its name, its size in bytes, whether it is donated, and why."""

    leaf: str
    nbytes: int
    donated: bool
    reason: str


class DonationPlan(NamedTuple):
    """One row for each leaf of a trainer's state, in flattening order. Print it to read it."""

    rows: tuple[DonationRow, ...]

    def donated_part(self, state: Any) -> dict[str, jax.Array]:
        """Return the leaves of a state that are donated, by name."""
        leaves = zip(self.rows, jax.tree.leaves(state), strict=True)
        return {row.leaf: leaf for row, leaf in leaves if row.donated}

    @override
    def __str__(self) -> str:
        width = max((len(row.leaf) for row in self.rows), default=0)
        lines = [
            f"{row.leaf:<{width}}  {row.nbytes:>12,} B  {'donated' if row.donated else 'kept   '}  {row.reason}"
            for row in self.rows
        ]
        total = sum(row.nbytes for row in self.rows if row.donated)
        return "\n".join([*lines, f"donated: {total:,} of {sum(row.nbytes for row in self.rows):,} bytes"])


def explain_donation(
    trainer: Trainer[Any, Any], state: Any, *, donates: bool = True, copies: bool = False
) -> DonationPlan:
    """Return what of a state is donated to the compiled training program, and why.

    Kept are the parameters and each leaf that `trainer.publish` hands out as it is; both can be
    in a snapshot that the inference thread reads. Kept is also what `trainer.receive` hands in as it
    is: whoever it comes from still has it. Everything else is donated.

    Args:
        trainer: the trainer.
        state: one of its states, arrays or specs.
        donates: False for a run that saves its states, or goes back to them: all is kept then.
        copies: True for runs of several chunks: what could be in a snapshot is copied as a run begins, so that its
            chunks write over the copy.

    Example:
        >>> import jax.numpy as jnp, optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, batch, key: (params.sum(), {}), optax.adam(1e-3))
        >>> print(explain_donation(trainer, trainer.init(jax.random.key(0), jnp.zeros(3))))
        .params                     12 B  kept     a parameter, in a snapshot
        .opt_state[0].count          4 B  donated  only the next step reads it
        .opt_state[0].mu            12 B  donated  only the next step reads it
        .opt_state[0].nu            12 B  donated  only the next step reads it
        .step                        4 B  donated  only the next step reads it
        .rng_key                     8 B  donated  only the next step reads it
        donated: 40 of 52 bytes
    """
    leaves = list(zip(trees.leaf_names(state), jax.tree.leaves(state), strict=True))
    reasons = _reasons_to_keep(trainer, state) if trainer.compiled else dict.fromkeys(range(len(leaves)), NOT_COMPILED)
    if not donates:
        reasons = dict.fromkeys(range(len(leaves)), KEPT) | reasons
    elif copies and trainer.compiled:
        reasons = {index: reason if reason == READ else COPIED for index, reason in reasons.items()}
    donated_for = (COPIED, OWNED)
    rows = [
        DonationRow(name, trees.nbytes(leaf), reasons.get(index, OWNED) in donated_for, reasons.get(index, OWNED))
        for index, (name, leaf) in enumerate(leaves)
    ]
    return DonationPlan(tuple(rows))


def _reasons_to_keep(trainer: Trainer[Any, Any], state: Any) -> dict[int, str]:
    """Return why each leaf that is kept is, by its index."""
    published = forwarded_leaves(trainer.publish, state).values()
    params = forwarded_leaves(lambda state: getattr(state, "params", ()), state).values()
    reasons = dict.fromkeys(_received(trainer, state), READ) | dict.fromkeys(published, PUBLISHED)
    return reasons | dict.fromkeys(params, PARAMETER)


def _received(trainer: Trainer[Any, Any], state: Any) -> list[int]:
    """Return the leaves of a state that `receive` takes from the models it is given, as they are."""
    models = models_of(trainer, state)
    if not models:
        return []
    count = len(jax.tree.leaves(models))
    forwarded = forwarded_leaves(lambda arguments: trainer.receive(arguments[1], arguments[0]), (models, state))
    return [index for index, source in forwarded.items() if source < count]


def models_of(trainer: Trainer[Any, Any], state: Any) -> dict[str, Params]:
    """Return the models in a state that others may change too: what `trainer.receive` can be given.

    Args:
        trainer: the trainer.
        state: one of its states, arrays or specs.

    Example:
        >>> from pamiq_jax.trainer import ReadingState, custom_trainer
        >>> trainer = custom_trainer(lambda key, params: None, lambda state, batch: (state, {}), reads=("world",))
        >>> models_of(trainer, ReadingState({"policy": 1}, (), 0, None, reads={"world": 2, "target": 3}))
        {'policy': 1, 'world': 2}
    """
    params: Any = getattr(state, "params", None)
    if not isinstance(params, Mapping):
        return {}
    by_name = cast(Mapping[str, Params], params)
    reads = {name: state.reads[name] for name in trainer.reads}
    return {name: by_name[name] for name in trainer.trains or by_name} | reads
