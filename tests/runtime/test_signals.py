"""SIGTERM saves, stops and leaves with code 0; a second one does not wait for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, UnsatisfiableConditionError
from pamiq_jax.runtime import TerminationSignals
from pamiq_jax.runtime.engine import Engine
from pamiq_jax.runtime.signal_condition import parted
from tests.runtime.fakes import PATIENCE, fed_system, learner, learning_system

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
SAVE = 10 if sys.platform == "win32" else signal.SIGUSR1

_LAUNCH = """
import sys, time
import pamiq_jax as pj
from tests.runtime.fakes import HeldWorld, fed_system, learning_system

def on_transition(transition):
    if transition.after == "stopping":
        print("stopping", flush=True)
"""

_WAITS = """
with pj.launch(fed_system(), directory=sys.argv[1], on_transition=on_transition) as run:
    run.wait_until_ready()
    print("ready", flush=True)
    try:
        time.sleep(600)
    finally:
        print("finally", run.status.phase, flush=True)
"""

_WAITS_FOR_THE_END = """
run = pj.launch(fed_system(), directory=sys.argv[1], on_transition=on_transition)
run.wait_until_ready()
print("ready", flush=True)
run.wait()
print("after", flush=True)
sys.exit(5)
"""

_HANGS = """
class Hanging(HeldWorld):
    def observe(self):
        print("ready", flush=True)
        self.go.wait()

run = pj.launch(learning_system(Hanging(), trainers={}), directory=sys.argv[1], on_transition=on_transition)
run.wait()
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    root = str(Path(pj.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class TestProcess:
    def test_it_stops_and_leaves_with_0(self, tmp_path: Path) -> None:
        with start(_LAUNCH + _WAITS, str(tmp_path)) as process:
            assert read(process) == "ready"
            process.terminate()
            assert (read(process), read(process)) == ("stopping", "finally stopped")
            assert process.wait(PATIENCE) == 0

    def test_who_waits_for_the_end_leaves_with_0_whatever_comes_after(self, tmp_path: Path) -> None:
        with start(_LAUNCH + _WAITS_FOR_THE_END, str(tmp_path)) as process:
            assert read(process) == "ready"
            process.terminate()
            assert (read(process), read(process)) == ("stopping", "")
            assert process.wait(PATIENCE) == 0

    def test_a_second_one_ends_a_stop_that_hangs(self, tmp_path: Path) -> None:
        with start(_LAUNCH + _HANGS, str(tmp_path)) as process:
            assert read(process) == "ready"
            process.terminate()
            assert read(process) == "stopping"
            process.terminate()
            assert process.wait(PATIENCE) == 143


class Owner:
    """Something to save and stop; saving can be made to fail, and stopping to wait."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.error = error
        self.saved = threading.Semaphore(0)
        self.may_stop = threading.Event()
        self.may_stop.set()

    def save(self) -> None:
        assert threading.current_thread().name == "pamiq-signals"
        self.calls.append("save")
        self.saved.release()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        assert self.may_stop.wait(PATIENCE)
        self.calls.append("stop")


@pytest.fixture
def restored() -> Iterator[None]:
    """Fail, and put back, if a handler is left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, SAVE)}
    assert before[signal.SIGTERM] is signal.SIG_DFL
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def exit_code_after(begin: Callable[[], object]) -> int:
    """Begin something, wait in the main thread until a signal ends that, and return the exit code."""

    def begin_and_wait() -> None:
        begin()
        threading.Event().wait(PATIENCE)

    with pytest.raises(SystemExit) as caught:
        begin_and_wait()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def join_signal_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "pamiq-signals":
            thread.join(PATIENCE)


