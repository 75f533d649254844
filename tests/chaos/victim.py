"""The process that is killed: a live system that saves as often as it can, and says so after each save.

It prints one JSON object a line. Before each operation on files it notes in a shared file which one; it can also be
told to stand still before the n-th operation of one kind, until it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateInfo
from pamiq_jax.checkpoint.files import LOCAL_FILES, Files
from tests.chaos.systems import busy_system, saving_with

OPERATIONS = Files._fields
IDLE = 0
PATIENCE = 120.0


def say(**what: Any) -> None:
    """Write a line that whoever reads the pipe has at once, and at a kill has whole or not at all."""
    os.write(1, (json.dumps(what) + "\n").encode())


def marked_files(mark: mmap.mmap, counts: Counter[str], before: Callable[[str, tuple[Any, ...]], None]) -> Files:
    """Return file operations that note in `mark[0]` which of them is under way, 0 for none.

    Args:
        mark: shared with whoever kills.
        counts: counts the operations that change something.
        before: called before each, with its name and its arguments.
    """

    def wrap(number: int, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            mark[0] = number
            try:
                before(name, arguments)
                counts[name] += 1
                return operation(*arguments)
            finally:
                mark[0] = IDLE

        return wrapped

    pairs = enumerate(LOCAL_FILES._asdict().items(), start=1)
    return Files(*(wrap(number, name, operation) for number, (name, operation) in pairs))


class StandStill:
    """Stops the calling thread for good before one operation; a write is done by half first.

    Args:
        kind: of operation.
        number: which one of that kind, from 1, counted from `arm` on.
    """

    def __init__(self, kind: str | None, number: int) -> None:
        self._kind, self._left = kind, number
        self._is_armed = False

    def arm(self) -> None:
        """Begin to count."""
        self._is_armed = True

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_armed or name != self._kind:
            return
        self._left -= 1
        if self._left == 0:
            if name == "write":
                descriptor, data = arguments
                os.write(descriptor, data[: len(data) // 2])
            say(at=name)
            os.read(0, 1)  # nothing ever comes: at the end of the input its owner has died
            os._exit(3)


def described(info: StateInfo | None) -> dict[str, Any] | None:
    """Return what is said of a state that is safe."""
    return None if info is None else {"number": info.number, **info.facts}


def main() -> None:
    """Resume, then save until killed, or a number of times."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.victim", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("mark", type=Path)
    parser.add_argument("--saves", type=int, default=10**9)
    parser.add_argument("--kind", choices=OPERATIONS)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--writer", action="store_true")
    arguments = parser.parse_args()
    stand_still = StandStill(arguments.kind, arguments.number)
    with arguments.mark.open("r+b") as file, mmap.mmap(file.fileno(), 1) as mark:
        files = marked_files(mark, Counter(), stand_still)
        with contextlib.nullcontext() if arguments.writer else saving_with(files):
            run = pj.launch(busy_system(), directory=arguments.directory, resume=True)
        with run:
            run.wait_until_ready(PATIENCE)
            restored = run.restored
            say(ready=described(None if restored is None else restored.state), version=run.snapshot.version)
            stand_still.arm()
            for _ in range(arguments.saves):
                say(saved=described(run.save(PATIENCE)))


if __name__ == "__main__":
    main()
