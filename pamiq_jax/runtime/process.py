"""What belongs to the whole process: changed only while a system runs, and put back."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TextIO

import jax.monitoring

from pamiq_jax.checkpoint.forks import forget, leave_to_parent
from pamiq_jax.errors import DirectoryInUseError, InvalidValueError

_SWITCH_INTERVAL_SECONDS = 5e-4
_BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


class SwitchInterval:
    """Lets a waiting thread have the interpreter after 0.5 ms instead of 5 ms, while systems run.

    A training thread that runs Python would hold up inference otherwise. Systems can overlap: the
    first to start remembers the interval, the last to end puts it back.

    Example:
        >>> import sys
        >>> before = sys.getswitchinterval()
        >>> SwitchInterval.shorten()
        >>> SwitchInterval.restore()
        >>> sys.getswitchinterval() == before
        True
    """

    _lock = threading.Lock()
    _users = 0
    _before = 0.0

    @classmethod
    def shorten(cls) -> None:
        """Shorten the interval, unless another system has."""
        with cls._lock:
            if cls._users == 0:
                cls._before = sys.getswitchinterval()
                sys.setswitchinterval(min(cls._before, _SWITCH_INTERVAL_SECONDS))
            cls._users += 1

    @classmethod
    def restore(cls) -> None:
        """Put the interval back, unless another system still runs."""
        with cls._lock:
            cls._users -= 1
            if cls._users == 0:
                sys.setswitchinterval(cls._before)


class CompileCounter:
    """Counts what the threads that ask for it compile, from `start` to `stop`.

    Example:
        >>> import jax
        >>> counter = CompileCounter()
        >>> counter.watch("this thread")
        >>> counter.start()
        >>> x = jax.jit(lambda x: x * 7 + 3)(1.0)
        >>> counter.stop()
        >>> counter.of("this thread") == counter.total > 0
        True
    """

    def __init__(self) -> None:
        # By the thread itself: systems give their threads the same names, and numbers are used again.
        self._names: dict[threading.Thread, str] = {}
        self._counts: Counter[str] = Counter()

    def watch(self, name: str) -> None:
        """Count for the calling thread from here on.

        Args:
            name: to ask for the count by.
        """
        self._names[threading.current_thread()] = name

    def start(self) -> None:
        """Begin to count."""
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def stop(self) -> None:
        """End counting."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def reset(self) -> None:
        """Forget what was compiled so far. Called when the system is ready."""
        self._counts.clear()

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _BACKEND_COMPILE:
            name = self._names.get(threading.current_thread())
            if name is not None:
                self._counts[name] += 1

    def of(self, name: str) -> int:
        """Return how many programs a thread has compiled."""
        return self._counts[name]

    @property
    def total(self) -> int:
        """How many programs all the threads have compiled."""
        return self._counts.total()


class DirectoryLock:
    """Keeps a directory to one launched system, across threads and processes, until it is released.

    The operating system lets go of it when the process dies, so a killed run leaves nothing to clean up.

    Args:
        directory: it is created if it does not exist.

    Raises:
        InvalidValueError: a file lies there, or where one of its parents should be.
        DirectoryInUseError: another system has it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     lock = DirectoryLock(directory)
        ...     lock.release()
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()  # wherever the process goes later
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            remedy = f"a file lies at {error.filename}: move it away, or name another directory"
            raise InvalidValueError("directory", str(directory), "a directory, or a place for one", remedy) from error
        self._file: TextIO | None = (self.directory / ".lock").open("a+")
        if not _try_lock(self._file):
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise DirectoryInUseError(
                f"{self.directory} belongs to a system that is running (process {owner}); "
                "stop that one, or launch into another directory"
            )
        leave_to_parent(self._file.fileno())
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let others have the directory. Doing it twice does no harm."""
        if self._file is not None:
            forget(self._file.fileno())
            self._file.close()
            self._file = None


def _try_lock(file: TextIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
