"""What a run is told wrongly is refused before anything starts; what happens around it changes nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.errors import InvalidValueError, NonFiniteError, WorkerError
from tests.runtime.fakes import PATIENCE, learner, learning_system


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"deadlines": 3}, r"launch\(deadlines\) is 3, expected a Deadlines"),
        ({"seed": 1.5}, r"launch\(seed\) is 1.5, expected an integer"),
        ({"on_metrics": 3}, r"launch\(on_metrics\) is 3, expected a function"),
        ({"resume": 1.5}, r"resume is 1.5, expected True, False, the number"),
        ({"partial": True}, r"expected nothing without resume="),
        ({"rename": {"models": {"a": "b"}}}, r"expected nothing without resume="),
        ({"save": pj.min_size(10)}, r"launch\(save\) is min_size\(10\), expected a condition that can hold"),
    ],
)
def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        pj.launch(learning_system(), directory=tmp_path, **options)


def test_names_are_strings_and_chunks_whole() -> None:
    with pytest.raises(InvalidValueError, match=r"System\(models\)"):
        pj.System({1: pj.Model(jnp.zeros(3))})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError, match=r"steps_per_chunk\) is '2', expected an integer"):
        pj.Schedule(learner(), data="x", batch_size=1, steps=4, steps_per_chunk="2")  # pyright: ignore[reportArgumentType]


def test_a_directory_stays_where_it_is_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
    monkeypatch.chdir(here)
    with pj.launch(learning_system(), directory="runs") as run:
        run.save(PATIENCE)
        monkeypatch.chdir(there)
        number = run.save(PATIENCE).number
    assert number == 2
    assert [info.number for info in StateStore(here / "runs").states()] == [1, 2]
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("model", [pj.Model(jnp.array([1.0, jnp.nan])), pj.Model(jnp.full(2, 1e10), dtype=jnp.float16)])
def test_no_first_version_that_is_not_finite(model: pj.Model) -> None:
    with pytest.raises(NonFiniteError, match="'m'"):
        pj.compile_system(pj.System({"m": model}))


def test_a_step_that_wants_the_thread_to_end_ends_its_trainer_alone() -> None:
    def leave(state: Any, batch: Any) -> Any:
        raise SystemExit("enough")

    def init(rng_key: Any, params: Any) -> Any:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    leaving = pj.Schedule(
        pj.custom_trainer(init, leave, trains=("other",), compiled=False), data="seen", batch_size=1, when=pj.min_new(1)
    )
    system = learning_system(
        models={"policy": pj.Model(jnp.zeros(3), jnp.vdot), "other": pj.Model(jnp.zeros(3))},
        trainers={**learning_system().trainers, "leaving": leaving},
    )
    with pj.launch(system) as run:
        with pytest.raises(WorkerError, match=r"trainer leaving.*it raised SystemExit\('enough'\)"):
            run.wait(PATIENCE)
        run.wait_for_version(run.snapshot.version + 2, PATIENCE)


WAITING = """
import os, signal, sys, threading
from pathlib import Path
import pamiq_jax as pj
from tests.runtime.fakes import SavedWorld, learning_system

run = pj.launch(learning_system(SavedWorld()), directory=sys.argv[1])
version = run.wait_for_version(1, timeout=60).version
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
while True:
    version = run.wait_for_version(version + 1, timeout=60).version
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are handled on POSIX alone")
def test_sigterm_ends_a_loop_of_calls_with_the_exit_code_of_a_saved_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WAITING), str(tmp_path)]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], timeout=120, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert StateStore(tmp_path).latest() is not None
