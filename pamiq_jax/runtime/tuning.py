"""How many steps a chunk may have, measured: a chunk is what a pause, a save and, on one device, the agent wait for."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax

from pamiq_jax.arguments import checked_positive
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.lingering import longest_chunk
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.system import Schedule, System

_ROUNDS = 6
_LEAST_CALLS, _MOST_SECONDS = 5, 0.25


def tune_chunks(system: System, *, latency_budget_ms: float, seed: int = 0) -> System:
    """Return the system with chunks as long as a budget allows, measured on the device that trains.

    A trainer's chunk is compiled and timed, on copies of its first state and of its empty buffers; then as many steps
    are taken as fit into the budget, and timed again. One with `steps_per_chunk` keeps it, and so does one that is not
    compiled. On a device that agent and trainers share, an action waits for no more than the budget: for a chunk, and
    for the rest of the one before it, since the next chunk is handed over shortly before one ends.
    `run.status.trainers[...].chunk_reason` says what was chosen and why.

    Compiling takes two or three times as long as without. On a busy machine chunks are measured too long and come
    out too short, so tune once where nothing else runs, and write down what was found: `Schedule(steps_per_chunk=)`.
    `launch(latency_budget_ms=)` tunes at each start.

    Args:
        system: what to tune.
        latency_budget_ms: how long an action may wait for the device, in milliseconds.
        seed: of the first states.

    Raises:
        InvalidValueError: a budget that is no positive number.

    Example:
        >>> import jax.numpy as jnp, optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(100, example=0.0)},
        ...     trainers={"t": pj.Schedule(trainer, data="x", batch_size=4, steps=64)},
        ... )
        >>> tuned = pj.tune_chunks(system, latency_budget_ms=100)
        >>> tuned.trainers["t"].chunk, tuned.trainers["t"].chunk_reason
        (64, 'a whole run takes ... ms, the budget is 100 ms')
    """
    budget_ms = checked_positive("tune_chunks(latency_budget_ms)", latency_budget_ms, "5 is a good one on a CPU")
    return tuned(system, budget_ms, functools.partial(compile_system, seed=seed))


def tuned(
    system: System,
    budget_ms: float,
    compile_it: Callable[[System], Compiled],
    lengths_in_run: Mapping[str, int] = MappingProxyType({}),
) -> System:
    """Return the system with chunks as long as a budget allows, as `tune_chunks` does and `launch` is told to.

    Args:
        system: what to tune.
        budget_ms: how long an action may wait for the device, in milliseconds.
        compile_it: compiles the system as it will be run.
        lengths_in_run: chunk lengths of trainers that go on within a run. They keep them: what is left of that run
            need be no whole number of other ones.
    """
    free = {name: schedule for name, schedule in system.trainers.items() if schedule.steps_per_chunk is None}
    fitting = {name: size for name, size in lengths_in_run.items() if name in free and free[name].steps % size == 0}
    if fitting:
        system = with_chunks(system, fitting, dict.fromkeys(fitting, "as in the saved state, which is within a run"))
    budget = longest_chunk(budget_ms / 1000)
    lengths = {
        name: schedule.chunk
        for name, schedule in system.trainers.items()
        if schedule.steps_per_chunk is None and schedule.trainer.compiled
    }
    seconds: dict[str, float] = {}
    for number in range(_ROUNDS):
        if not lengths:
            return system
        seconds = _chunk_seconds(with_chunks(system, lengths), compile_it, lengths)
        longest = {
            name: _longest(system.trainers[name].steps, budget / (seconds[name] / length))
            for name, length in lengths.items()
        }
        # What nearly fits grows no more, else lengths could go up and down for ever. The first chunks are short, and
        # most of their time may be the call's: so those that take less than half of what they may are looked at again.
        longest = {
            name: min(longest[name], length) if number > 0 and seconds[name] > budget / 2 else longest[name]
            for name, length in lengths.items()
        }
        if number == _ROUNDS - 1:
            longest = {name: min(longest[name], length) for name, length in lengths.items()}
            seconds = {name: seconds[name] * longest[name] / length for name, length in lengths.items()}
        if longest == lengths or number == _ROUNDS - 1:
            lengths = longest
            break
        lengths = longest
    reasons = {
        name: _reason(system.trainers[name], length, 1000 * seconds[name], budget_ms)
        for name, length in lengths.items()
    }
    return with_chunks(system, lengths, reasons)


def with_chunks(system: System, lengths: Mapping[str, int], reasons: Mapping[str, str] | None = None) -> System:
    """Return the system with chunks of other lengths.

    Args:
        system: what to change.
        lengths: steps in a chunk, by trainer name.
        reasons: why, by trainer name.
    """
    trainers = {
        name: dataclasses.replace(schedule, steps_per_chunk=lengths[name], chunk_reason=(reasons or {}).get(name, ""))
        if name in lengths
        else schedule
        for name, schedule in system.trainers.items()
    }
    return dataclasses.replace(system, trainers=trainers)


def _longest(steps: int, most: float) -> int:
    """Return the largest divisor of a number of steps that is at most so large, at least 1."""
    return max(size for size in range(1, steps + 1) if steps % size == 0 and (size <= most or size == 1))


def _chunk_seconds(
    system: System, compile_it: Callable[[System], Compiled], names: Mapping[str, int]
) -> dict[str, float]:
    """Return how long a chunk of each trainer takes, its median."""
    compiled = compile_it(system)
    result: dict[str, float] = {}
    for name in names:
        programs, run = compiled.programs.trainers[name], compiled.learner.trainers[name]
        sources = system.trainers[name].sources.items()
        data = {key: compiled.learner.buffers[source.buffer].state for key, source in sources}
        if programs.gather is not None:
            data = jax.block_until_ready(programs.gather(data, 0, run.data_key))
        state, times = run.state, list[float]()
        until = time.perf_counter() + _MOST_SECONDS
        while len(times) <= _LEAST_CALLS or time.perf_counter() < until:
            started = time.perf_counter()
            state, _ = jax.block_until_ready(programs.chunk(state, data, 0, run.data_key))
            times.append(time.perf_counter() - started)
        result[name] = statistics.median(times[1:])  # the first one also warms up
    return result


def _reason(schedule: Schedule, length: int, milliseconds: float, budget: float) -> str:
    what = "a whole run" if length == schedule.steps else f"a chunk of {length} steps" if length > 1 else "a step"
    longer = [size for size in range(length + 1, schedule.steps + 1) if schedule.steps % size == 0][:1]
    next_one = f"; the next divisor of {schedule.steps} is {longer[0]}" if longer else ""
    ahead = budget - 1000 * longest_chunk(budget / 1000)
    for_others = (
        f", of which {ahead:g} ms are for the rest of the chunk before" if length < schedule.steps and ahead else ""
    )
    return f"{what} takes {milliseconds:.2f} ms, the budget is {budget:g} ms{for_others}{next_one}"
