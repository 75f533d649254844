"""Threads end by themselves when nothing is left to do for them, or nobody is left to ask them."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import pytest

import pamiq_jax as pj
from pamiq_jax.errors import WorkerError
from pamiq_jax.lifecycle import SystemPhase
from tests.runtime.fakes import PATIENCE, HeldWorld, World, learning_system


class NoWorld(World):
    def reset(self, seed: int) -> None:
        raise OSError("no world")


class NoSpec(World):
    @property
    def spec(self) -> pj.EnvironmentSpec:  # type: ignore[override]
        raise OSError("no spec")


class BreaksLater(World):
    """Fails once something has been learned."""

    def __init__(self) -> None:
        super().__init__()
        self.may_fail = threading.Event()

    def observe(self):  # type: ignore[no-untyped-def]
        if self.may_fail.is_set():
            raise OSError("broken")
        return super().observe()


def left_threads() -> list[str]:
    """The names of the threads that do not end."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pamiq-")]
    for thread in threads:
        thread.join(PATIENCE)
    return [thread.name for thread in threads if thread.is_alive()]


@pytest.mark.parametrize("world", [NoWorld, NoSpec])
def test_a_run_that_has_failed_leaves_no_thread(world: type[World], tmp_path: Path) -> None:
    run = pj.launch(learning_system(world()), directory=tmp_path, record=True)
    with pytest.raises(WorkerError, match=r"no world|no spec"):
        run.wait(PATIENCE)
    assert left_threads() == []
    assert run.status.phase is SystemPhase.FAILED
    run.stop()


def test_what_a_failed_run_has_to_write_is_written_before_its_threads_end(tmp_path: Path) -> None:
    world = BreaksLater()
    run = pj.launch(learning_system(world), directory=tmp_path, record=True)
    run.wait_for_version(2, PATIENCE)
    number = run.save(PATIENCE).number
    world.may_fail.set()
    with pytest.raises(WorkerError, match="broken"):
        run.wait(PATIENCE)
    assert left_threads() == []
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == run.status.trainers["fit"].steps
    recording = pj.Recording(tmp_path)
    assert sum(1 for _ in recording.ticks()) > 0
    assert recording.is_complete
    run.stop()  # what had been changed in the process is put back only now
    with pj.launch(learning_system(), directory=tmp_path, resume=True) as run:
        assert run.restored is not None
        assert run.restored.state.number == number


def test_a_system_whose_handle_is_dropped_stops_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = pj.launch(learning_system(), directory=tmp_path, on_metrics=lambda row: None, record=True)
    run.wait_for_version(1, PATIENCE)
    engine, handle, interval = run._engine, weakref.ref(run), sys.getswitchinterval()
    with caplog.at_level(logging.WARNING, "pamiq_jax"):
        del run
        gc.collect()
        assert handle() is None
        assert left_threads() == []
        engine.stop(PATIENCE)  # waits for whoever stops it already
    assert "nobody holds the handle of a system that runs" in caplog.text
    assert sys.getswitchinterval() > interval
    with pj.launch(learning_system(), directory=tmp_path, resume=True):
        pass  # the directory is free


def test_a_method_of_a_run_keeps_it() -> None:
    run = pj.launch(learning_system())
    collect, engine = run.collect, run._engine
    del run
    gc.collect()
    assert engine.control.phase not in (SystemPhase.STOPPING, SystemPhase.STOPPED)
    del collect
    gc.collect()
    assert left_threads() == []
    engine.stop(PATIENCE)


@pytest.mark.parametrize("world", [World, NoWorld])
def test_a_run_that_is_over_is_dropped_in_silence(world: type[World], caplog: pytest.LogCaptureFixture) -> None:
    run = pj.launch(learning_system(world()))
    engine = run._engine
    if world is NoWorld:
        with pytest.raises(WorkerError, match="no world"):
            run.wait(PATIENCE)
    else:
        run.stop()
    del run
    gc.collect()
    assert left_threads() == []
    engine.stop(PATIENCE)
    assert caplog.text == ""


def test_a_dropped_system_that_does_not_stop_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = HeldWorld()
    run = pj.launch(learning_system(world))
    assert world.is_held.wait(PATIENCE)
    engine, told = run._engine, threading.Event()
    stop = engine.stop

    def stop_soon() -> None:
        try:
            stop(0.01)
        finally:
            world.go.set()

    monkeypatch.setattr(engine, "stop", stop_soon)
    monkeypatch.setattr(logging.getLogger("pamiq_jax"), "exception", lambda text: told.set())
    del run
    gc.collect()
    assert told.wait(PATIENCE)
    stop(PATIENCE)
    assert left_threads() == []


def test_the_interpreter_ends_with_handles_held_and_dropped() -> None:
    code = """
        import gc, jax.numpy as jnp, pamiq_jax as pj
        system = pj.System(models={"m": pj.Model(jnp.zeros(()))})
        kept, dropped = pj.launch(system), pj.launch(system)
        kept.wait_until_ready()
        del dropped
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    assert "Traceback" not in ended.stderr
