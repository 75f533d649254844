"""A system compiled: the programs that the ticks call, and the values they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from pamiq_jax.data import Chunk, Collector
from pamiq_jax.publishing import SnapshotStore
from pamiq_jax.runtime.acting import Acting
from pamiq_jax.runtime.state import ActorState, Cells, LearnerState, only_actor
from pamiq_jax.runtime.system import System
from pamiq_jax.trainer import TrainerPrograms
from pamiq_jax.types import Params, PyTree


class Programs(NamedTuple):
    """What the ticks call. Build it with `compile_system`.

    Attributes:
        system: what it was compiled from.
        acting: the agents by the names of their interactions.
        add: `(buffer state, chunk) -> buffer state` by buffer name; donates the state.
        can_sample: `(buffer state) -> bool[]`, by the names of the buffers that need to be asked.
        trainers: by trainer name.
        fold_in: `(key, number) -> key`, compiled.
        check_donation: whether each chunk proves that it deletes no published array.
    """

    system: System
    acting: Mapping[str, Acting]
    add: Mapping[str, Callable[[PyTree, Chunk[Any]], PyTree]]
    can_sample: Mapping[str, Callable[[PyTree], jax.Array]]
    trainers: Mapping[str, TrainerPrograms[Any]]
    fold_in: Callable[[jax.Array, Any], jax.Array]
    check_donation: bool


class Ready(NamedTuple):
    """A launched system that could act.

    Attributes:
        compiled: its programs, and the values it started from.
        cells: what its threads meet at.
        at: when that was, in seconds on the system's clock.
    """

    compiled: Compiled
    cells: Cells
    at: float


class Compiled(NamedTuple):
    """A compiled system and the values it starts from.

    Attributes:
        programs: what the ticks call.
        learner: the training side's first state.
        actors: the inference side's first states, by the names of the interactions.
        params: version 0, by model name.
        examples: what one record of each buffer looks like.
    """

    programs: Programs
    learner: LearnerState
    actors: Mapping[str, ActorState]
    params: Mapping[str, Params]
    examples: Mapping[str, PyTree]

    @property
    def actor(self) -> ActorState:
        """The first state of the only interaction."""
        return only_actor(self.actors)

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
