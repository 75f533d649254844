"""SIGTERM, as a supervisor sends it: save, stop, and leave with exit code 0."""

from __future__ import annotations

import _thread
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime.signal_wake import MainWaker

_LOGGER = logging.getLogger("pamiq_jax")
_GRACE_SECONDS = 2.0
_REPEAT_SECONDS = 0.05
_KILLED = 128 + signal.SIGTERM
"""The exit code that a shell gives a process that SIGTERM has ended."""


class TerminationSignals:
    """What SIGTERM, and a signal for saving, do to a process that runs a system.

    The first SIGTERM saves, stops, and then raises `SystemExit(0)` in the main thread, whatever that is doing; with
    `SystemExit(1)` if saving or stopping failed, which is logged. A second one stops without saving and ends the
    process with code 143, two seconds later at the most; a third one ends it at once. Neither lets the main thread
    clean up.

    A handler runs in the main thread between two bytecodes, so that the main thread may hold any lock. It takes none:
    the work is done by a thread of its own, "pamiq-signals".

    Args:
        save: called first; None saves nothing.
        stop: ends the system.
        save_signals: each saves and goes on, for example `signal.SIGUSR1`.

    Raises:
        InvalidValueError: there are such, without a `save` or outside the main thread.

    Example:
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> signals = TerminationSignals(save=None, stop=lambda: None)
        >>> signals.install()
        True
        >>> signals.restore()
        >>> signal.getsignal(signal.SIGTERM) == before
        True
    """

    def __init__(
        self, save: Callable[[], Any] | None, stop: Callable[[], Any], save_signals: tuple[int, ...] = ()
    ) -> None:
        if save_signals and save is None:
            raise InvalidValueError("on_signal", save_signals, "none", "there is nothing that saves")
        if save_signals and not _can_install():
            remedy = "only the main thread, and not on Windows, can install a handler"
            raise InvalidValueError("on_signal", save_signals, "none in this thread", remedy)
        self._save, self._stop, self._save_signals = save, stop, save_signals
        self._before: dict[int, Any] = {}  # the handlers to put back
        self._process = 0
        self._saving = threading.Lock()  # for the threads; no handler takes it
        self._terminations = 0
        self._exit_code: int | None = None  # once the main thread is to leave
        self._has_left, self._left = False, threading.Event()
        self._worker: threading.Thread | None = None
        self._is_armed = False
        self._waker = MainWaker((*save_signals, signal.SIGTERM))

    @property
    def is_terminating(self) -> bool:
        """Whether SIGTERM has come."""
        return self._terminations > 0

    def install(self) -> bool:
        """Install the handlers, and return whether SIGTERM's is.

        It is not where another one has been installed already, nor outside the main thread.
        """
        if not _can_install():
            return False
        earlier = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if isinstance(earlier, TerminationSignals) and not earlier._is_armed:
            earlier._put_back()  # it ended on another thread, which could not
        self._process, self._is_armed = os.getpid(), True
        self._waker.install()
        for number in self._save_signals:
            self._before[number] = signal.signal(number, self._on_save)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return False
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
        return True

    def restore(self) -> None:
        """Put back what was there before. Doing it twice does no harm.

        Outside the main thread, which alone may do it, the handlers only lose their effect: the next signal does what
        it did before. While a termination is under way they stay, until the main thread leaves.
        """
        if self._terminations and not self._has_left:
            return
        if self._worker is not None:
            self._worker.join(_GRACE_SECONDS)  # it ends now; a signal of its own must not meet what was there before
        self._is_armed = False
        self._waker.end()
        if threading.current_thread() is threading.main_thread():
            self._put_back()

    def close(self, timeout: float) -> bool:
        """End the thread that wakes the main thread, and return whether it has ended. The handlers stay.

        Args:
            timeout: seconds.
        """
        return self._waker.end(timeout)

    def _put_back(self) -> None:
        self._waker.put_back()
        for number in tuple(self._before):
            before = self._before.pop(number)
            # None: not installed from Python, and Python cannot install it again.
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def give_way(self) -> None:
        """Wait for the exit that SIGTERM has asked for, if the main thread calls: a `SystemExit` is raised in here."""
        if self._terminations and not self._has_left and threading.current_thread() is threading.main_thread():
            self._left.wait(_GRACE_SECONDS)

    # The handlers. Each runs in the main thread, and takes no lock.

    def _is_ours(self, number: int) -> bool:
        """Return whether a signal is to be handled; else do what it did before.

        A forked child has the handlers too, and must not save and stop its parent's system.
        """
        if self._is_armed and os.getpid() == self._process:
            return True
        self._put_back()
        os.kill(os.getpid(), number)
        return False

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        if self._is_ours(number) and not self._terminations:
            _start(self._try_save)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        if not self._is_ours(number) or self._has_left:
            return
        if self._exit_code is not None:
            self._leave(self._exit_code)
            return
        self._terminations += 1
        if self._terminations == 1:
            _start(self._save_and_stop)
        elif self._terminations == 2:
            _start(self._stop_now)
        else:
            os._exit(_KILLED)

    def _leave(self, code: int) -> None:
        self._has_left = True  # first: the signal may be repeated within `set`
        self._left.set()
        if threading.main_thread().is_alive():  # else the interpreter is waiting for the last threads
            raise SystemExit(code)

    # What the threads do.

    def _save_and_stop(self) -> None:
        self._worker = threading.current_thread()
        succeeded = self._try_save()
        try:
            self._stop()
        except Exception:
            succeeded = False
            _LOGGER.exception("the system could not be stopped after SIGTERM")
        if self._terminations == 1:  # else the process ends in another way
            self._exit_code = 0 if succeeded else 1
            self._have_main_leave()

    def _have_main_leave(self) -> None:
        main = threading.main_thread()
        assert main.ident is not None, "it runs"
        while main.is_alive():
            signal.pthread_kill(main.ident, signal.SIGTERM)
            # One that comes just before the main thread falls asleep does not wake it, so that no handler runs.
            if self._left.wait(_REPEAT_SECONDS):
                break
        self._is_armed = False

    def _try_save(self) -> bool:
        try:
            with self._saving:
                if self._save is not None:
                    self._save()
        except Exception:
            _LOGGER.exception("the system could not be saved after a signal")
            return False
        return True

    def _stop_now(self) -> None:
        def stop_and_flush() -> None:
            with contextlib.suppress(Exception):
                self._stop()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()

        stopping = threading.Thread(target=stop_and_flush, name="pamiq-signals-stop", daemon=True)
        stopping.start()
        stopping.join(_GRACE_SECONDS)
        os._exit(_KILLED)


def gives_way[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Have a method of a run that fails because SIGTERM has ended it not tell that, but leave with the exit code."""

    @functools.wraps(method)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return method(*arguments, **keywords)
        except (TimeoutError, RuntimeError):
            run: Any = arguments[0]
            run._signals.give_way()
            raise

    return call


def _can_install() -> bool:
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "pthread_kill")


def _start(work: Callable[[], Any]) -> None:
    """Have a thread do it. Called from a handler: `Thread.start` waits for locks that the main thread may hold."""
    _thread.start_new_thread(lambda: threading.Thread(target=work, name="pamiq-signals", daemon=False).start(), ())
