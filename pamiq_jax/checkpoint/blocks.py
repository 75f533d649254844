"""Blocks of bytes that are named by their own checksum, so that equal ones are stored once."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pamiq_jax.checkpoint.files import Files, list_if_there, write_durably

GROUP, NAME = re.compile("[0-9a-f]{2}"), re.compile("[0-9a-f]{64}")


class DamagedBlockError(Exception):
    """A block is missing or not what its name says; the message says which of the two."""


class BlockStore:
    """The blocks of a store of states, `ab/abcd...` by SHA-256.

    Used by one writer at a time. Reading needs no care: a block that has its name is complete.

    Args:
        directory: where they lie.
        temporary: where a block lies until it is complete; on the same file system.
        files: the file operations.
    """

    def __init__(self, directory: Path, temporary: Path, files: Files) -> None:
        self.directory = directory
        self._temporary = temporary
        self._files = files
        # Blocks this object has written or checked, and that a power failure does not take back.
        self._sound: set[str] = set()
        self._unsynced: dict[str, Path] = {}

    def store(self, blocks: Iterable[memoryview]) -> list[tuple[str, int]]:
        """Return the name of each block, and how many bytes had to be written for it, once all survive a power failure.

        A block that an earlier process left is checked before it is relied on, and replaced if damaged.
        """
        self._unsynced = {}  # what a save that failed has put must be looked at again
        stored = [self._put(block) for block in blocks]
        self._sync()
        return stored

    def _put(self, data: memoryview) -> tuple[str, int]:
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        size = self._files.size(path)
        if name in self._unsynced or (name in self._sound and size == len(data)):
            return name, 0
        is_there = size == len(data) and self._is_sound(name)
        if not is_there:
            self._make_group(path.parent)
            write_durably(self._files, self._temporary / name, data)
            self._files.rename(self._temporary / name, path)
        self._unsynced[name] = path.parent
        return name, 0 if is_there else len(data)

    def _sync(self) -> None:
        for group in sorted(set(self._unsynced.values())):
            self._files.sync_directory(group)
        if self._unsynced:  # a group may be new, or left by a writer that crashed
            self._files.sync_directory(self.directory)
        self._sound.update(self._unsynced)
        self._unsynced = {}

    def read(self, name: str, size: int) -> bytes:
        """Return a block's bytes, checked against its name.

        Raises:
            DamagedBlockError: it is missing, cannot be read, or differs.
        """
        try:
            data = self._files.read(self._path(name))
        except FileNotFoundError:
            raise DamagedBlockError(f"block {name} is missing") from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise DamagedBlockError(f"block {name} cannot be read: {error}") from error
        if len(data) != size:
            raise DamagedBlockError(f"block {name} has {len(data)} of {size} bytes")
        if hashlib.sha256(data).hexdigest() != name:
            raise DamagedBlockError(f"block {name} has another checksum than its name")
        return data

    def check(self, sizes: Mapping[str, int]) -> None:
        """Return if blocks are what their names say: they are read, unless this object wrote or checked them before.

        Args:
            sizes: by name.

        Raises:
            DamagedBlockError: as `read`.
        """
        for name, size in sizes.items():
            if name not in self._sound:
                self.read(name, size)
                self._sound.add(name)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each block that is there, by name."""
        found: dict[str, int] = {}
        for group in filter(GROUP.fullmatch, list_if_there(self._files, self.directory)):
            for name in filter(NAME.fullmatch, list_if_there(self._files, self.directory / group)):
                found[name] = self._files.size(self._path(name)) or 0
        return found

    def remove(self, names: Iterable[str]) -> None:
        """Remove blocks that no state refers to."""
        for name in names:
            self._sound.discard(name)
            self._files.remove(self._path(name))

    def _path(self, name: str) -> Path:
        return self.directory / name[:2] / name

    def _make_group(self, group: Path) -> None:
        if self._files.size(group) is None:
            self._files.make_directory(group)

    def _is_sound(self, name: str) -> bool:
        try:
            return hashlib.sha256(self._files.read(self._path(name))).hexdigest() == name
        except OSError:
            return False  # a bad sector: the block is written again, elsewhere


def cut(pieces: Iterable[memoryview], block_bytes: int) -> Iterator[memoryview]:
    """Yield the bytes of all pieces in blocks of equal size, but for the last.

    A block that lies within one piece is a view of it; only one that spans several is copied.

    Example:
        >>> [bytes(block) for block in cut([memoryview(b"abcd"), memoryview(b"ef"), memoryview(b"g")], 3)]
        [b'abc', b'def', b'g']
    """
    waiting: list[memoryview] = []
    space = block_bytes
    for piece in pieces:
        rest = piece
        while rest:
            waiting.append(rest[:space])
            rest = rest[space:]
            space -= len(waiting[-1])
            if space == 0:
                yield _joined(waiting)
                waiting, space = [], block_bytes
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[memoryview]) -> memoryview:
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def cut_sizes(total: int, block_bytes: int) -> list[int]:
    """Return the sizes of the blocks that `cut` makes of so many bytes.

    Example:
        >>> cut_sizes(7, 3)
        [3, 3, 1]
    """
    whole, rest = divmod(total, block_bytes)
    return [block_bytes] * whole + [rest] * (rest > 0)
