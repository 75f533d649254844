"""What the ticks carry from one to the next, all of it immutable, and the cells between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from pamiq_jax.conditions import Progress, Wake
from pamiq_jax.data import Collector
from pamiq_jax.errors import InvalidValueError, WorkerError
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
from pamiq_jax.publishing import SnapshotStore
from pamiq_jax.types import Metrics, Params, PyTree


class BufferRun(NamedTuple):
    """A buffer in a system.

    Attributes:
        state: the buffer's own state, on its device; donated whenever records are added.
        inserted: records added so far.
        newest_ms: when records were added last, in milliseconds on the system's clock.
        size: records stored now.
    """

    state: PyTree
    inserted: int = 0
    newest_ms: int = 0
    size: int = 0


class Good(NamedTuple):
    """What a trainer is taken back to when it fails: how it was at the end of its last good run, or as it began.

    Attributes:
        state: the `TrainerState`; nothing of it is ever donated.
        last: `TrainerRun.last` as of then.
        after: `TrainerRun.after` as of then.
    """

    state: Any
    last: Mapping[str, Progress]
    after: Mapping[str, int]


class Faults(NamedTuple):
    """How a trainer has failed so far, and what it is taken back to.

    Attributes:
        restarts: failures in a row after which it was to begin anew; a good run makes it 0.
        rollbacks: the same in all.
        retry_at: when it may begin again, in seconds on the clock.
        error: the last failure in a row in words.
        good: None before its first chunk, and where trainers are not restarted.
        is_quarantined: whether it has ended for good under a policy that raises nothing; a resume keeps to that.
    """

    restarts: int = 0
    rollbacks: int = 0
    retry_at: float = 0.0
    error: str = ""
    good: Good | None = None
    is_quarantined: bool = False


class TrainerRun(NamedTuple):
    """A trainer in a system: where it is in its lifecycle, and what its condition counts from.

    Attributes:
        state: the `TrainerState`; what the donation plan says is donated by the next chunk.
        data_key: `key[]` of the trainer, from which each run's is folded.
        phase: of the lifecycle.
        runs: runs that have been started.
        chunk: chunks done of the run under way.
        finished: runs that have ended.
        steps: steps done in all.
        busy_seconds: the time it has had on the training thread.
        used: the same over its weight, as the scheduler counts it.
        last: the progress on each of its sources when the last run started.
        after: how many runs the trainers that it follows had finished by then.
        reason: why it runs, or what it waits for.
        prefetched: the batches of the run's next chunk from buffers on the host, maybe still under way; None between
            two runs, and where there are no such buffers.
        faults: how it has failed so far.
        chunk_steps: steps in each chunk of the run under way; 0 if a state of an earlier version does not say.
    """

    state: Any
    data_key: jax.Array
    phase: TrainerPhase = TrainerPhase.WAITING
    runs: int = 0
    chunk: int = 0
    finished: int = 0
    steps: int = 0
    busy_seconds: float = 0.0
    used: float = 0.0
    last: Mapping[str, Progress] = MappingProxyType({})
    after: Mapping[str, int] = MappingProxyType({})
    reason: str = "not asked yet"
    prefetched: PyTree = None
    faults: Faults = Faults()
    chunk_steps: int = 0


class UnderWay(NamedTuple):
    """A chunk that may still be computed: whose it is, and its metrics, which are there when it is over."""

    trainer: str
    metrics: Metrics


class LearnerState(NamedTuple):
    """All that the training thread carries from tick to tick.

    Attributes:
        trainers: by name.
        buffers: by name.
        models: newest trained parameters of the models that trainers hand on to each other.
        pending: what trainers of a group have ready to be published together, by group and trainer.
        now_used: what the trainer that was chosen last had used; a trainer that begins a run starts there.
        turn: which trainer is asked first next time.
        broken: why buffers take no more records, by their names; not saved.
        under_way: the chunk that the next tick waits for; not saved.
        failed: whose chunk has failed while the next one was under way already, and how; not saved.
    """

    trainers: Mapping[str, TrainerRun]
    buffers: Mapping[str, BufferRun]
    models: Mapping[str, Params] = MappingProxyType({})
    pending: Mapping[str, Mapping[str, Mapping[str, Params]]] = MappingProxyType({})
    now_used: float = 0.0
    turn: int = 0
    broken: Mapping[str, WorkerError] = MappingProxyType({})
    under_way: UnderWay | None = None
    failed: tuple[str, Exception] | None = None

    @property
    def running(self) -> tuple[str, ...]:
        """The trainers whose runs are under way."""
        return tuple(name for name, run in self.trainers.items() if run.phase is TrainerPhase.TRAINING)

    def with_trainer(self, name: str, run: TrainerRun) -> LearnerState:
        """Return this with one trainer replaced."""
        return self._replace(trainers={**self.trainers, name: run})

    def with_buffer(self, name: str, run: BufferRun) -> LearnerState:
        """Return this with one buffer replaced."""
        return self._replace(buffers={**self.buffers, name: run})


class ActorState(NamedTuple):
    """All that the inference thread carries from tick to tick.

    Attributes:
        carry: the agent's memory.
        rng_key: `key[]`, never consumed: a tick uses `fold_in(rng_key, tick)`.
        tick: ticks done so far.
        resets: whether the next tick begins with a new carry: the agent's flag in the last feedback, bool `[]` or
            `[N]`; `()` for an agent that has none.
    """

    carry: PyTree
    rng_key: jax.Array
    tick: int = 0
    resets: PyTree = ()


def only_actor(actors: Mapping[str, ActorState]) -> ActorState:
    """Return the state of a system's only interaction.

    Raises:
        InvalidValueError: there is none, or there are several.

    Example:
        >>> only_actor({"left": ActorState((), None), "right": ActorState((), None)})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.InvalidValueError: System(interaction) is ['left', 'right'], expected one; `actors` has ...
    """
    if len(actors) != 1:
        raise InvalidValueError("System(interaction)", sorted(actors), "one", "`actors` has them all, by name")
    return next(iter(actors.values()))


class Cells(NamedTuple):
    """The mutable cells that the two ticks meet at.

    Attributes:
        store: the newest snapshot.
        collectors: records on their way, by buffer name.
    """

    store: SnapshotStore
    collectors: Mapping[str, Collector[Any]]


class InferReport(NamedTuple):
    """What one inference tick did.

    Attributes:
        version: of the snapshot that was used.
        latency_seconds: from the observation to the action.
        staleness_seconds: how long ago the snapshot was published.
        observation: what was acted on, as arrays of its own.
        action: what was done.
        feedback: what the environment returned.
        extras: what the agent returned beside the action; `{}` if the fallback acted.
        interaction: the name of the one that ticked.
        is_fallback: whether the policy was late, so that its interaction's fallback acted.
    """

    version: int
    latency_seconds: float
    staleness_seconds: float
    observation: PyTree
    action: PyTree
    feedback: Mapping[str, Any]
    extras: Mapping[str, Any]
    interaction: str = "agent"
    is_fallback: bool = False


class TrainReport(NamedTuple):
    """What one training tick did.

    Attributes:
        trainer: which trainer worked; None if all wait.
        metrics: the mean of each metric over the chunk, as arrays `[]`.
        version: the version that was published, if the run ended.
        seconds: how long the chunk took, publishing included.
        error: what went wrong, if anything did; the trainer's phase then says whether it is to begin anew or has ended.
            Without a trainer: why a buffer that nobody learns from takes no more records.
        wake: what must happen before it makes sense to ask again, if all wait.
    """

    trainer: str | None = None
    metrics: Metrics = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes to it)
    version: int | None = None
    seconds: float = 0.0
    error: Exception | None = None
    wake: Wake = Wake()


type Observe = Callable[[str, TrainerPhase, TrainerEvent, TrainerPhase], None]
"""Told of each transition of a trainer: `(trainer, phase before, event, phase after)`."""

type Linger = Callable[[str, Metrics], None]
"""Waits, in a training tick, until it is time to hand the next chunk to the device: `(trainer, metrics under way)`."""


def ignore(trainer: str, before: TrainerPhase, event: TrainerEvent, after: TrainerPhase) -> None:
    """Observe nothing."""