@pytest.mark.usefixtures("restored")
class TestComponent:
    def test_it_saves_then_stops_then_the_main_thread_leaves(self) -> None:
        owner = Owner()
        signals = TerminationSignals(owner.save, owner.stop)
        assert signals.install()
        assert exit_code_after(terminate) == 0
        signals.restore()  # as leaving the run's context does
        assert owner.calls == ["save", "stop"]

    def test_without_save(self) -> None:
        owner = Owner()
        signals = TerminationSignals(None, owner.stop)
        assert signals.install()
        assert exit_code_after(terminate) == 0
        signals.restore()  # as leaving the run's context does
        assert owner.calls == ["stop"]

    def test_what_could_not_be_saved_is_logged_and_stopped(self, caplog: pytest.LogCaptureFixture) -> None:
        owner = Owner(OSError("the disk is full"))
        signals = TerminationSignals(owner.save, owner.stop)
        signals.install()
        assert exit_code_after(terminate) == 1
        signals.restore()  # as leaving the run's context does
        assert owner.calls == ["save", "stop"]
        assert "the system could not be saved after a signal" in caplog.text
        assert "the disk is full" in caplog.text

    def test_the_save_signal_saves_and_goes_on(self) -> None:
        owner = Owner()
        signals = TerminationSignals(owner.save, owner.stop, (SAVE,))
        signals.install()
        for _ in range(2):
            signal.raise_signal(SAVE)
            assert owner.saved.acquire(timeout=PATIENCE)
        signals.restore()
        join_signal_threads()
        assert owner.calls == ["save", "save"]

    def test_restoring_while_a_termination_is_under_way_waits_for_its_end(self) -> None:
        owner = Owner()
        owner.may_stop.clear()
        signals = TerminationSignals(owner.save, owner.stop)
        signals.install()
        terminate()
        assert owner.saved.acquire(timeout=PATIENCE)
        signals.restore()  # as `stop` does, in whichever thread it was called
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert exit_code_after(owner.may_stop.set) == 0
        signals.restore()  # as leaving the run's context does

    def test_restored_by_another_thread_a_signal_does_what_it_did_before(self) -> None:
        heard: list[int] = []
        before = signal.signal(SAVE, lambda number, frame: heard.append(number))
        owner = Owner()
        signals = TerminationSignals(owner.save, owner.stop, (SAVE,))
        signals.install()
        thread = threading.Thread(target=signals.restore)
        thread.start()
        thread.join(PATIENCE)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        signal.raise_signal(SAVE)
        assert (heard, owner.calls) == ([SAVE], [])
        signals.restore()
        signal.signal(SAVE, before)

    def test_a_handler_of_somebody_else_stays(self) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            signals = TerminationSignals(None, lambda: None)
            assert not signals.install()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signals.restore()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_outside_the_main_thread_nothing_is_installed(self) -> None:
        outcomes: list[object] = []

        def try_it() -> None:
            outcomes.append(TerminationSignals(None, lambda: None).install())
            with pytest.raises(InvalidValueError, match="expected none in this thread; only the main thread"):
                TerminationSignals(lambda: None, lambda: None, (SAVE,))
            outcomes.append("refused")

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join(PATIENCE)
        assert outcomes == [False, "refused"]


@pytest.mark.usefixtures("restored")
class TestRun:
    def test_handlers_are_there_while_it_runs_and_only_with_a_directory(self, tmp_path: Path) -> None:
        with pj.launch(fed_system()):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pj.launch(fed_system(), directory=tmp_path) as run:
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            stopping = threading.Thread(target=run.stop)
            stopping.start()
            stopping.join(PATIENCE)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_a_policy_with_a_signal_saves_when_it_comes_and_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, saved, save = signal.getsignal(SAVE), threading.Semaphore(0), Engine.save

        def noted(engine: Engine, timeout: float) -> None:
            save(engine, timeout)
            saved.release()

        monkeypatch.setattr(Engine, "save", noted)
        with pj.launch(fed_system(), directory=tmp_path, save=pj.every_seconds(1e6) | pj.on_signal(SAVE)) as run:
            run.wait_until_ready()
            signal.raise_signal(SAVE)
            assert saved.acquire(timeout=PATIENCE)
            assert run.status.saves.written == 1
        assert signal.getsignal(SAVE) is before


class TestPolicy:
    def test_its_signals_are_taken_apart(self) -> None:
        often, other = pj.every_seconds(60), pj.every_versions(9)
        assert parted("launch", None) == (None, ())
        assert parted("launch", pj.on_signal(SAVE)) == (None, (SAVE,))
        assert parted("launch", often | pj.on_signal(SAVE)) == (often, (SAVE,))
        assert parted("launch", often | pj.on_signal(SAVE) | other | pj.on_signal(signal.SIGUSR2)) == (
            often | other,
            (SAVE, signal.SIGUSR2),
        )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, 12345])
    def test_a_signal_that_is_taken_or_none_is_refused(self, number: int) -> None:
        with pytest.raises(InvalidValueError, match=r"on_signal\(number\) is .*; for example signal.SIGUSR1"):
            pj.on_signal(number)

    def test_what_cannot_be_asked_for_is_refused_before_anything_starts(self, tmp_path: Path) -> None:
        before, on_signal = threading.active_count(), pj.on_signal(SAVE)
        for save in (pj.every_seconds(60) & on_signal, ~on_signal, pj.every_versions(1) | (pj.always() & on_signal)):
            with pytest.raises(InvalidValueError, match=r"launch\(save\) is .*, expected signals joined with `|`"):
                pj.launch(fed_system(), directory=tmp_path, save=save)
        with pytest.raises(InvalidValueError, match=r"no signal comes in lockstep"):
            pj.run_lockstep(learning_system(), 1, directory=tmp_path, save=on_signal)
        with pytest.raises(UnsatisfiableConditionError, match=r"on_signal is for launch\(save=\)"):
            learning_system(trainers={"fit": pj.Schedule(learner(), data="seen", batch_size=1, when=on_signal)})
        assert threading.active_count() == before
