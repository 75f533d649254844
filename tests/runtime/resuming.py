"""What the tests of exact resume share: a run that is saved after many ticks, and the comparison of two runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime import LearnerState
from tests.runtime.fakes import PATIENCE

ROOT = Path(__file__).parents[2]

type MakeSystem = Callable[[], pj.System]
"""A new system each time, with environments of its own."""


def learner_parts(learner: LearnerState) -> Any:
    """Return all that must be equal of two training sides, what they have measured of their own past too."""
    runs = {
        name: run._replace(phase=str(run.phase), last=dict(run.last), after=dict(run.after))
        for name, run in learner.trainers.items()
    }
    values = learner._replace(trainers=runs, under_way=None)._asdict()
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


def digest(tree: Any) -> str:
    """Return a checksum of the names, dtypes, shapes and bytes of all leaves."""
    checksum = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        checksum.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return checksum.hexdigest()


def phases(directory: Path, number: int) -> dict[str, tuple[str, int]]:
    """Return each trainer's phase, and how many chunks of its run it has done, in a saved state."""
    leaves = StateStore(directory).read(number)["leaves"]
    names = [name.removesuffix("['phase']") for name in leaves if name.endswith("['phase']")]
    return {name.split("'")[3]: (leaves[f"{name}['phase']"], leaves[f"{name}['chunk']"]) for name in names}


def start(programs: Path, module: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a module of the tests in a process of its own; those with the same `programs` share what they compile."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return how a process ended, and what it said."""
    output, _ = process.communicate(timeout=10 * PATIENCE)
    return process.returncode, output
