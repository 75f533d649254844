"""One class per mistake that can be explained.

Each error says what was wrong (the actual value), what was expected and what to do,
and also subclasses the builtin exception that a caller would think of catching.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterable, Sequence
from typing import Any, cast, override


@contextlib.contextmanager
def noted(note: str) -> Generator[None]:
    """Add to what is raised within where it was, for example "in `setup`"; its type stays.

    Example:
        >>> try:
        ...     with noted("in `setup`"):
        ...         raise ValueError("bad")
        ... except ValueError as error:
        ...     print(error.__notes__)
        ['in `setup`']
    """
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


class PamiqError(Exception):
    """The base of every error this library raises on purpose.

    Attributes:
        wiring: of the system that was refused, with the mistake marked: a notebook draws it. None for other errors.

    Example:
        >>> import pamiq_jax as pj
        >>> try:
        ...     pj.System({}, queues={"seen": pj.Queue()})
        ... except PamiqError as error:
        ...     print(error.wiring)
        ✗ buffer 'seen' does not exist
    """

    wiring: Any = None


class InvalidTransitionError(PamiqError, RuntimeError):
    """An event came in a phase whose row of the transition table does not have it.

    Nothing has changed when this is raised. Send one of the allowed events instead.

    Args:
        phase: the phase the machine is in.
        event: the event that was refused.
        allowed: the events that this phase accepts.
        because: what has led to the phase, where that is an error.
    """

    def __init__(self, phase: object, event: object, allowed: Iterable[object], because: object = None) -> None:
        names = ", ".join(str(name) for name in allowed) or "no event: the phase is final"
        cause = "" if because is None else f"; {because}"
        super().__init__(f"{event} is not possible in phase {phase}; allowed here: {names}{cause}")


class InvalidValueError(PamiqError, ValueError):
    """An argument is outside its range.

    Args:
        argument: the argument's name, for example `ring_buffer(capacity)`.
        actual: the value that was given.
        expected: the range that is accepted.
        remedy: what to do about it.
    """

    def __init__(self, argument: str, actual: object, expected: str, remedy: str = "") -> None:
        message = f"{argument} is {actual!r}, expected {expected}"
        super().__init__(f"{message}; {remedy}" if remedy else message)


class UnknownNameError(PamiqError, KeyError):
    """A model, buffer or trainer of this name does not exist in the system.

    Attributes:
        kind: what was looked for.
        unknown_name: the name that was given.

    Args:
        kind: what was looked for: "model", "buffer", "trainer".
        name: the name that was given.
        known: the names that exist.
        where: who asked for it.
        remedy: what to do about it, beside taking a known one.
    """

    def __init__(self, kind: str, name: object, known: Iterable[object], where: str = "", remedy: str = "") -> None:
        self.kind, self.unknown_name = kind, name
        asker = f"{where}: " if where else ""
        names = ", ".join(sorted(repr(known_name) for known_name in known)) or "none"
        self._message = f"{asker}no {kind} is named {name!r}; known: {names}" + (f"; {remedy}" if remedy else "")
        super().__init__(self._message)

    @override
    def __str__(self) -> str:
        return self._message  # KeyError would show the repr of the message


class UnsatisfiableConditionError(PamiqError, ValueError):
    """A condition can never hold with the buffer it watches, so its trainer would wait forever."""


class RecordMismatchError(PamiqError, TypeError):
    """A record differs from the buffer's example in structure, shape or dtype. Nothing was inserted."""


class LossOutputError(PamiqError, TypeError):
    """A loss function returned something other than a scalar loss and a dict of metrics.

    Args:
        output: what it returned.
    """

    def __init__(self, output: object) -> None:
        kind = type(output).__name__
        if isinstance(output, tuple):
            parts: list[str] = []
            for part in cast(tuple[object, ...], output):
                shape = getattr(part, "shape", None)
                parts.append(type(part).__name__ if shape is None else f"array{list(shape)}")
            kind = f"({', '.join(parts)})"
        super().__init__(
            f"loss_fn returned {kind}, expected (loss, metrics): a scalar array and a dict of scalar arrays; "
            "return `loss, {}` where there are no metrics"
        )


