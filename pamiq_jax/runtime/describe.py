"""What a system is and how much memory it takes, said before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, override

import jax
import jax.numpy as jnp

from pamiq_jax.data import Collector, record_of
from pamiq_jax.data.buffer import record_spec
from pamiq_jax.display import escape
from pamiq_jax.runtime.acting import acting_program, first_actor
from pamiq_jax.runtime.batches import sample_function
from pamiq_jax.runtime.compile import buffer_example, cast_published
from pamiq_jax.runtime.system import Model, System
from pamiq_jax.runtime.wiring import Wiring, pace, wiring
from pamiq_jax.trees import describe_leaf, leaf_names, nbytes, rounded_bytes, zeros_of
from pamiq_jax.types import PyTree


class Description(NamedTuple):
    """What a system is made of, how that hangs together, and how many bytes it takes. Get it by `system.describe()`.

    Neither buffers nor trainers' states are made for this; agents are compiled, for the form of their extras. A
    buffer's bytes are there from the start, those of its queue are the most that waiting records take. What trainers
    keep beside the models, such as an optimizer's state, is not counted.

    Attributes:
        lines: a line per buffer, model, trainer and interaction, and what they take together.
        wiring: who feeds, reads, trains and publishes what; `wiring.svg()` and `wiring.mermaid()` draw it.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(100, example=0.0)},
        ...     trainers={"t": pj.Schedule(trainer, data="x", batch_size=4, when=pj.min_size(2))},
        ... )
        >>> print(system.describe())
        buffer 'x': 100 records of float32[]: 908 bytes (908 B) on the device, queue 37,800 bytes (37.8 kB)
        model 'm': 4 bytes (4 B), published 4 bytes (4 B)
        trainer 't': trains 'm', reads nothing, publishes 'm'; 1 steps a run, batches of 4 from 'x' when min_size(2)
        buffers and queues take 38,708 bytes (38.7 kB)
        note: no interaction feeds buffer 'x': it gets what run.collect brings
    """

    lines: tuple[str, ...]
    wiring: Wiring

    @override
    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"note: {note}" for note in self.wiring.notes)])

    def _repr_html_(self) -> str:
        return f"{self.wiring.html()}<pre>{escape(self)}</pre>"


def describe(system: System) -> Description:
    """Return what `System.describe` returns.

    Args:
        system: the system.
    """
    examples = _examples(system)
    states = {name: _buffer_state(system, name, example) for name, example in examples.items()}
    queues = {name: _queue_bytes(system, name, example) for name, example in examples.items()}
    lines = [
        f"buffer {name!r}: {buffer.capacity:,} records of {_form(examples[name])}: {_bytes(nbytes(states[name]))} "
        f"{'on the device' if buffer.placement == 'device' else 'on the host'}, queue {_bytes(queues[name])}"
        for name, buffer in system.buffers.items()
    ]
    lines += [_model_line(name, model) for name, model in system.models.items()]
    lines += [_trainer_line(system, name, states) for name in system.trainers]
    total = sum(map(nbytes, states.values())) + sum(queues.values())
    lines += [_interaction_line(system, name) for name in system.interactions]
    return Description((*lines, f"buffers and queues take {_bytes(total)}"), wiring(system))


def _examples(system: System) -> dict[str, PyTree]:
    """Return the form of each buffer's records."""
    params = {name: _published(model) for name, model in system.models.items() if model.infer}
    records: dict[str, dict[str, PyTree]] = {}
    for name, interaction in system.interactions.items():
        _, records[name] = acting_program(system, name, params, first_actor(interaction, jax.random.key(0)))
    return {name: buffer_example(system, name, records) for name in system.buffers}


def _published(model: Model) -> PyTree:
    return jax.eval_shape(lambda params: cast_published(model, jax.tree.map(jnp.asarray, params)), model.params)


def _buffer_state(system: System, name: str, example: PyTree) -> PyTree:
    zeros = zeros_of(record_spec(record_of(example)))
    return jax.eval_shape(lambda: system.buffers[name].init(zeros))


def _queue_bytes(system: System, name: str, example: PyTree) -> int:
    queue = system.queue(name)
    return Collector[Any](example, queue.capacity, chunk=system.rows(name), overflow=queue.overflow).nbytes


def _interaction_line(system: System, name: str) -> str:
    acts = ", ".join(repr(model) for model, what in system.models.items() if what.infer) or "no model"
    fed = ", ".join(map(repr, system.collects(name))) or "nothing"
    return f"interaction {name!r}: {pace(system.interactions[name])}, may act with {acts}, feeds {fed}"


def _model_line(name: str, model: Model) -> str:
    published = f"published {_bytes(nbytes(_published(model)))}" if model.infer else "not published"
    return f"model {name!r}: {_bytes(nbytes(model.params))}, {published}"


def _trainer_line(system: System, name: str, states: Mapping[str, PyTree]) -> str:
    schedule = system.trainers[name]
    names = (
        ("trains", system.trained_by(name)),
        ("reads", schedule.trainer.reads),
        ("publishes", system.published_by(name)),
    )
    models = ", ".join(f"{what} {', '.join(map(repr, which)) or 'nothing'}" for what, which in names)
    sources = " and ".join(
        f"{source.batch_size} from {source.buffer!r} when {source.condition!r}" for source in schedule.sources.values()
    )
    prefetched = _prefetched(system, name, states)
    return f"trainer {name!r}: {models}; {schedule.steps} steps a run, batches of {sources}{prefetched}"


def _prefetched(system: System, name: str, states: Mapping[str, PyTree]) -> str:
    """Return what is said of the batches that are gathered from the host's memory for one chunk."""
    schedule = system.trainers[name]
    if any(system.buffers[source.buffer].placement != "host" for source in schedule.sources.values()):
        return ""
    sample = sample_function(system, schedule)
    given = {key: states[source.buffer] for key, source in schedule.sources.items()}
    batch = jax.eval_shape(lambda states: sample(states, jnp.int32(0), jax.random.key(0)), given)
    return f"; a chunk's batches take {_bytes(schedule.chunk * nbytes(batch))}, twice while one is gathered ahead"


def _form(example: PyTree) -> str:
    """Return the leaves of a record's data and their forms, for example `['image'] uint8[64,64]`."""
    leaves = jax.tree.leaves(example)
    if len(leaves) == 1 and jax.tree.structure(example) == jax.tree.structure(0):
        return describe_leaf(leaves[0])
    return ", ".join(f"{name} {describe_leaf(leaf)}" for name, leaf in zip(leaf_names(example), leaves, strict=True))


def _bytes(number: int) -> str:
    return f"{number:,} bytes ({rounded_bytes(number)})"
