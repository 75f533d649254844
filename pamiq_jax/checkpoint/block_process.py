"""Blocks that a process of their own writes, so that neither the interpreter nor a core is taken from who acts."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast, override

from pamiq_jax.checkpoint import block_writer
from pamiq_jax.checkpoint.block_writer import END_OF_BLOCKS, whole_line
from pamiq_jax.checkpoint.blocks import BlockStore, DamagedBlockError
from pamiq_jax.checkpoint.files import Files
from pamiq_jax.checkpoint.forks import forget, leave_to_parent

_LOGGER = logging.getLogger("pamiq_jax")
_REMOVED_AT_ONCE = 20  # between them it can be hurried
_PATIENCE_SECONDS = 60.0
_PIPE_BYTES = 2**20
_START = """
import sys
sys.path.append(sys.argv.pop())
from pamiq_jax.checkpoint.block_writer import main
main()
"""


class BlockProcess(BlockStore):
    """A `BlockStore` whose files are written, checked and removed by another process; reading is done here.

    The process is started when this is made. It ends with `close`, and by itself when this one dies. Whatever request
    it dies in fails, and the next one starts another. Where none can be started, which is logged, all is done here.

    Args:
        directory: where the blocks lie.
        temporary: where a block lies until it is complete.
        files: the file operations of this process.
        rest_seconds: so long the other process rests before each file; asked again and again.
    """

    def __init__(
        self,
        directory: Path,
        temporary: Path,
        files: Files,
        *,
        rest_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(directory, temporary, files)
        self._places = [str(directory.absolute()), str(temporary.absolute())]
        self._rest_seconds = rest_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._has_answered = self._is_hopeless = False
        self._start()

    @override
    def store(self, blocks: Iterable[memoryview]) -> list[tuple[str, int]]:
        if not self._is_there():
            return super().store(blocks)
        return [(name, written) for name, written in self._ask("store", blocks=blocks)]

    @override
    def check(self, sizes: Mapping[str, int]) -> None:
        return self._ask("check", dict(sizes)) if self._is_there() else super().check(sizes)

    @override
    def sizes(self) -> dict[str, int]:
        return self._ask("sizes") if self._is_there() else super().sizes()

    @override
    def remove(self, names: Iterable[str]) -> None:
        if not self._is_there():
            return super().remove(names)
        left = list(names)
        for start in range(0, len(left), _REMOVED_AT_ONCE):
            self._ask("remove", left[start : start + _REMOVED_AT_ONCE])
        return None

    def close(self) -> None:
        """End the process, after which all is done here."""
        self._is_hopeless = True
        if self._process is not None:
            self._end(self._process)

    def _start(self) -> None:
        package = Path(block_writer.__file__).parents[1]
        command = [sys.executable, "-I", "-S", "-c", _START, *self._places, str(package.parent)]
        self._has_answered = False
        try:
            if getattr(sys, "frozen", False) or not sys.executable:
                raise OSError("there is no interpreter that could be started")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # what is pressed in a terminal is for the system
                creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
            )
        except (OSError, ValueError) as error:
            self._give_up(str(error))
        else:
            leave_to_parent(*_pipes(self._process))
            _widen(self._process)

    def _is_there(self) -> bool:
        """Return whether there is a process that answers; a new one is started for one that has ended."""
        if self._process is not None and self._has_answered and self._process.poll() is not None:
            _LOGGER.warning("%s; another is started", self._end(self._process))
        if self._process is None and not self._is_hopeless:
            self._start()
        if self._process is not None and not self._has_answered:
            self._has_answered = bool(_line(self._process))
            if not self._has_answered:
                self._give_up(f"{self._end(self._process)}, before it answered")
        return self._process is not None

    def _give_up(self, why: str) -> None:
        _LOGGER.warning("no process writes states: %s; a thread of this one does", why)
        self._is_hopeless = True

    def _ask(self, operation: str, *argument: Any, blocks: Iterable[memoryview] = ()) -> Any:
        process = self._process
        assert process is not None, "somebody has looked"
        try:
            _send(process, [operation, argument, self._rest_seconds()])
            if operation == "store":
                for block in blocks:
                    _send(process, [len(block), self._rest_seconds()], block)
                _send(process, [END_OF_BLOCKS, 0.0])
            line = _line(process)
            if not line:
                raise BrokenPipeError
        except BrokenPipeError:
            raise ChildProcessError(self._end(process)) from None
        except BaseException:  # it may be in the middle of a block
            self._end(process)
            raise
        return _value(json.loads(line))

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Return, once a process writes nothing more, how it has ended: with the last request, or killed."""
        self._process = None
        forget(*_pipes(process))
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # the rest of a request finds nobody
                cast(BinaryIO, pipe).close()
        try:
            code = process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(_PATIENCE_SECONDS)
        return f"the process that writes states has ended with exit code {code}"


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    return cast(BinaryIO, process.stdin).fileno(), cast(BinaryIO, process.stdout).fileno()


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Let a block go into the pipe at once, where that is possible: who sends it waits once, not for each 64 KiB."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux, within a user's limits
        import fcntl

        fcntl.fcntl(cast(BinaryIO, process.stdin), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _send(process: subprocess.Popen[bytes], message: list[Any], data: memoryview | None = None) -> None:
    requests = cast(BinaryIO, process.stdin)
    requests.write(json.dumps(message).encode() + b"\n")
    if data is not None:
        requests.write(data)
    requests.flush()


def _line(process: subprocess.Popen[bytes]) -> bytes:
    return whole_line(cast(BinaryIO, process.stdout))


def _value(reply: dict[str, Any]) -> Any:
    if "damaged" in reply:
        raise DamagedBlockError(reply["damaged"])
    if "error" in reply:
        raise OSError(*reply["error"])
    return reply["value"]
