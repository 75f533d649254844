"""Commands that only others than a system's own threads may give: those would wait for themselves."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate

from pamiq_jax.errors import OwnThreadError
from pamiq_jax.runtime.heartbeat import Heartbeats
from pamiq_jax.runtime.signals import gives_way


def check_outside(what: str, heartbeats: Heartbeats, *others: threading.Thread) -> None:
    """Raise if the calling thread is one of those that act and learn, or one of the others.

    Args:
        what: the command, for the error.
        heartbeats: of the system's threads.
        others: further threads that the command waits for.

    Raises:
        OwnThreadError: at once, naming the thread.

    Example:
        >>> from pamiq_jax.runtime.clock import VirtualClock
        >>> heartbeats = Heartbeats(VirtualClock(), ("worker",))
        >>> check_outside("run.pause", heartbeats)
        >>> pulse = heartbeats.attach("worker")
        >>> check_outside("run.pause", heartbeats)
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.OwnThreadError: run.pause was called on 'worker', one of the system's own threads, which ...
    """
    own = {pulse.ident: name for name, pulse in heartbeats.pulses}
    own.update((thread.ident, thread.name) for thread in others)
    if (name := own.get(threading.get_ident())) is not None:
        raise OwnThreadError(what, name)


def from_outside[R: Any, **P, T](method: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """Return a method of a `Run` that refuses to be called on a thread that it would wait for.

    Args:
        method: of a `Run`.
    """

    @functools.wraps(method)
    def checked(run: R, *arguments: P.args, **keywords: P.kwargs) -> T:
        # A stop also ends the thread that tells of metrics; the other commands need nothing of it.
        others = (run._engine.rows.thread,) if method.__name__ == "stop" else ()
        check_outside(f"run.{method.__name__}", run._control.heartbeats, *others)
        return method(run, *arguments, **keywords)

    return checked


def command[R: Any, **P, T](method: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """Return a command of a `Run` as `from_outside` does, that also leaves with the exit code where SIGTERM ended it.

    Args:
        method: the command.
    """
    return from_outside(gives_way(method))
