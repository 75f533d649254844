"""What a system is made of, as values. Whatever can be wrong with them is said when they are built."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, override

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format

from pamiq_jax.arguments import (
    checked_data,
    checked_flag,
    checked_function,
    checked_integer,
    checked_kind,
    checked_names,
    checked_positive,
)
from pamiq_jax.conditions import Condition, always
from pamiq_jax.conditions.function import as_condition
from pamiq_jax.data import Buffer, Record
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.facts import facts_html, facts_text
from pamiq_jax.runtime.cards import schedule_html
from pamiq_jax.runtime.interaction import AGENT, Interaction
from pamiq_jax.trainer import Trainer
from pamiq_jax.trainer.arrays import check_arrays
from pamiq_jax.types import Params, PyTree

if TYPE_CHECKING:
    from pamiq_jax.runtime.describe import Description


@dataclass(frozen=True)
class Model:
    """A model's initial parameters, how it is applied, and who may have it.

    Args:
        params: any pytree of arrays; pretrained ones are no different.
        apply: `(params, ...) -> output`, for `run.infer(name, ...)`; any procedure; optional.
        infer: whether inference may see it; False for a model that only training needs.
        train: whether a trainer may train it; False for a model that stays as it is.
        dtype: what its floating-point parameters are cast to when they are published, for example
            `jnp.bfloat16`; None leaves them as they are. Training keeps its own.
        device: a `jax.Device` or a sharding that its published parameters are put on; None leaves them with
            training. The transfer is over before the new version can be seen.

    Raises:
        InvalidValueError: parameters that are no pytree of arrays (a module object, a function) or have none, a dtype
            that is not floating-point, a device that is none, or a flag that is no bool.
    """

    params: Params
    apply: Callable[..., Any] | None = None
    infer: bool = True
    train: bool = True
    dtype: Any = None
    device: Any = None
    _repr_html_, __repr__ = facts_html, facts_text

    def __post_init__(self) -> None:
        check_arrays("Model(params)", self.params)
        if not jax.tree.leaves(self.params):
            remedy = "a function without parameters is no model: call it in the agent and in the loss"
            raise InvalidValueError("Model(params)", self.params, "one array or more", remedy)
        checked_flag("Model(infer)", self.infer)
        checked_flag("Model(train)", self.train)
        checked_function("Model(apply)", self.apply, "a function (params, ...) -> output", is_optional=True)
        places = jax.tree.leaves(self.device)
        if not all(isinstance(place, jax.Device | jax.sharding.Sharding | Format) for place in places):
            remedy = "write jax.devices('cpu')[0]; jax.devices() lists them all"
            raise InvalidValueError("Model(device)", self.device, "a jax.Device or a sharding", remedy)
        if self.dtype is None:
            return
        try:
            is_floating = jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating)
        except TypeError:
            is_floating = False
        if not is_floating:
            raise InvalidValueError("Model(dtype)", self.dtype, "a floating-point dtype, as jnp.bfloat16")


class Source(NamedTuple):
    """One of the buffers that a trainer learns from.

    Attributes:
        buffer: its name.
        batch_size: records that a batch takes of it.
        condition: what a run waits for.
    """

    buffer: str
    batch_size: int
    condition: Condition


@dataclass(frozen=True)
class Schedule:
    """When a trainer runs, on what data, and for how long.

    Args:
        trainer: the trainer.
        data: the name of its buffer. Or several, as `{name in the batch: buffer}`: a batch is a dict then.
        batch_size: records in a batch; the same of each buffer, or a dict like `data`.
        steps: steps in a run.
        when: the condition that a run waits for; any callable `(now, last)` will do, but a plain function is asked
            again only when records come: `pj.when(function, recheck_seconds=1.0)` asks by the clock too. With several
            buffers it is asked of the first, or a dict like `data` gives one condition each, which must all hold.
        steps_per_chunk: steps in one compiled program, a divisor of `steps`. Between two chunks the
            trainer can pause or stop, and priorities that its steps returned begin to count. By default the
            largest divisor up to 16; `tune_chunks` measures what fits a latency.
        prepare: `(Record) -> batch`, traced, on sampled records `[B, ...]`; by default their data. A prioritized
            buffer gives a `PrioritizedBatch` of them, by default `PrioritizedBatch(records=<data>, indices, weights)`.
        weight: its share of the training thread's time, relative to the other trainers that could run.
        priority: a trainer that could run goes before those of lower priority, whatever their share.
        after: trainers that must have finished a run since this one's last run started.
        group: trainers of one group publish together, in one swap, once each has finished a run.
        on_paused: called on the training thread once it has stopped, before the pause is acknowledged.
        on_resumed: called on the training thread before it goes on.
        chunk_reason: why chunks have this length, for `run.status`; "" says it by itself.

    Raises:
        InvalidValueError: a number out of range, or what is not of its kind: a name, a function, a condition.
    """

    trainer: Trainer[Any, Any]
    data: str | Mapping[str, str]
    batch_size: int | Mapping[str, int]
    steps: int = 1
    when: Condition | Callable[..., Any] | Mapping[str, Condition | Callable[..., Any]] = field(default_factory=always)
    steps_per_chunk: int | None = None
    prepare: Callable[[Record[Any]], PyTree] | None = None
    weight: float = 1.0
    priority: int = 0
    after: tuple[str, ...] = ()
    group: str | None = None
    on_paused: Callable[[], None] | None = None
    on_resumed: Callable[[], None] | None = None
    chunk_reason: str = ""
    _repr_html_, __repr__ = schedule_html, facts_text

    def __post_init__(self) -> None:
        checked_integer("Schedule(steps)", self.steps, least=1)
        checked_positive("Schedule(weight)", self.weight, "1 is the share of a trainer that says nothing")
        _check_place(self)
        for source in self.sources.values():
            checked_integer("Schedule(batch_size)", source.batch_size, least=1)
        chunk = self.steps_per_chunk
        if chunk is None:
            return
        if not isinstance(cast(Any, chunk), int | np.integer):
            checked_integer("Schedule(steps_per_chunk)", chunk, least=1)  # raises
        if chunk < 1 or self.steps % chunk:
            divisors = [size for size in range(1, self.steps + 1) if self.steps % size == 0]
            raise InvalidValueError("Schedule(steps_per_chunk)", chunk, f"a divisor of steps={self.steps}: {divisors}")

    @functools.cached_property
    def sources(self) -> Mapping[str, Source]:
        """Where the batches come from, by name in the batch; "" for the one of an undivided batch."""
        if isinstance(self.when, Mapping) and not self.when:
            remedy = "write always(), or leave `when` out, for a run that waits for nothing"
            raise InvalidValueError("Schedule(when)", self.when, "a condition, or a dict of one or more", remedy)
        if isinstance(self.data, str):
            if isinstance(self.batch_size, Mapping) or isinstance(self.when, Mapping):
                raise InvalidValueError("Schedule(data)", self.data, "a dict, since batch_size or when is one")
            return {"": Source(self.data, self.batch_size, as_condition(self.when))}
        for argument, value in (("batch_size", self.batch_size), ("when", self.when)):
            if isinstance(value, Mapping) and set(value) - set(self.data):
                raise InvalidValueError(f"Schedule({argument})", sorted(value), f"names out of {sorted(self.data)}")
        sizes = self.batch_size if isinstance(self.batch_size, Mapping) else dict.fromkeys(self.data, self.batch_size)
        if missing := sorted(set(self.data) - set(sizes)):
            raise InvalidValueError("Schedule(batch_size)", sorted(sizes), f"a size for {missing} too")
        conditions = self.when if isinstance(self.when, Mapping) else {next(iter(self.data)): self.when}
        return {
            name: Source(buffer, sizes[name], as_condition(conditions.get(name, always())))
            for name, buffer in self.data.items()
        }

    @property
    def chunk(self) -> int:
        """Steps in one compiled program."""
        if self.steps_per_chunk is not None:
            return self.steps_per_chunk
        if not self.trainer.compiled:
            return 1
        return max(size for size in range(1, 17) if self.steps % size == 0)

    @property
    def has_chunks(self) -> bool:
        """Whether a run has more than one chunk."""
        return self.chunk < self.steps

    @property
    def why_chunk(self) -> str:
        """Why chunks have this length."""
        if self.chunk_reason or self.steps_per_chunk is not None:
            return self.chunk_reason or "as the schedule says"
        return f"the largest divisor of {self.steps} up to 16" if self.trainer.compiled else "it is not compiled"


def _check_place(schedule: Schedule) -> None:
    """Raise unless what says when a trainer's turn is, among the others, has the right types: users may not type."""
    priority, group = (cast(Any, part) for part in (schedule.priority, schedule.group))
    remedy = "make one with gradient_trainer or custom_trainer"
    checked_kind("Schedule(trainer)", schedule.trainer, Trainer, "a Trainer", remedy)
    checked_data("Schedule(data)", schedule.data)
    checked_function("Schedule(prepare)", schedule.prepare, "(Record) -> batch", is_optional=True)
    for hook in ("on_paused", "on_resumed"):
        checked_function(f"Schedule({hook})", getattr(schedule, hook), "a function", is_optional=True)
    if not isinstance(priority, int | float | np.number) or isinstance(priority, bool) or math.isnan(priority):
        raise InvalidValueError("Schedule(priority)", priority, "a number", "0 is that of a trainer that says nothing")
    if group is not None and not (isinstance(group, str) and group):
        raise InvalidValueError("Schedule(group)", group, "a name, or None", "give trainers of a group the same name")
    checked_names("Schedule(after)", schedule.after, "trainer")


