"""A forked child has copies of all that is open. It must hold up neither the end of a run nor the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pamiq_jax as pj
from tests.runtime.fakes import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

_FORKS = """
import multiprocessing, os, sys, time
import pamiq_jax as pj
from tests.runtime.fakes import fed_system

run = pj.launch(fed_system(), directory=sys.argv[1])
run.save()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
child.start()
if sys.argv[2] == "killed":
    os.write(1, f"{child.pid}\\n".encode())
    os.kill(os.getpid(), 9)
run.stop(timeout=30)
with pj.launch(fed_system(), directory=sys.argv[1], resume=True) as run:
    run.save()
    print(run.restored.state.number, child.is_alive(), flush=True)
child.kill()
"""


def start(directory: Path, end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", _FORKS, str(directory), end]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(pj.__file__).parents[1])


def test_a_run_stops_and_another_one_goes_on_while_the_child_lives(tmp_path: Path) -> None:
    with start(tmp_path, "stopped") as process:
        assert process.communicate(timeout=2 * PATIENCE)[0].split() == ["1", "True"]
        assert process.returncode == 0


def test_after_a_kill_the_directory_is_free_and_its_writer_gone(tmp_path: Path) -> None:
    with start(tmp_path, "killed") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert process.wait(PATIENCE) == -9
            code = "import sys, pamiq_jax as pj\nfrom tests.runtime.fakes import fed_system\n"
            code += "with pj.launch(fed_system(), directory=sys.argv[1], resume=True) as run: print(run.save().number)"
            command = [sys.executable, "-c", code, str(tmp_path)]
            resumed = subprocess.run(
                command, capture_output=True, text=True, cwd=Path(pj.__file__).parents[1], check=True, timeout=PATIENCE
            )
            assert resumed.stdout.split() == ["2"]
        finally:
            subprocess.run(["kill", "-9", str(child)], check=True)
