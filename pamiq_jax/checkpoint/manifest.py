"""The manifest of a state: what it holds and in which blocks, and the checksum of all that."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from pamiq_jax.checkpoint.blocks import cut_sizes
from pamiq_jax.checkpoint.files import Files, write_durably
from pamiq_jax.checkpoint.values import Entry, Json, array_entries, iterate_leaves
from pamiq_jax.errors import CorruptStateError, InvalidValueError, UnknownSchemaError, UnstorableValueError

SCHEMA = 1
MANIFEST, CHECKSUM = "manifest.json", "manifest.json.sha256"


class StateInfo(NamedTuple):
    """What is known of a saved state without reading it.

    Attributes:
        number: counts the states of a directory; it only grows.
        created_at: when it was saved, in seconds since 1970 (UTC), as whoever saved it said.
        facts: what whoever saved it noted, as JSON.
        bytes: what its arrays hold, each as often as it occurs in the value.
        written_bytes: what had to be written for it; the rest was there already.
    """

    number: int
    created_at: float
    facts: Mapping[str, Json]
    bytes: int
    written_bytes: int


class Manifest(NamedTuple):
    """All that is stored of a state beside its blocks.

    Attributes:
        info: what is public of it.
        tree: the value, as `encode` returns it; each entry has its `blocks` or its place `packed_at`.
        packed_bytes: the length of all small arrays, one after the other.
        packed: the blocks of these.
        block_bytes: the size of each block but an array's last one.
    """

    info: StateInfo
    tree: Json
    packed_bytes: int
    packed: list[str]
    block_bytes: int

    def arrays(self) -> Iterator[tuple[str, Entry]]:
        """Yield name and entry of each array, as often as it occurs in the value."""
        return ((name, leaf) for name, leaf in iterate_leaves(self.tree) if isinstance(leaf, dict))

    def block_sizes(self) -> dict[str, int]:
        """Return the sizes of all blocks that the state refers to, by name."""
        sizes = dict(zip(self.packed, cut_sizes(self.packed_bytes, self.block_bytes), strict=True))
        for entry in array_entries(self.tree):
            if "blocks" in entry:
                sizes |= zip(entry["blocks"], cut_sizes(entry["bytes"], self.block_bytes), strict=True)
        return sizes


def write_manifest(files: Files, directory: Path, manifest: Manifest) -> None:
    """Write a manifest and its checksum into a new directory; `sha256sum -c` can check it too."""
    document = {"schema": SCHEMA, **manifest.info._asdict()}
    document |= {name: value for name, value in manifest._asdict().items() if name != "info"}
    body = json.dumps(document, separators=(",", ":")).encode()
    files.make_directory(directory)
    write_durably(files, directory / MANIFEST, memoryview(body))
    write_durably(files, directory / CHECKSUM, memoryview(_checksum_line(body)))
    files.sync_directory(directory)


def read_manifest(files: Files, directory: Path, number: int) -> Manifest:
    """Return the manifest in a state's directory.

    Raises:
        CorruptStateError: it is not what was written.
        UnknownSchemaError: a newer version of the library wrote it.
        OSError: it may not be read, which says nothing about what it is.
    """
    try:
        body, checksum = (files.read(directory / name) for name in (MANIFEST, CHECKSUM))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptStateError(number, f"{Path(error.filename or MANIFEST).name} is missing") from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise CorruptStateError(number, f"{MANIFEST} cannot be read: {error}") from error
    if _checksum_line(body) != checksum:
        raise CorruptStateError(number, f"{MANIFEST} has another checksum than {CHECKSUM} says")
    document = cast(dict[str, Any], json.loads(body))
    if document.pop("schema") != SCHEMA:
        raise UnknownSchemaError(number, json.loads(body)["schema"], SCHEMA)
    info = StateInfo(**{name: document.pop(name) for name in StateInfo._fields})
    return Manifest(info, **document)


def _checksum_line(body: bytes) -> bytes:
    return f"{hashlib.sha256(body).hexdigest()}  {MANIFEST}\n".encode()


def checked_facts(facts: Any, name: str = "facts") -> Json:
    """Return facts as they will come back, or raise UnstorableValueError if JSON cannot hold them."""
    if facts is None or type(facts) in (bool, int, float, str):
        return facts
    if isinstance(facts, list | tuple):
        parts = cast(list[Any], facts)
        return [checked_facts(part, f"{name}[{index}]") for index, part in enumerate(parts)]
    if isinstance(facts, Mapping) and all(type(key) is str for key in cast(Mapping[Any, Any], facts)):
        return {key: checked_facts(part, f"{name}[{key!r}]") for key, part in cast(Mapping[str, Any], facts).items()}
    raise UnstorableValueError(name, f"is {facts!r}", "facts are JSON: write float(x) for a scalar, str keys in a dict")


def checked_moment(created_at: float) -> float:
    """Return seconds since 1970 as a float, or raise InvalidValueError."""
    given: Any = created_at  # users may not type
    if isinstance(given, bool) or not isinstance(given, int | float | np.number) or not math.isfinite(given):
        raise InvalidValueError("write(created_at)", created_at, "seconds since 1970", "give time.time()")
    return float(created_at)
