from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from pamiq_jax.runtime.signal_wake import MainWaker
from tests.runtime.fakes import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGURG")


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Have SIGUSR1 and SIGUSR2 noted."""
    seen: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: seen.append(number))
        for number in (signal.SIGUSR1, signal.SIGUSR2)
    }
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def waker() -> Iterator[MainWaker]:
    waker = MainWaker([signal.SIGUSR1], pokes_seconds=(0.0, 0.0))
    assert waker.install()
    yield waker
    waker.end()
    waker.put_back()


def poked() -> threading.Semaphore:
    """Return what can be acquired once for each poke from here on."""
    pokes = threading.Semaphore(0)
    signal.signal(signal.SIGURG, lambda number, frame: pokes.release())
    return pokes


def test_the_main_thread_is_poked_after_a_signal_of_ours_and_after_no_other(
    handled: list[int], waker: MainWaker
) -> None:
    pokes = poked()
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert all(pokes.acquire(timeout=PATIENCE) for _ in range(2))
    waker.end()  # what follows is read before
    assert not pokes.acquire(blocking=False)
    assert handled == [signal.SIGUSR2, signal.SIGUSR1]
    waker.put_back()


def test_nothing_of_it_is_left() -> None:
    def state() -> tuple[object, ...]:
        free = os.dup(0)  # the lowest number that is free
        os.close(free)
        return threading.active_count(), signal.getsignal(signal.SIGURG), free

    before = state()
    waker = MainWaker([signal.SIGUSR1])
    assert waker.install()
    for _ in range(2):
        waker.end()
        waker.put_back()
    assert state() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_program_that_has_either_for_itself_keeps_it() -> None:
    handler = signal.signal(signal.SIGURG, lambda number, frame: None)
    try:
        assert not MainWaker([signal.SIGUSR1]).install()
    finally:
        signal.signal(signal.SIGURG, handler)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    before = signal.set_wakeup_fd(write_end)
    try:
        assert not MainWaker([signal.SIGUSR1]).install()
        assert signal.set_wakeup_fd(before) == write_end
    finally:
        signal.set_wakeup_fd(before)
        os.close(read_end)
        os.close(write_end)
