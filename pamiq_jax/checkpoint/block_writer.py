"""The process that writes a running system's blocks: a `BlockStore` that is asked through a pipe.

A request is a line of JSON, `[operation, argument, seconds of rest before each file]`; a reply is one too. After the
line of "store" comes each block, a line with its bytes and its rest before it, and a line that says -1. The first reply
comes unasked: the process has started. It ends when nobody can ask any more. Neither JAX nor numpy is imported.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pamiq_jax.checkpoint.blocks import BlockStore, DamagedBlockError
from pamiq_jax.checkpoint.files import LOCAL_FILES, Files, before_each_file

NICENESS = 10
"""So little of a core is asked for while others want it; and yet a last save before the end of a process gets on."""

END_OF_BLOCKS = -1


def whole_line(pipe: BinaryIO) -> bytes:
    """Return the next line, or nothing at the end of a pipe, whose last line may be torn."""
    line = pipe.readline()
    return line if line.endswith(b"\n") else b""


class Server:
    """Answers requests until there are no more.

    Args:
        directory: where the blocks lie.
        temporary: where a block lies until it is complete.
        requests: is read from.
        replies: is written to.
        files: the file operations.
    """

    def __init__(
        self, directory: Path, temporary: Path, requests: BinaryIO, replies: BinaryIO, files: Files = LOCAL_FILES
    ) -> None:
        self._requests, self._replies, self._rest_seconds = requests, replies, 0.0
        self._blocks = BlockStore(directory, temporary, self._resting(files))

    def serve(self) -> None:
        """Say that the process has started, then answer what comes."""
        self._reply({"value": None})
        while line := whole_line(self._requests):
            operation, argument, self._rest_seconds = json.loads(line)
            self._reply(self._answer(operation, argument))

    def _answer(self, operation: str, argument: Any) -> dict[str, Any]:
        blocks = self._read_blocks() if operation == "store" else iter(())
        try:
            if operation == "store":
                return {"value": self._blocks.store(blocks)}
            return {"value": getattr(self._blocks, operation)(*argument)}
        except DamagedBlockError as error:
            return {"damaged": str(error)}
        except OSError as error:
            collections.deque(blocks, maxlen=0)  # those that come nevertheless
            return {"error": [error.errno or errno.EIO, error.strerror or str(error), error.filename]}

    def _read_blocks(self) -> Iterator[memoryview]:
        space = bytearray()
        while True:
            size, self._rest_seconds = json.loads(whole_line(self._requests) or sys.exit(0))
            if size == END_OF_BLOCKS:
                return
            if size > len(space):
                space = bytearray(size)
            block = memoryview(space)[:size]
            self._fill(block)
            yield block

    def _fill(self, block: memoryview) -> None:
        while block:
            count = cast(Any, self._requests).readinto(block)
            if not count:
                sys.exit(0)  # who asked has died
            block = block[count:]

    def _reply(self, reply: dict[str, Any]) -> None:
        self._replies.write(json.dumps(reply).encode() + b"\n")
        self._replies.flush()

    def _resting(self, files: Files) -> Files:
        """Return file operations that rest before each file, and are not done for somebody who has died.

        A process that resumes the run may rely on blocks that an orphan would remove.
        """
        parent = os.getppid()

        def rest() -> None:
            if self._rest_seconds:
                time.sleep(self._rest_seconds)
            if os.getppid() != parent:  # on Windows it stays the same, and the pipe's end is noticed later
                os._exit(0)

        return before_each_file(files, rest)


def main() -> None:
    """Serve standard input and output, for the directories that the arguments name."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they are for the system, which may want to save a last time
        with contextlib.suppress(AttributeError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    directory, temporary = map(Path, sys.argv[1:3])
    with contextlib.suppress(BrokenPipeError, SystemExit):
        Server(directory, temporary, sys.stdin.buffer, sys.stdout.buffer).serve()
    os._exit(0)  # without another try to send a reply that nobody waits for
