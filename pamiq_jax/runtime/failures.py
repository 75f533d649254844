"""Errors that say which part of a running system has failed."""

from __future__ import annotations

from collections.abc import Callable

from pamiq_jax.errors import WorkerError


def named_hook(name: str, hook: Callable[[], None] | None) -> Callable[[], None] | None:
    """Return a hook that, if it raises, raises a `WorkerError` with its name in it; None for none.

    Example:
        >>> named_hook("on_paused of trainer 'vae'", lambda: 1 / 0)()
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.WorkerError: worker "on_paused of trainer 'vae'" failed: ZeroDivisionError: division by zero
    """
    if hook is None:
        return None

    def named_one() -> None:
        with named(name):
            hook()

    return named_one


class named:  # noqa: N801 - as `contextlib.suppress`; a generator would take three times as long, several times a tick
    """A block in which what is raised becomes a `WorkerError` with a name in it.

    Args:
        name: of what may fail.

    Example:
        >>> with named("condition of trainer 'vae'"):
        ...     1 / 0
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.WorkerError: worker "condition of trainer 'vae'" failed: ZeroDivisionError: division by zero
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            raise worker_error(self._name, error) from error


def describe_error(error: BaseException) -> str:
    """Return an error's type and message in one line, as reasons, statuses and recordings have it.

    Example:
        >>> describe_error(ValueError("bad"))
        'ValueError: bad'
    """
    return f"{type(error).__name__}: {error}"


def worker_error(worker: str, cause: BaseException) -> WorkerError:
    """Return a `WorkerError` whose `__cause__` is set, without raising it; one that says already what failed, as it is.

    Args:
        worker: the name of the thread or trainer.
        cause: what ended it.

    Example:
        >>> worker_error("trainer 'vae'", ValueError("bad")).__cause__
        ValueError('bad')
    """
    if isinstance(cause, WorkerError):
        return cause
    error = WorkerError(worker, cause)
    error.__cause__ = cause
    return error
