"""Replay where a run ends in an unusual way: after a change, with an object in an error, beside a launch that died."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, RecordingError
from pamiq_jax.recording import Recording
from pamiq_jax.recording.entries import drains_together, ticks_of
from pamiq_jax.recording.log import LogWriter, read_log
from tests.runtime.fakes import PATIENCE, assert_equal_trees, fed_system
from tests.runtime.resuming import quick_compiles


@pytest.fixture(scope="module", autouse=True)
def few_compiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


def system(when: Any = None) -> pj.System:
    def loss_fn(params: Any, x: Any, rng_key: Any) -> Any:
        return jnp.mean((params["policy"].sum() - x) ** 2), {}

    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    return fed_system(
        pj.Schedule(
            pj.gradient_trainer(loss_fn, tx), data="x", batch_size=2, when=pj.min_new(2) if when is None else when
        )
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run whose last change no tick follows, and what it has ended with."""
    directory = tmp_path_factory.mktemp("recorded")
    with pj.launch(system(), directory=directory, record=True) as run:
        for version in (1, 2):
            run.collect("x", 1.0)
            run.collect("x", 2.0)
            run.wait_for_version(version, PATIENCE)
        for wrong in ("0.3", Fraction(1, 3), np.array(0.2, object), True, 1e39):
            with pytest.raises(InvalidValueError, match=r"hyper-parameter learning_rate is .*, expected a"):
                run.trainers["fit"].set(learning_rate=wrong)
        run.pause()
        run.trainers["fit"].set(learning_rate=np.float64(0.3))
        assert run.status.recording is not None
        assert run.status.recording.error == ""
    return directory, run.learner.trainers["fit"].state


def test_a_change_that_no_tick_follows_is_made_too(recorded: tuple[Path, Any]) -> None:
    directory, state = recorded
    replayed = pj.replay(directory, system())
    assert (replayed.difference, replayed.is_complete) == (None, True)
    assert_equal_trees(replayed.learner.trainers["fit"].state, state)
    recording = Recording(directory)
    assert [change for entry in recording.ticks() for change in entry.changes] == []
    assert recording.last_changes == (("fit", {"learning_rate": float(np.float32(0.3))}),)


@pytest.mark.parametrize("left", ["nothing", "a start", "an empty log"])
def test_a_launch_that_was_killed_before_its_log_is_passed_over(
    recorded: tuple[Path, Any], tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(recorded[0] / "recording", tmp_path / "recording")
    second = tmp_path / "recording" / "000002"
    second.mkdir()
    if left == "a start":
        shutil.copytree(second.parent / "000001" / "start", second / "start")
    if left == "an empty log":
        (second / "log").touch()
    assert Recording(tmp_path).number == 1
    assert "recording 1 is taken" in caplog.text
    assert pj.replay(tmp_path, system(), until=1).snapshot.version == 1
    with pytest.raises(RecordingError, match="the run was killed before it began"):
        Recording(tmp_path, 2)


class Sensor:
    """Something whose text has its address in it."""


def test_where_an_object_lay_that_an_error_names_is_a_remark(tmp_path: Path) -> None:
    kept: list[Sensor] = []

    def failing() -> pj.System:
        def is_ready(now: pj.conditions.Progress, last: pj.conditions.Progress) -> bool:
            if int(now.inserted) >= 2:
                kept.append(Sensor())
                raise ValueError(f"no answer of {kept[-1]}")
            return False

        return system(pj.when(is_ready))

    with pj.launch(failing(), directory=tmp_path, record=True, faults=pj.keep_acting(restarts=0)) as run:
        run.collect("x", 1.0)
        run.collect("x", 1.0)
        with pytest.raises(TimeoutError, match="no answer"):
            run.wait_for_version(1, PATIENCE)
    replayed = pj.replay(tmp_path, failing(), faults=pj.keep_acting(restarts=0))
    assert (replayed.difference, replayed.is_complete) == (None, True)
    assert len(replayed.remarks) == 2, "the error, and the reason that has it"
    assert "the error names another address" in replayed.remarks[0]


def test_a_log_of_the_form_before_is_read(recorded: tuple[Path, Any], tmp_path: Path) -> None:
    """In it each drain has arrays of its own."""
    shutil.copytree(recorded[0] / "recording", tmp_path / "recording")
    path = tmp_path / "recording" / "000001" / "log"
    entries = list(read_log(path))
    path.unlink()
    log = LogWriter(path)
    for entry in entries:
        if entry["kind"] == "begin":
            log.append({**entry, "form": 2})
            continue
        drains = [drain for tick in ticks_of(entry) for drain in tick.drains] if entry["kind"] == "ticks" else []
        log.append({**entry, "drains": [{**drain._asdict(), "leaves": dict(drain.leaves)} for drain in drains]})
    log.close()
    assert_equal_trees(pj.replay(tmp_path, system()).learner.trainers["fit"].state, recorded[1])
    assert Recording(tmp_path).records("x").data.tolist() == [1.0, 2.0, 1.0, 2.0]


def test_records_of_one_batch_are_stored_together(recorded: tuple[Path, Any]) -> None:
    (path,) = recorded[0].glob("recording/*/log")
    ticks = [entry for entry in read_log(path) if entry["kind"] == "ticks"]
    for entry in ticks:
        assert len(list(drains_together(entry["drains"]))) <= 1
        apart = [drain for tick in ticks_of(entry) for drain in tick.drains]
        assert sum(drain.rows for drain in apart) == sum(drain.rows for drain in drains_together(entry["drains"]))
    assert Recording(recorded[0]).records("x").data.tolist() == [1.0, 2.0, 1.0, 2.0]


def test_a_policy_that_is_none_is_refused(recorded: tuple[Path, Any]) -> None:
    wrong: Any = None
    with pytest.raises(InvalidValueError, match=r"replay\(faults\) is None, expected a FaultPolicy"):
        pj.replay(recorded[0], system(), faults=wrong)
