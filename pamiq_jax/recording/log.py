"""A file that only grows: one value after the other, each with its length and its checksum in front.

The file begins with `MAGIC`. An entry is `<u32 bytes><u32 crc32>` and as many bytes: `<u32 bytes of JSON>`, the value
as JSON (see `checkpoint.values`), and the arrays that the JSON refers to. What a killed process has not written whole
is recognized by its length or its checksum. Nothing in a log is executed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from pamiq_jax.checkpoint.values import Entry, array_from, decode, encode
from pamiq_jax.errors import RecordingError

MAGIC = b"pamiqlog\x01\x00\x00\x00"
"""Eight letters and the form of the file."""

_HEAD, _LENGTH = struct.Struct("<II"), struct.Struct("<I")


class LogWriter:
    """Appends values to a new file. Used by one thread.

    What is appended has been handed to the operating system, so it survives the end of the process; `sync` makes it
    survive a power failure.

    Args:
        path: a file that does not exist.

    Raises:
        OSError: the file exists, or cannot be made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log"
        >>> log = LogWriter(path)
        >>> size = log.append({"actions": np.arange(3)})
        >>> log.close()
        >>> list(read_log(path))
        [{'actions': array([0, 1, 2])}]
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._write(MAGIC)

    def append(self, value: Any) -> int:
        """Write a value, and return how many bytes that took.

        Args:
            value: dicts, lists, tuples, plain values and arrays, as `StateStore.write` takes them.

        Raises:
            OSError: it could not be written whole; the log ends before it.
            UnstorableValueError: it holds something else.
        """
        tree, arrays = encode(value)
        position = 0
        for array in arrays:
            array.entry["at"] = position
            position += len(array.data)
        text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
        body = [_LENGTH.pack(len(text)), text, *(array.data for array in arrays)]
        checksum, size = 0, 0
        for part in body:
            checksum, size = zlib.crc32(part, checksum), size + len(part)
        self._write(b"".join([_HEAD.pack(size, checksum), *body]))
        return _HEAD.size + size

    def sync(self) -> None:
        """Return once what was appended would survive a power failure."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def read_log(path: Path) -> Generator[Any, None, str]:
    """Yield the values of a log, oldest first, up to its end or up to where it is cut off or damaged.

    Args:
        path: the file; it may still be growing.

    Returns:
        As the generator's value: "" if the file ends with a whole entry, else what is wrong and at which byte.

    Raises:
        RecordingError: it is no log, or one of another form.
        OSError: it cannot be read.

    Example:
        See `LogWriter`.
    """
    with path.open("rb") as file:
        if (magic := file.read(len(MAGIC))) != MAGIC:
            if MAGIC.startswith(magic):
                return "cut off at byte 0"
            raise RecordingError(
                f"{path} begins with {magic!r}, expected {MAGIC!r}; it is no log, or a newer pamiq_jax wrote it"
            )
        while head := file.read(_HEAD.size):
            position = file.tell() - len(head)
            if len(head) < _HEAD.size:
                return f"cut off at byte {position:,}"
            size, checksum = _HEAD.unpack(head)
            body = file.read(size)
            if size == 0 or len(body) < size:  # no entry is empty: a power failure leaves zeros at the end of a file
                return f"cut off at byte {position:,}"
            if zlib.crc32(body) != checksum:
                return f"damaged at byte {position:,}"
            yield _value_of(body)
    return ""


def _value_of(body: bytes) -> Any:
    (length,) = _LENGTH.unpack_from(body)
    text, arrays = body[_LENGTH.size : _LENGTH.size + length], np.frombuffer(body, np.uint8)[_LENGTH.size + length :]

    def load(name: str, entry: Entry) -> Any:
        return array_from(entry, arrays[entry["at"] : entry["at"] + entry["bytes"]].copy())

    return decode(json.loads(text), load)
