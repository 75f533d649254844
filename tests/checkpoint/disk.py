"""Disks for tests: one in memory that loses power, and operations that fail, count or end the process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pamiq_jax.checkpoint.files import LOCAL_FILES, Files

CHANGES = ("make_directory", "create", "write", "sync", "close", "sync_directory", "rename", "remove")
CHANGES = (*CHANGES, "remove_directory")


class Killed(BaseException):
    """The process ended here. No `except Exception` and no `except OSError` catches it."""


def files_that(act: Callable[[str, int], None], inner: Files = LOCAL_FILES) -> Files:
    """Return file operations before each of which `act(name, number)` is called, numbered from 0."""
    numbers = itertools.count()

    def wrap(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            act(name, next(numbers))
            return operation(*arguments)

        return wrapped

    return Files(*(wrap(name, operation) for name, operation in inner._asdict().items()))


def killed_at(position: int, inner: Files = LOCAL_FILES) -> Files:
    """Return file operations of which number `position` and all later ones are never reached.

    A write that is the first not to be reached is torn: half of it is on the disk.
    """

    def act(name: str, number: int) -> None:
        if number >= position:
            raise Killed(f"operation {number}, {name}")

    files = files_that(act, inner)

    def torn_write(descriptor: int, data: memoryview) -> int:
        try:
            return files.write(descriptor, data)
        except Killed as death:
            if str(death).startswith(f"operation {position},"):
                inner.write(descriptor, data[: len(data) // 2])
            raise

    return files._replace(write=torn_write)


def failing_at(position: int, error: int, inner: Files = LOCAL_FILES) -> Files:
    """Return file operations of which number `position`, and no other, fails."""

    def act(name: str, number: int) -> None:
        if number == position:
            raise OSError(error, f"operation {number}, {name}, was made to fail")

    return files_that(act, inner)


def counted(counts: dict[str, int], inner: Files = LOCAL_FILES) -> Files:
    """Return file operations that add up the bytes written, and count themselves by name."""

    def act(name: str, number: int) -> None:
        counts[name] = counts.get(name, 0) + 1

    files = files_that(act, inner)

    def write(descriptor: int, data: memoryview) -> int:
        counts["bytes"] = counts.get("bytes", 0) + len(data)
        return files.write(descriptor, data)

    return files._replace(write=write)


type Tree = dict[str, Any]
"""Names in a directory: a bytearray for a file, a `Directory` for a directory."""


class Directory:
    """Names as programs see them, and as they will be after a power failure."""

    def __init__(self) -> None:
        self.seen: Tree = {}
        self.durable: Tree = {}


class File:
    """A file's content as programs see it, and as it will be after a power failure."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = b""


class MemoryDisk:
    """A disk whose power can fail. What was synced stays; of the rest nothing need, and anything may."""

    def __init__(self) -> None:
        self.root = Directory()
        self._open: dict[int, File] = {}
        self._descriptors = itertools.count(3)

    def lose_power(self, is_kept: Callable[[], bool] = lambda: False) -> None:
        """Forget what was not synced, unless `is_kept()`, which is asked for each file and each directory."""
        self._open.clear()
        self._forget(self.root, is_kept, set())

    def _forget(self, directory: Directory, is_kept: Callable[[], bool], placed: set[int]) -> None:
        names = directory.seen if is_kept() else directory.durable
        # A rename is in one journal entry: no directory is in two places afterwards.
        directory.seen = {name: node for name, node in names.items() if id(node) not in placed}
        directory.durable = dict(directory.seen)
        for node in directory.seen.values():
            if isinstance(node, Directory):
                placed.add(id(node))
                self._forget(node, is_kept, placed)
            else:
                node.durable = bytes(node.seen if is_kept() else node.durable)
                node.seen = bytearray(node.durable)

    def files(self) -> Files:
        """Return the operations on this disk."""
        return Files(
            make_directory=self._make_directory,
            list_directory=lambda path: list(self._directory(path).seen),
            size=self._size,
            read=lambda path: bytes(self._file(path).seen),
            create=self._create,
            write=self._write,
            sync=self._sync,
            close=lambda descriptor: self._open.__delitem__(descriptor),
            sync_directory=self._sync_directory,
            rename=self._rename,
            remove=lambda path: self._directory(path.parent).seen.__delitem__(path.name),
            remove_directory=self._remove_directory,
        )

    def _find(self, path: Path) -> Any:
        node: Any = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Directory):
                raise NotADirectoryError(20, "a file, not a directory", str(path))
            if part not in node.seen:
                raise FileNotFoundError(2, "no such file", str(path))
            node = node.seen[part]
        return node

    def _directory(self, path: Path) -> Directory:
        node = self._find(path)
        if not isinstance(node, Directory):
            raise NotADirectoryError(20, "a file, not a directory", str(path))
        return node

    def _file(self, path: Path) -> File:
        node = self._find(path)
        assert isinstance(node, File), path
        return node

    def _size(self, path: Path) -> int | None:
        try:
            node = self._find(path)
        except FileNotFoundError:
            return None
        return 0 if isinstance(node, Directory) else len(node.seen)

    def _make_directory(self, path: Path) -> None:
        names = self._directory(path.parent).seen
        if path.name in names:
            raise FileExistsError(17, "exists", str(path))
        names[path.name] = Directory()

    def _create(self, path: Path) -> int:
        names = self._directory(path.parent).seen
        if path.name in names:
            raise FileExistsError(17, "exists", str(path))
        descriptor = next(self._descriptors)
        names[path.name] = self._open[descriptor] = File()
        return descriptor

    def _write(self, descriptor: int, data: memoryview) -> int:
        taken = max(1, len(data) - 7)  # short, as the operating system may be
        self._open[descriptor].seen += data[:taken]
        return taken

    def _sync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        file.durable = bytes(file.seen)

    def _sync_directory(self, path: Path) -> None:
        directory = self._directory(path)
        directory.durable = dict(directory.seen)

    def _rename(self, old: Path, new: Path) -> None:
        node = self._directory(old.parent).seen.pop(old.name)
        names = self._directory(new.parent).seen
        assert not isinstance(node, Directory) or new.name not in names, f"{new} is a directory already"
        names[new.name] = node

    def _remove_directory(self, path: Path) -> None:
        assert not self._directory(path).seen, f"{path} is not empty"
        del self._directory(path.parent).seen[path.name]