class StepStructureError(PamiqError, TypeError):
    """A trainer's step returned a state of another structure, shape, dtype or sharding than it was given."""


class StepSignatureError(PamiqError, TypeError):
    """It is not known what a user's step takes or returns.

    Args:
        step: its name and its parameters.
        problem: what is not known, and what was tried.
        remedy: what to do about it.
    """

    def __init__(self, step: str, problem: str, remedy: str) -> None:
        super().__init__(f"{step}: {problem}; {remedy}")


class MutatedModuleError(PamiqError, RuntimeError):
    """Inference changed its nnx module, which is made for one call and then gone.

    Args:
        variables: that were changed; none where variables came or went.
    """

    def __init__(self, variables: Sequence[str]) -> None:
        what = ", ".join(variables) or "variables that came or went"
        super().__init__(
            f"inference changed its module: {what}; expected a call that changes nothing, since the module is "
            "made for one call. Leave it in evaluation mode, give random numbers a key, and carry what is to be "
            "remembered in the agent's carry"
        )


class PublishMismatchError(PamiqError, TypeError):
    """What a trainer wants to publish differs from version 0 in structure, shape, dtype or sharding.

    The inference thread would have to compile again, so it is refused; the last version stays.
    """


class NonFiniteError(PamiqError, ArithmeticError):
    """Parameters with NaN or infinity were about to be published. The last good version stays."""


class TooManyBadUpdatesError(PamiqError, ArithmeticError):
    """A trainer's guard has skipped so many updates in a row that skipping does not help it any more.

    Args:
        trainer: the trainer's name.
        count: updates skipped in a row.
        limit: how many are too many.
        remedy: what to do about it.
    """

    def __init__(self, trainer: str, count: int, limit: int, remedy: str) -> None:
        super().__init__(
            f"the guard of trainer {trainer!r} has skipped {count} updates in a row, "
            f"expected fewer than {limit}; {remedy}"
        )


class DonationError(PamiqError, RuntimeError):
    """A published array is among the arguments that a jitted call would donate, and so delete."""


class DonationWarning(UserWarning):
    """A step that runs as plain Python donates what others still read; it is given copies, which take time."""


class CompileAfterReadyError(PamiqError, RuntimeError):
    """Something was compiled while the system ran, in strict mode.

    A shape, dtype, weak type or sharding changed between two calls of a jitted function.
    """


class UnstorableValueError(PamiqError, TypeError):
    """A value holds something that a checkpoint cannot. Nothing was written.

    Args:
        name: of the part at fault.
        problem: what it is.
        remedy: what to do about it.
    """

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(
            f"{name} {problem}, expected dicts, lists and tuples of arrays, int, float, bool, str and None; {remedy}"
        )


class CheckpointWriteError(PamiqError, OSError):
    """A state could not be saved, or states could not be pruned. The states that were complete still are.

    Its `__cause__` and `errno` are those of the operation that failed.

    Args:
        task: what was being done, and where.
        cause: the operating system's error.
    """

    def __init__(self, task: str, cause: OSError) -> None:
        remedy = WRITE_REMEDIES.get(cause.errno or 0, "see that the disk is in order, and try again")
        super().__init__(f"{task} failed: {cause}; the states saved before are intact; {remedy}")
        self.errno = cause.errno


_FILE_LIES = "a file lies where a directory should be: move it away, or name another directory"
WRITE_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or keep fewer states, and save again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make the directory writable for this user, and save again"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _FILE_LIES),
    errno.EROFS: "name a directory on a disk that can be written to",
}
"""What to do about a failed write, by the operating system's error number."""


class CorruptStateError(PamiqError, OSError):
    """A saved state is damaged: a file of it is missing, or is not what was written.

    Args:
        number: of the state.
        problem: which part of it is damaged, and how.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(
            f"state {number} is damaged: {problem}; read another state, and see `pamiq-jax verify` for which are sound"
        )
        self.number = number
        self.problem = problem


class CheckpointNotFoundError(PamiqError, FileNotFoundError):
    """A directory holds no saved state.

    Args:
        directory: that was looked into.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        what = "holds no saved state" if os.path.exists(directory) else "does not exist"
        super().__init__(
            f"{os.fspath(directory)} {what}, expected `states/<number>` in it; "
            "name the directory that states were saved into"
        )


