"""What belongs to the process is changed while a system runs, and put back; a directory belongs to one system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import DirectoryInUseError, InvalidValueError
from pamiq_jax.runtime.process import CompileCounter, DirectoryLock
from tests.runtime.fakes import fed_system

_HOLD = """
import sys
from pamiq_jax.runtime.process import DirectoryLock
lock = DirectoryLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(directory: Path) -> subprocess.Popen[str]:
    """Return a process that owns a directory until its input ends, or it is killed."""
    root = str(Path(pj.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


class TestDirectory:
    def test_a_second_launch_is_refused_until_the_first_stops(self, tmp_path: Path) -> None:
        with pj.launch(fed_system(), directory=tmp_path) as run:
            run.wait_until_ready()
            with pytest.raises(DirectoryInUseError, match=rf"belongs to a system .*\(process {os.getpid()}\)"):
                pj.launch(fed_system(), directory=tmp_path)
        with pj.launch(fed_system(), directory=tmp_path) as run:
            run.wait_until_ready()

    def test_a_refused_launch_leaves_nothing_behind(self, tmp_path: Path) -> None:
        lock = DirectoryLock(tmp_path)
        before = (sys.getswitchinterval(), threading.active_count())
        with pytest.raises(FileExistsError, match="launch into another directory"):
            pj.launch(fed_system(), directory=tmp_path)
        assert (sys.getswitchinterval(), threading.active_count()) == before
        lock.release()

    def test_another_process_is_refused_until_it_is_killed(self, tmp_path: Path) -> None:
        with start_holder(tmp_path) as process:
            with pytest.raises(DirectoryInUseError, match=rf"\(process {process.pid}\)"):
                DirectoryLock(tmp_path)
            process.kill()
            process.wait()
        lock = DirectoryLock(tmp_path)
        lock.release()
        lock.release()

    def test_it_is_made_where_there_is_none(self, tmp_path: Path) -> None:
        with pj.launch(fed_system(), directory=tmp_path / "runs" / "first"):
            assert (tmp_path / "runs" / "first").is_dir()

    def test_a_file_in_its_place_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for place in ("file", "file/below"):
            with pytest.raises(
                InvalidValueError, match=r"directory is .*, expected a directory.*a file lies at .*file"
            ):
                pj.launch(fed_system(), directory=tmp_path / place)


class TestSwitchInterval:
    def test_it_is_shorter_only_while_a_system_runs(self) -> None:
        before = sys.getswitchinterval()
        with pj.launch(fed_system()):
            assert sys.getswitchinterval() == pytest.approx(5e-4)
        assert sys.getswitchinterval() == before

    def test_the_last_of_several_puts_it_back(self) -> None:
        before = sys.getswitchinterval()
        first, second = pj.launch(fed_system()), pj.launch(fed_system())
        first.stop()
        assert sys.getswitchinterval() == pytest.approx(5e-4)
        first.stop()  # a second stop counts for nothing
        assert sys.getswitchinterval() == pytest.approx(5e-4)
        second.stop()
        assert sys.getswitchinterval() == before

    def test_a_shorter_one_is_left_alone(self) -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        try:
            # The interpreter keeps whole microseconds, rounded down.
            with pj.launch(fed_system()):
                assert sys.getswitchinterval() == pytest.approx(1e-4, abs=3e-6)
            assert sys.getswitchinterval() == pytest.approx(1e-4, abs=3e-6)
        finally:
            sys.setswitchinterval(before)


class TestCompileCounter:
    def test_only_its_threads_and_only_between_start_and_stop(self) -> None:
        counter = CompileCounter()

        def compile_something(size: int) -> None:
            if threading.current_thread().name == "pamiq-counted":
                counter.watch("pamiq-counted")
            jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((size,), jnp.float32)).compile()

        def in_thread(name: str, size: int) -> None:
            thread = threading.Thread(target=compile_something, args=(size,), name=name)
            thread.start()
            thread.join()

        in_thread("pamiq-counted", 3)
        counter.start()
        in_thread("pamiq-counted", 4)
        in_thread("another", 5)
        assert (counter.of("pamiq-counted"), counter.total) == (1, 1)
        counter.reset()
        assert counter.total == 0
        counter.stop()
        in_thread("pamiq-counted", 6)
        assert counter.total == 0
