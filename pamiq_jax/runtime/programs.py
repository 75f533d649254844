"""A system compiled: the programs that the ticks call, and the values they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from pamiq_jax.data import Chunk, Collector
from pamiq_jax.publishing import SnapshotStore
from pamiq_jax.runtime.acting import Acting
from pamiq_jax.runtime.batches import UpdateFn
from pamiq_jax.runtime.state import ActorState, Cells, LearnerState
from pamiq_jax.runtime.system import System
from pamiq_jax.trainer import TrainerPrograms
from pamiq_jax.types import Params, PyTree


class Programs(NamedTuple):
    """What the ticks call. Build it with `compile_system`.

    Attributes:
        system: what it was compiled from.
        acting: the agent; None without an interaction.
        add: `(buffer state, chunk) -> buffer state` by buffer name; donates the state.
        can_sample: `(buffer state) -> bool[]`, by the names of the buffers that need to be asked.
        trainers: by trainer name.
        update: what stores priorities, by the names of the buffers that take them and are learned from.
        fold_in: `(key, number) -> key`, compiled.
        check_donation: whether each chunk proves that it deletes no published array.
    """

    system: System
    acting: Acting | None
    add: Mapping[str, Callable[[PyTree, Chunk[Any]], PyTree]]
    can_sample: Mapping[str, Callable[[PyTree], jax.Array]]
    trainers: Mapping[str, TrainerPrograms[Any]]
    update: Mapping[str, UpdateFn]
    fold_in: Callable[[jax.Array, Any], jax.Array]
    check_donation: bool


class Compiled(NamedTuple):
    """A compiled system and the values it starts from.

    Attributes:
        programs: what the ticks call.
        learner: the training side's first state.
        actor: the inference side's first state; None without an interaction.
        params: version 0, by model name.
        examples: what one record of each buffer looks like.
    """

    programs: Programs
    learner: LearnerState
    actor: ActorState | None
    params: Mapping[str, Params]
    examples: Mapping[str, PyTree]

    def cells(self, published_at: float = 0.0) -> Cells:
        """Return fresh cells: version 0 published, nothing collected.

        Args:
            published_at: seconds on the system's clock.
        """
        system = self.programs.system
        collectors: dict[str, Collector[Any]] = {}
        for name, example in self.examples.items():
            queue, rows = system.queue(name), system.rows(name)
            collectors[name] = Collector(example, queue.capacity, chunk=rows, overflow=queue.overflow)
        return Cells(SnapshotStore(self.params, published_at=published_at), collectors)
