"""Wakes a main thread that fell asleep just as a signal came."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

_POKES_SECONDS = (0.02, 0.2, 1.0)
_END = b"\0"


class MainWaker:
    """Sees to it that the handlers of some signals run soon, whatever the main thread does.

    Python's handlers run when the main thread next looks for them. One that has looked, and waits for the
    interpreter's lock to be taken from it before it sleeps, sleeps on, perhaps for ever. But the C handler also writes
    the signal's number into a pipe (`signal.set_wakeup_fd`). A thread that sleeps on it then pokes the main thread with
    SIGURG, which does nothing by itself. Where the program uses one of the two for itself, nothing is done.

    Args:
        numbers: of the signals.
        pokes_seconds: when to poke after a signal; several times, since a poke may come at as bad a moment.

    Example:
        >>> waker = MainWaker([signal.SIGTERM])
        >>> waker.install()
        True
        >>> waker.end()
        True
        >>> waker.put_back()
    """

    def __init__(self, numbers: Iterable[int], pokes_seconds: Iterable[float] = _POKES_SECONDS) -> None:
        self._numbers, self._pokes_seconds = frozenset(numbers), tuple(pokes_seconds)
        self._pipe: tuple[int, int] | None = None
        self._has_ended = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def install(self) -> bool:
        """Begin, and return whether that was possible. Called from the main thread."""
        if self._has_ended or signal.getsignal(signal.SIGURG) is not signal.SIG_DFL:
            return False
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        if (other := signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)) != -1:
            signal.set_wakeup_fd(other)
            os.close(read_end)
            os.close(write_end)
            return False
        self._pipe = read_end, write_end
        self._before = signal.signal(signal.SIGURG, lambda number, frame: None)
        self._thread = threading.Thread(target=self._watch, args=(read_end,), name="pamiq-signals-wake", daemon=True)
        self._thread.start()
        if self._has_ended:  # meanwhile: there is nothing left to be woken for
            self.end()
        return True

    def end(self, timeout: float | None = None) -> bool:
        """End the thread, and return whether it has ended in time. Called from any thread, as often as one likes.

        Args:
            timeout: seconds; None waits as long as the pokes last.
        """
        self._has_ended = True
        if self._pipe is None:
            return True
        with contextlib.suppress(BlockingIOError):  # full: it has long been told
            os.write(self._pipe[1], _END)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def put_back(self) -> None:
        """Put back what was there before. Called from the main thread, after `end`."""
        if self._pipe is None:
            return
        if (other := signal.set_wakeup_fd(-1)) not in (-1, self._pipe[1]):
            signal.set_wakeup_fd(other)  # somebody has set theirs since
        signal.signal(signal.SIGURG, self._before)
        for end in self._pipe:
            os.close(end)
        self._pipe = None

    def _watch(self, read_end: int) -> None:
        main = threading.main_thread()
        assert main.ident is not None, "it runs"
        while (byte := os.read(read_end, 1)) != _END:
            for seconds in self._pokes_seconds if byte[0] in self._numbers else ():
                time.sleep(seconds)
                if main.is_alive():
                    signal.pthread_kill(main.ident, signal.SIGURG)
