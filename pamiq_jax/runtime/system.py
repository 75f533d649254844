"""What a system is made of, as values. Whatever can be wrong with them is said when they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pamiq_jax.arguments import checked_integer
from pamiq_jax.conditions import Condition, always, as_condition, check_satisfiable
from pamiq_jax.data import Buffer, Record
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.runtime.agent import Agent, PythonAgent
from pamiq_jax.runtime.environment import Environment
from pamiq_jax.trainer import Trainer
from pamiq_jax.types import Params, PyTree


@dataclass(frozen=True)
class Model:
    """A model's initial parameters, and how it is applied.

    Args:
        params: any pytree of arrays.
        apply: `(params, ...) -> output`, for `run.infer(name, ...)`; optional.
        infer: whether inference may see it; False for a model that only training needs.
    """

    params: Params
    apply: Callable[..., Any] | None = None
    infer: bool = True


@dataclass(frozen=True)
class Schedule:
    """When a trainer runs, on what data, and for how long.

    Args:
        trainer: the trainer.
        data: the name of its buffer.
        batch_size: records in a batch.
        steps: steps in a run.
        when: the condition that a run waits for; any callable `(now, last)` will do.
        steps_per_chunk: steps in one compiled program, a divisor of `steps`. Between two chunks the
            trainer can pause or stop. By default the largest divisor up to 16.
        prepare: `(Record) -> batch`, traced, on sampled records `[B, ...]`; by default their data.
        on_paused: called on the training thread once it has stopped, before the pause is acknowledged.
        on_resumed: called on the training thread before it goes on.

    Raises:
        InvalidValueError: a number out of range.
    """

    trainer: Trainer[Any, Any]
    data: str
    batch_size: int
    steps: int = 1
    when: Condition | Callable[..., Any] = field(default_factory=always)
    steps_per_chunk: int | None = None
    prepare: Callable[[Record[Any]], PyTree] | None = None
    on_paused: Callable[[], None] | None = None
    on_resumed: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.batch_size), ("steps", self.steps)):
            checked_integer(f"Schedule({name})", value, least=1)
        chunk = self.steps_per_chunk
        if chunk is not None and (chunk < 1 or self.steps % chunk):
            divisors = [size for size in range(1, self.steps + 1) if self.steps % size == 0]
            raise InvalidValueError("Schedule(steps_per_chunk)", chunk, f"a divisor of steps={self.steps}: {divisors}")
        object.__setattr__(self, "when", as_condition(self.when))

    @property
    def condition(self) -> Condition:
        """`when`, as the condition that it was made into."""
        return as_condition(self.when)

    @property
    def chunk(self) -> int:
        """Steps in one compiled program."""
        if self.steps_per_chunk is not None:
            return self.steps_per_chunk
        if not self.trainer.compiled:
            return 1
        return max(size for size in range(1, 17) if self.steps % size == 0)


@dataclass(frozen=True)
class Interaction:
    """An agent in its environment.

    Args:
        agent: a pure `Agent`, or a `PythonAgent`.
        environment: what it acts in.
        interval_seconds: time from one tick to the next; None runs freely.
        collect: for each buffer that is fed, `(record) -> what to store`. A record is a dict with
            "observation", "action", the environment's feedback and the agent's extras. By default
            every buffer of the system gets the whole record.
        on_paused: called on the inference thread once it has stopped, before the pause is acknowledged.
        on_resumed: called on the inference thread before it goes on.

    Raises:
        InvalidValueError: an interval of 0 or less, or an agent that is neither.
    """

    agent: Agent[Any] | PythonAgent
    environment: Environment
    interval_seconds: float | None = None
    collect: Mapping[str, Callable[[dict[str, Any]], PyTree]] | None = None
    on_paused: Callable[[], None] | None = None
    on_resumed: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.interval_seconds is not None and not self.interval_seconds > 0:
            raise InvalidValueError(
                "Interaction(interval_seconds)",
                self.interval_seconds,
                "more than 0",
                "None runs without a fixed interval",
            )
        if not _is_agent(self.agent):
            raise InvalidValueError(
                "Interaction(agent)",
                type(self.agent).__name__,
                "an Agent(act) or an object with `extras`, `reset` and `act`",
                "wrap a pure function as Agent(act)",
            )


def _is_agent(agent: object) -> bool:
    return isinstance(agent, Agent | PythonAgent)


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
    """Models, buffers, trainers and an agent: everything that `launch` and `run_lockstep` need.

    A system is a value: nothing runs, and nothing in it changes when it is run.

    Args:
        models: by name.
        buffers: by name.
        trainers: schedules by trainer name.
        interaction: the agent in its environment; None for data that `run.collect` brings.
        queues: hand-over to the buffers, by buffer name; a default `Queue()` for the others.

    Raises:
        UnknownNameError: a model or buffer that does not exist is referred to.
        UnsatisfiableConditionError: a trainer would wait for ever.
        InvalidValueError: two trainers train one model, or a batch is larger than its buffer.
    """

    models: Mapping[str, Model]
    buffers: Mapping[str, Buffer[Any, Any, Any]] = field(default_factory=dict[str, Buffer[Any, Any, Any]])
    trainers: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    interaction: Interaction | None = None
    queues: Mapping[str, Queue] = field(default_factory=dict[str, Queue])

    def __post_init__(self) -> None:
        _check_references(self)
        _check_one_trainer_a_model(self)
        for name, schedule in self.trainers.items():
            _check_data(self, name, schedule)

    def trained_by(self, trainer: str) -> tuple[str, ...]:
        """Return the models that a trainer trains."""
        trains = self.trainers[trainer].trainer.trains
        return tuple(self.models) if trains is None else trains

    def published_by(self, trainer: str) -> tuple[str, ...]:
        """Return the models that a trainer publishes to inference."""
        publishes = self.trainers[trainer].trainer.publishes
        names = self.trained_by(trainer) if publishes is None else publishes
        return tuple(name for name in names if self.models[name].infer)

    def queue(self, buffer: str) -> Queue:
        """Return how records are handed over to a buffer."""
        return self.queues.get(buffer, Queue())

    def rows(self, buffer: str) -> int:
        """Return how many records are moved to a buffer at once."""
        queue = self.queue(buffer)
        return min(queue.chunk, queue.capacity, self.buffers[buffer].capacity)

    def collects(self) -> Mapping[str, Callable[[dict[str, Any]], PyTree]]:
        """Return, for each buffer that the interaction feeds, what it stores of a record."""
        if self.interaction is None:
            return {}
        return (
            dict.fromkeys(self.buffers, whole_record) if self.interaction.collect is None else self.interaction.collect
        )


def whole_record(record: dict[str, Any]) -> PyTree:
    """Return the record as it is: what a buffer stores where nothing else is said."""
    return record


def _check_references(system: System) -> None:
    for name, schedule in system.trainers.items():
        where = f"trainer {name!r}"
        if schedule.data not in system.buffers:
            raise UnknownNameError("buffer", schedule.data, system.buffers, where)
        for model in (*(schedule.trainer.trains or ()), *(schedule.trainer.publishes or ())):
            if model not in system.models:
                raise UnknownNameError("model", model, system.models, where)
        for model in schedule.trainer.publishes or ():
            if not system.models[model].infer and model not in (schedule.trainer.trains or ()):
                raise InvalidValueError(f"Model {model!r} infer", False, f"True, since {where} publishes it")
    fed = {} if system.interaction is None else system.interaction.collect or {}
    for names, where in ((fed, "Interaction(collect)"), (system.queues, "System(queues)")):
        for buffer in names:
            if buffer not in system.buffers:
                raise UnknownNameError("buffer", buffer, system.buffers, where)


def _check_one_trainer_a_model(system: System) -> None:
    owners: dict[str, str] = {}
    for name in system.trainers:
        for model in system.trained_by(name):
            if model in owners:
                raise InvalidValueError(
                    f"trainers of model {model!r}",
                    [owners[model], name],
                    "one",
                    "name the models of each trainer with `trains`",
                )
            owners[model] = name


def _check_data(system: System, name: str, schedule: Schedule) -> None:
    buffer = system.buffers[schedule.data]
    required = buffer.required(schedule.batch_size)
    if required > buffer.capacity:
        raise InvalidValueError(
            f"trainer {name!r} batch_size",
            schedule.batch_size,
            f"at most {buffer.capacity}, the capacity of its buffer",
        )
    check_satisfiable(schedule.condition, buffer.capacity, f"trainer {name!r}")
