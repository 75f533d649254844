"""What the tests of exact resume share: a run that is saved after many ticks, and the comparison of two runs."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateInfo, StateStore, latest_n
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime import InferReport, LearnerState
from tests.runtime.fakes import assert_equal_trees

type MakeSystem = Callable[[], pj.System]
"""A new system each time, with environments of its own."""


def learner_parts(learner: LearnerState) -> Any:
    """Return all that must be equal of two training sides; what they have measured of their own past is in it too."""
    runs = {
        name: run._replace(phase=str(run.phase), last=dict(run.last), after=dict(run.after))
        for name, run in learner.trainers.items()
    }
    values = learner._replace(trainers=runs)._asdict()
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def snapshot_parts(snapshot: Snapshot) -> Any:
    """Return all that must be equal of two snapshots."""
    return {**snapshot._asdict(), "params": dict(snapshot.params)}


def parts_of(result: pj.LockstepResult) -> Any:
    """Return all that must be equal of two runs."""
    return learner_parts(result.learner), result.actors, snapshot_parts(result.snapshot), result.buffers


@contextlib.contextmanager
def quick_compiles(directory: Path) -> Iterator[None]:
    """Compile without most optimizations, and each system only once: later from JAX's persistent cache."""
    options = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    compilation_cache.reset_cache()
    for name, value in {**options, "jax_disable_most_optimizations": True}.items():
        jax.config.update(name, value)
    yield
    for name, value in {**before, "jax_disable_most_optimizations": False}.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.clear_caches()  # what other modules compile is compiled as usual


def digest(result: pj.LockstepResult) -> str:
    """Return a checksum of all leaves of a run's end, and of the last metrics."""
    checksum = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path((parts_of(result), result.metrics[-3:]))[0]:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        checksum.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return checksum.hexdigest()


class Straight(NamedTuple):
    """A run without an interruption, and the states that it has left behind."""

    result: pj.LockstepResult
    reports: list[InferReport]
    states: list[StateInfo]


def run_straight(make: MakeSystem, ticks: int, directory: Path, *, since: int, **options: Any) -> Straight:
    """Return a run that is saved after each tick from `since` on, and goes on after that."""
    reports: list[InferReport] = []
    is_due = pj.when(lambda now, last: now.time_ms >= since)  # without an interval a tick is a millisecond
    result = pj.run_lockstep(
        make(), ticks, directory=directory, save=is_due, keep=latest_n(ticks), on_interaction=reports.append, **options
    )
    return Straight(result, reports, [*StateStore(directory).states()][:-1])  # the last one is of the end


def phases(directory: Path, number: int) -> dict[str, tuple[str, int]]:
    """Return each trainer's phase, and how many chunks of its run it has done, in a saved state."""
    leaves = StateStore(directory).read(number)["leaves"]
    names = [name.removesuffix("['phase']") for name in leaves if name.endswith("['phase']")]
    return {name.split("'")[3]: (leaves[f"{name}['phase']"], leaves[f"{name}['chunk']"]) for name in names}


def state_within_a_run(directory: Path, states: list[StateInfo]) -> StateInfo:
    """Return the first state in which some trainer has done a part of its run."""
    for state in states:
        if any(phase == "training" and chunk > 0 for phase, chunk in phases(directory, state.number).values()):
            return state
    raise AssertionError(f"no trainer is inside a run in any of {len(states)} states")


def assert_goes_on_as(straight: Straight, make: MakeSystem, directory: Path, state: StateInfo, **options: Any) -> None:
    """Fail unless a new system that goes on from a state does and becomes the same as the uninterrupted run."""
    done, reports = sum(state.facts["ticks"].values()), list[InferReport]()
    ticks = len(straight.reports) - done
    rest = pj.run_lockstep(
        make(), ticks, directory=directory, resume=state.number, on_interaction=reports.append, **options
    )
    assert_equal_trees(parts_of(straight.result), parts_of(rest))
    assert rest.metrics, "nothing was learned after the save"
    assert_equal_trees(straight.result.metrics[-len(rest.metrics) :], rest.metrics)
    assert_equal_trees(straight.reports[done:], reports)