class RecordingError(PamiqError, OSError):
    """There is no recording where one is wanted, or it is not of this system."""


class UnknownSchemaError(PamiqError, NotImplementedError):
    """A saved state was written in a form that this version of the library does not know.

    Args:
        number: of the state.
        schema: the version of its form.
        known: the newest version that can be read.
    """

    def __init__(self, number: int, schema: object, known: int) -> None:
        super().__init__(
            f"state {number} has schema {schema!r}, expected one up to {known}; it was written by a newer pamiq_jax: "
            "install that one"
        )


class StateMismatchError(PamiqError, ValueError):
    """Stored leaves do not fit the template that they were to be put into. Nothing was changed.

    Args:
        differences: one line each, with the leaf's name; the message has the first eight.
        summary: lines that say the same of whole parts; they come first, and then the remedy before the leaves.
        remedy: what to do.
    """

    _MOST = 8
    _REMEDY = (
        "build the template as it was when the state was saved, map names that changed with rename={stored: "
        "template}, or give partial=True to take what fits and keep the template's leaf elsewhere"
    )

    def __init__(self, differences: Sequence[str], *, summary: Sequence[str] = (), remedy: str = _REMEDY) -> None:
        leaves = list(differences[: self._MOST])
        if (rest := len(differences) - self._MOST) > 0:
            leaves.append(f"and {rest} more")
        title = f"the stored leaves differ from the template in {len(differences)} places:"
        first = "\n  ".join([title, *(summary or leaves)]) + f"\n{remedy}"
        rest_of_it = ".\n" + "\n  ".join(["Leaf by leaf:", *leaves]) if summary else ""
        super().__init__(first + rest_of_it)
        self.differences = tuple(differences)


class DirectoryInUseError(PamiqError, FileExistsError):
    """Another launched system owns this directory."""


class PauseTimeoutError(PamiqError, TimeoutError):
    """A worker did not acknowledge a pause or a resume within the deadline."""


class OwnThreadError(PamiqError, RuntimeError):
    """A command was given to a run by one of the system's own threads, in a hook. Nothing has changed.

    Args:
        command: for example "run.pause".
        thread: the name of the thread.
    """

    def __init__(self, command: str, thread: str) -> None:
        super().__init__(
            f"{command} was called on {thread!r}, one of the system's own threads, which it would wait for; expected "
            f"another one: set an event that your own thread waits for, or start threading.Thread(target={command})"
        )


class QuarantinedError(PamiqError, TimeoutError):
    """What is waited for, or asked for, would be the work of trainers that have ended; it says which and why."""


class WorkerError(PamiqError, RuntimeError):
    """A worker thread ended with an exception; its `__cause__` is that exception.

    Args:
        worker: the thread's name.
        cause: the exception that ended it.
    """

    def __init__(self, worker: str, cause: BaseException) -> None:
        # JAX adds notes of several lines, about tracebacks.
        notes = "".join(f" ({note})" for note in getattr(cause, "__notes__", ()) if "\n" not in note)
        super().__init__(f"worker {worker!r} failed: {type(cause).__name__}: {cause}{notes}")
        self.worker = worker


class ContractError(PamiqError, AssertionError):
    """A trainer, buffer or condition breaks a promise that `pamiq_jax.testing` checks.

    Args:
        function: which of its functions.
        promise: what should hold.
        detail: what was found instead, with the leaf where there is one.

    Example:
        >>> raise ContractError("step", "the state keeps its form", "leaf ['w']: expected float32[2], got float32[3]")
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.ContractError: step: it does not hold that the state keeps its form: leaf ['w']: ...
    """

    def __init__(self, function: str, promise: str, detail: str) -> None:
        super().__init__(f"{function}: it does not hold that {promise}: {detail}")
        self.function = function
        self.promise = promise


class DirectoryHasStatesError(PamiqError, FileExistsError):
    """A new run was given the directory of an earlier one, whose states it would mix with its own."""
