from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax import trees
from pamiq_jax.errors import InvalidValueError
from tests.runtime.fakes import fed_system, learner, learning_system

BUFFERS = {
    "seen": pj.ring_buffer(64),
    "far": pj.reservoir_buffer(50, placement="host", example=np.zeros(3, np.float32)),
    "urgent": pj.prioritized_buffer(32, example=0.0),
}


def test_bytes_are_those_of_the_compiled_system() -> None:
    system = learning_system(
        buffers=BUFFERS,
        trainers={},
        interaction=pj.Interaction(
            learning_system().interactions["agent"].agent,
            learning_system().interactions["agent"].environment,
            collect={"seen": lambda record: record},
        ),
    )
    lines = pj.describe_system(system).splitlines()
    compiled = pj.compile_system(system)
    total = 0
    for name, line in zip(BUFFERS, lines, strict=False):
        state = trees.nbytes(compiled.learner.buffers[name].state)
        queue = compiled.cells().collectors[name].nbytes
        total += state + queue
        assert line.startswith(f"buffer {name!r}: {BUFFERS[name].capacity} records of ")
        assert [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) bytes", line)] == [state, queue]
    assert "['observation'] float32[3], ['reward'] float32[]" in lines[0]
    assert " on the host, queue " in lines[1]
    assert lines[-1].startswith(f"buffers and queues take {total:,} bytes")


def test_says_what_trainers_do_and_what_models_take() -> None:
    schedule = pj.Schedule(learner(), data="x", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    models = {
        "policy": pj.Model(jnp.zeros(3), dtype=jnp.bfloat16),
        "hidden": pj.Model(np.zeros(2, np.float32), infer=False),
    }
    buffers = {"x": pj.ring_buffer(100, placement="host", example=0.0)}
    text = pj.describe_system(fed_system(schedule, models=models, buffers=buffers))
    assert text.splitlines()[1:4] == [
        "model 'policy': 12 bytes (12 B), published 6 bytes (6 B)",
        "model 'hidden': 8 bytes (8 B), not published",
        "trainer 'fit': trains 'policy', reads nothing, publishes 'policy'; "
        "4 steps a run, batches of 4 from 'x' when min_new(3); "
        "a chunk's batches take 32 bytes (32 B), twice while one is gathered ahead",
    ]


def test_a_buffer_that_nothing_feeds() -> None:
    system = fed_system(buffers={"x": pj.ring_buffer(8)})
    with pytest.raises(InvalidValueError, match="buffer 'x' example is None, expected one record"):
        pj.describe_system(system)
