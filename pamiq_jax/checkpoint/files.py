"""The file operations that a store of states uses, each of them replaceable."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Files(NamedTuple):
    """Every operation on files that a `StateStore` makes.

    A store touches the disk through these functions alone, so a test can make any of them fail, count what is written
    or end the process between two of them: `LOCAL_FILES._replace(write=...)`. Each raises OSError when it fails.

    Attributes:
        make_directory: makes one directory whose parent exists.
        list_directory: the names in a directory, in any order.
        size: bytes of a file; None where there is no such file. For a directory: any number.
        read: a whole file.
        create: opens a new file for writing and returns its descriptor; fails where the file exists.
        write: writes the front of the bytes to a descriptor and returns how many of them.
        sync: returns once a descriptor's content would survive a power failure.
        close: closes a descriptor.
        sync_directory: returns once the names in a directory would survive a power failure.
        rename: renames a file or a directory in one step, over an existing file too.
        remove: removes a file.
        remove_directory: removes an empty directory.
    """

    make_directory: Callable[[Path], None]
    list_directory: Callable[[Path], list[str]]
    size: Callable[[Path], int | None]
    read: Callable[[Path], bytes]
    create: Callable[[Path], int]
    write: Callable[[int, memoryview], int]
    sync: Callable[[int], None]
    close: Callable[[int], None]
    sync_directory: Callable[[Path], None]
    rename: Callable[[Path, Path], None]
    remove: Callable[[Path], None]
    remove_directory: Callable[[Path], None]


def write_durably(files: Files, path: Path, data: memoryview) -> None:
    """Write a new file that a power failure does not take back; its name needs `sync_directory` besides."""
    descriptor = files.create(path)
    try:
        while data:
            data = data[files.write(descriptor, data) :]
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def before_each_file(files: Files, act: Callable[[], object]) -> Files:
    """Return file operations that do something before each file that is made or removed."""

    def create(path: Path) -> int:
        act()
        return files.create(path)

    def remove(path: Path) -> None:
        act()
        files.remove(path)

    return files._replace(create=create, remove=remove)


def make_missing(files: Files, directory: Path) -> bool:
    """Make a directory and the parents it lacks, and return whether there was anything to make."""
    if files.size(directory) is not None:
        return False
    make_missing(files, directory.parent)
    files.make_directory(directory)
    return True


def sync_with_parents(files: Files, directory: Path) -> None:
    """Return once the directory, and all above it that may be opened, would survive a power failure."""
    files.sync_directory(directory)
    with contextlib.suppress(PermissionError):  # whoever may not read it has not made it
        for parent in directory.parents:
            files.sync_directory(parent)


def list_if_there(files: Files, directory: Path) -> list[str]:
    """Return the sorted names in a directory, none if it does not exist."""
    try:
        return sorted(files.list_directory(directory))
    except FileNotFoundError:
        return []


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no directories, and keeps names by itself
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system, as some over networks, that has no such operation
            raise
    finally:
        os.close(descriptor)


LOCAL_FILES = Files(
    make_directory=Path.mkdir,
    list_directory=os.listdir,
    size=_size,
    read=Path.read_bytes,
    create=_create,
    write=os.write,
    sync=os.fsync,
    close=os.close,
    sync_directory=_sync_directory,
    rename=os.replace,
    remove=os.remove,
    remove_directory=os.rmdir,
)
"""The operating system's own."""