@dataclass(frozen=True)
class Queue:
    """How many records may wait between the threads for a buffer, and what happens to more.

    Args:
        capacity: records, at least 1.
        overflow: which record is lost when one comes too many. Losses are counted.
        chunk: records that are moved to the buffer at once; fixed, so that it compiles once.

    Raises:
        InvalidValueError: a number out of range.
    """

    capacity: int = 4096
    overflow: Literal["drop_oldest", "drop_newest"] = "drop_oldest"
    chunk: int = 256

    def __post_init__(self) -> None:
        for name, value in (("capacity", self.capacity), ("chunk", self.chunk)):
            checked_integer(f"Queue({name})", value, least=1)
        if self.overflow not in ("drop_oldest", "drop_newest"):
            raise InvalidValueError("Queue(overflow)", self.overflow, '"drop_oldest" or "drop_newest"')


@dataclass(frozen=True)
class System:
    """Models, buffers, trainers and agents: everything that `launch` and `run_lockstep` need.

    A system is a value: nothing runs, and nothing in it changes when it is run. What is refused says so with its
    wiring; in a notebook, `except PamiqError as error: display(error.wiring)` draws it with the mistake marked.

    Args:
        models: by name.
        buffers: by name.
        trainers: schedules by trainer name.
        interaction: the agent in its environment; several by name, each of which acts in a thread of its own with
            the same snapshots; None for data that `run.collect` brings.
        queues: hand-over to the buffers, by buffer name; a default `Queue()` for the others.

    Raises:
        UnknownNameError: a model or buffer that does not exist is referred to.
        UnsatisfiableConditionError: a trainer would wait for ever.
        InvalidValueError: a model that may not be trained or published is, a batch is larger than its
            buffer, or trainers wait for each other in a circle.
    """

    models: Mapping[str, Model]
    buffers: Mapping[str, Buffer[Any, Any, Any]] = field(default_factory=dict[str, Buffer[Any, Any, Any]])
    trainers: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    interaction: Interaction | Mapping[str, Interaction] | None = None
    queues: Mapping[str, Queue] = field(default_factory=dict[str, Queue])

    def __post_init__(self) -> None:
        from pamiq_jax.runtime.checks import check_system  # which is about the class below

        try:
            check_system(self)
        except Exception as error:
            with contextlib.suppress(Exception):  # what cannot be drawn either is said by the error itself
                from pamiq_jax.runtime.wiring import wiring

                drawn = wiring(self, error)
                error.add_note(f"the wiring:\n{drawn}")
                cast(Any, error).wiring = drawn
            raise

    @override
    def __repr__(self) -> str:
        kinds = ("models", "buffers", "trainers", "interactions")
        facts = [f"{kind}=[{', '.join(getattr(self, kind))}]" for kind in kinds if getattr(self, kind)]
        return f"System({', '.join(facts)})"

    def _repr_html_(self) -> str:
        from pamiq_jax.runtime.wiring import wiring

        return wiring(self).html()

    def describe(self) -> Description:
        """Return what the system is made of, how that hangs together, and how many bytes it takes.

        Printed it is text, a notebook shows it as a diagram. See `Description`.

        Raises:
            InvalidValueError: a buffer's records are not known.
            RecordMismatchError, StepStructureError: forms that do not fit.
        """
        from pamiq_jax.runtime.describe import describe

        return describe(self)

    @functools.cached_property
    def interactions(self) -> Mapping[str, Interaction]:
        """All interactions by name; "agent" is the name of one that has none."""
        if self.interaction is None:
            return {}
        return {AGENT: self.interaction} if isinstance(self.interaction, Interaction) else self.interaction

    def trained_by(self, trainer: str) -> tuple[str, ...]:
        """Return the models that a trainer trains."""
        trains = self.trainers[trainer].trainer.trains
        return tuple(name for name, model in self.models.items() if model.train) if trains is None else trains

    def made_by(self, trainer: str) -> tuple[str, ...]:
        """Return the models that a trainer publishes without training them, as targets."""
        trained = self.trained_by(trainer)
        return tuple(name for name in self.trainers[trainer].trainer.publishes or () if name not in trained)

    @functools.cached_property
    def handed_on(self) -> frozenset[str]:
        """The models whose trained parameters pass between trainers: trained by several, or read by one."""
        trainers = self.trainers
        trained = [model for name in trainers for model in self.trained_by(name)]
        read = {model for schedule in trainers.values() for model in schedule.trainer.reads}
        return frozenset(read | {model for model in trained if trained.count(model) > 1})

    def published_by(self, trainer: str) -> tuple[str, ...]:
        """Return the models that a trainer publishes to inference."""
        publishes = self.trainers[trainer].trainer.publishes
        names = self.trained_by(trainer) if publishes is None else publishes
        return tuple(name for name in names if self.models[name].infer)

    def goes_on(self, trainer: str) -> bool:
        """Return whether a trainer's batches are numbered over all of its runs."""
        return all(self.buffers[source.buffer].goes_on for source in self.trainers[trainer].sources.values())

    def queue(self, buffer: str) -> Queue:
        """Return how records are handed over to a buffer."""
        return self.queues.get(buffer, Queue())

    def rows(self, buffer: str) -> int:
        """Return how many records are moved to a buffer at once."""
        queue = self.queue(buffer)
        return min(queue.chunk, queue.capacity, self.buffers[buffer].capacity)

    def collects(self, interaction: str) -> Mapping[str, Callable[[dict[str, Any]], PyTree]]:
        """Return, for each buffer that an interaction feeds, what it stores of a record."""
        collect = self.interactions[interaction].collect
        return dict.fromkeys(self.buffers, whole_record) if collect is None else collect

    def feeders(self, buffer: str) -> tuple[str, ...]:
        """Return the interactions that feed a buffer."""
        return tuple(name for name in self.interactions if buffer in self.collects(name))


def whole_record(record: dict[str, Any]) -> PyTree:
    """Return the record as it is: what a buffer stores where nothing else is said."""
    return record
