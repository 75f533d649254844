"""A system compiled: the programs that the ticks call, and the values they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from pamiq_jax.data import Chunk, Collector, Record, record_of
from pamiq_jax.data.buffer import record_spec
from pamiq_jax.publishing import SnapshotStore
from pamiq_jax.runtime.acting import Acting
from pamiq_jax.runtime.batches import UpdateFn
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
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
        sizes: `(buffer state) -> int32[]`, by the names of the buffers that need not keep all they have room for.
        can_sample: `(buffer state) -> bool[]`, by the names of the buffers that need to be asked.
        trainers: by trainer name.
        update: what stores priorities, by the names of the buffers that take them and are learned from.
        check_donation: whether each chunk proves that it deletes no published array.
        faults: what becomes of a trainer that fails.
        skips: `(state) -> updates in a row that its guards have skipped`, by the names of the trainers with guards.
    """

    system: System
    acting: Mapping[str, Acting]
    add: Mapping[str, Callable[[PyTree, Chunk[Any]], PyTree]]
    sizes: Mapping[str, Callable[[PyTree], jax.Array]]
    can_sample: Mapping[str, Callable[[PyTree], jax.Array]]
    trainers: Mapping[str, TrainerPrograms[Any]]
    update: Mapping[str, UpdateFn]
    check_donation: bool
    faults: FaultPolicy = FAIL_FAST
    skips: Mapping[str, Callable[[Any], int]] = MappingProxyType({})

    def size(self, buffer: str, state: PyTree, inserted: int) -> int:
        """Return how many records a buffer holds.

        Args:
            buffer: its name.
            state: the buffer's own.
            inserted: records added so far.
        """
        if (get_size := self.sizes.get(buffer)) is not None:
            return int(get_size(state))
        return min(inserted, self.system.buffers[buffer].capacity)


class Ready(NamedTuple):
    """A launched system that could act.

    Attributes:
        compiled: its programs, and the values it started from.
        cells: what its threads meet at.
        at: when that was, in seconds on the system's clock.
        worlds: what was saved of environments and agents, by interaction; None if nothing was restored.
    """

    compiled: Compiled
    cells: Cells
    at: float
    worlds: Mapping[str, Mapping[str, Any]] | None = None

    def world(self, interaction: str) -> Mapping[str, Any] | None:
        """Return what was saved of an interaction's environment and agent; None if nothing was restored."""
        return None if self.worlds is None else self.worlds.get(interaction, {})

    def begun(self) -> Ready:
        """Return this without the values that training has begun from: kept here, they would take memory for good."""
        compiled = self.compiled._replace(learner=LearnerState({}, {}), params={})
        return self._replace(compiled=compiled)


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

    def record_form(self, buffer: str) -> Record[Any]:
        """Return what a buffer stores of one record, as a tree of `jax.ShapeDtypeStruct`."""
        return record_spec(record_of(self.examples[buffer]))

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
