"""The pace of an interaction: no drift, no burst after a delay, and a sleep that a command ends at once."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

import pamiq_jax as pj
from pamiq_jax.runtime.control import Control
from pamiq_jax.runtime.inferring import InferenceWorker, inference_thread
from pamiq_jax.runtime.process import CompileCounter
from tests.runtime.fakes import AGENT, PATIENCE, World, learning_system

INTERVAL = 0.125  # a power of two, so that sums are exact


def paced_worker(clock: pj.VirtualClock) -> InferenceWorker:
    interaction = pj.Interaction(AGENT, World(), interval_seconds=INTERVAL)
    return InferenceWorker(
        learning_system(interaction=interaction),
        "agent",
        seed=0,
        clock=clock,
        control=Control(clock, (inference_thread("agent"),)),
        compiles=CompileCounter(),
        refuse_compiles=lambda thread: None,
        on_interaction=None,
    )


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_each_tick_is_due_at_the_next_multiple_and_what_is_past_is_left_out(works: list[int]) -> None:
    clock, due, started = pj.VirtualClock(), 0.0, list[float]()
    worker = paced_worker(clock)
    for work in works:
        clock.advance(max(0.0, due - clock.now()))
        started.append(clock.now())
        clock.advance(work * INTERVAL / 32)  # up to three intervals
        due = worker._next_due(due, INTERVAL)
        assert clock.now() < due <= clock.now() + INTERVAL
    ticks = [start / INTERVAL for start in started]
    assert all(tick.is_integer() for tick in ticks), "it drifted"
    assert len(set(ticks)) == len(ticks), "it caught up"
    assert worker.status.deadline_misses == due / INTERVAL - len(works)


def test_a_stop_ends_the_sleep_between_two_ticks() -> None:
    has_ticked = threading.Event()
    interaction = pj.Interaction(AGENT, World(), interval_seconds=3600.0)
    with pj.launch(learning_system(interaction=interaction), on_interaction=lambda report: has_ticked.set()) as run:
        assert has_ticked.wait(PATIENCE)
        run.pause(PATIENCE)
        run.resume()
        run.stop(PATIENCE)
        assert run.status.inference.ticks == 1
