"""A directory of states: each is written whole or not at all, and only what is new in it is written."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from pamiq_jax.arguments import checked_integer
from pamiq_jax.checkpoint.blocks import BlockStore, cut, cut_sizes
from pamiq_jax.checkpoint.directory import StateDirectory
from pamiq_jax.checkpoint.files import LOCAL_FILES, Files
from pamiq_jax.checkpoint.manifest import Manifest, StateInfo, checked_facts, checked_moment
from pamiq_jax.checkpoint.pruning import PruneReport, prune_states
from pamiq_jax.checkpoint.retention import Retention
from pamiq_jax.checkpoint.values import Entry, HostArray, Json, array_entries, array_from, decode, encode
from pamiq_jax.checkpoint.verification import StateReport, verify_states
from pamiq_jax.errors import CorruptStateError, InvalidValueError, UnknownNameError

_LOGGER = logging.getLogger("pamiq_jax")

BLOCK_BYTES = 2**20
"""Large enough for a disk to be quick with it, small enough that a few changed rows of a buffer cost little."""

SMALL_FRACTION = 16
"""An array of at most such a fraction of a block shares its blocks with other small ones."""


class StateStore:
    """A directory of saved states, of which each is complete or not there.

    In it are `states/<number>/manifest.json` with its checksum, a directory for each state; `blocks/ab/<sha256>`, the
    bytes of all states in blocks of 1 MiB or less, equal ones once; `temporary/`, what is not complete yet.

    A store has no lock and starts no thread: one thread of one process writes and prunes a directory, so that no block
    is pruned that a state under way needs. Others may read meanwhile.

    Args:
        directory: made by the first write.
        files: the file operations; a test replaces some.
        block_bytes: the size of the blocks that are written; those of other sizes are read too, but not shared.
        blocks: who reads and writes the blocks; by default this process, with `files`.
        give_way: called again and again by `write`, so that other threads need not wait for all of it.

    Example:
        >>> import tempfile
        >>> store = StateStore(tempfile.mkdtemp())
        >>> info = store.write({"weights": np.ones(3), "steps": 7}, facts={"version": 2}, created_at=1.5e9)
        >>> info.number, info.bytes, store.latest().facts
        (1, 24, {'version': 2})
        >>> store.read(info)
        {'weights': array([1., 1., 1.]), 'steps': 7}
    """

    def __init__(
        self,
        directory: str | Path,
        files: Files = LOCAL_FILES,
        *,
        block_bytes: SupportsIndex = BLOCK_BYTES,
        blocks: BlockStore | None = None,
        give_way: Callable[[], object] = lambda: None,
    ) -> None:
        self._give_way = give_way
        self._directory = StateDirectory(Path(directory), files, blocks)
        self._block_bytes = checked_integer("StateStore(block_bytes)", block_bytes, least=SMALL_FRACTION)

    @property
    def directory(self) -> Path:
        """Where the states are."""
        return self._directory.path

    def write(self, value: object, *, facts: Mapping[str, Json], created_at: float) -> StateInfo:
        """Save a value as a new state and return what is known of it; from then on it survives a power failure.

        Blocks that are stored already are not written again. What a crash of an earlier writer left is removed.
        The arrays must not change meanwhile: where they lie in the host's memory they are not copied.

        Args:
            value: dicts with str or int keys, lists and tuples of arrays of numpy or JAX (typed keys too), int, float,
                bool, str and None. For other trees see `named_leaves`.
            facts: what to note beside it, as JSON. `best` reads numbers in `facts["metrics"]`.
            created_at: now, in seconds since 1970.

        Raises:
            UnstorableValueError: naming what cannot be stored; nothing was written.
            CheckpointWriteError: an operation on files failed; the earlier states are as they were.

        Example:
            >>> import tempfile
            >>> store = StateStore(tempfile.mkdtemp())
            >>> weights = np.arange(1e6)
            >>> store.write(weights, facts={}, created_at=0.0).written_bytes
            8000000
            >>> weights[3] = 7
            >>> store.write(weights, facts={}, created_at=1.0).written_bytes
            1048576
        """
        noted, moment = checked_facts(facts), checked_moment(created_at)
        tree, arrays = encode(value, self._give_way)
        with self._directory.changing("saving a state"):
            packed_bytes, packed, written = self._write_arrays(arrays)
            number = max(self._directory.numbers(), default=0) + 1
            total = sum(entry["bytes"] for entry in array_entries(tree))
            info = StateInfo(number, moment, noted, total, written)
            self._directory.add(Manifest(info, tree, packed_bytes, packed, self._block_bytes))
        return info

    def _write_arrays(self, arrays: list[HostArray]) -> tuple[int, list[str], int]:
        """Return the length of all small arrays, their blocks, and the bytes written."""
        length = 0
        small_bytes = self._block_bytes // SMALL_FRACTION
        small = [array for array in arrays if len(array.data) <= small_bytes]
        for array in small:
            array.entry["packed_at"] = length
            length += len(array.data)
        large = [array for array in arrays if len(array.data) > small_bytes]
        parts = [small, *([array] for array in large)]  # no block spans two of them
        stored = self._directory.blocks.store(
            block for part in parts for block in cut((array.data for array in part), self._block_bytes)
        )
        names = iter([name for name, _ in stored])
        packed = list(itertools.islice(names, len(cut_sizes(length, self._block_bytes))))
        for array in large:
            array.entry["blocks"] = list(itertools.islice(names, len(cut_sizes(len(array.data), self._block_bytes))))
        return length, packed, sum(written for _, written in stored)

    def states(self) -> tuple[StateInfo, ...]:
        """Return what is known of each complete state, oldest first; only manifests are read.

        A state whose manifest is damaged is left out; `verify` names it.

        Raises:
            UnknownSchemaError: a newer version of the library has written here.

        Example:
            >>> import tempfile
            >>> StateStore(tempfile.mkdtemp()).states()
            ()
        """
        return tuple(manifest.info for manifest in self._directory.manifests())

    def latest(self) -> StateInfo | None:
        """Return the newest state whose manifest is sound, or None if there is none. Damaged newer ones are logged.

        Its blocks are not read, so one of them may still be damaged: `read_latest` takes the newest that can be read.

        Raises:
            CorruptStateError: there are states, and all are damaged: to begin anew would look as if nothing were lost.

        Example:
            >>> import tempfile
            >>> print(StateStore(tempfile.mkdtemp()).latest())
            None
        """
        return self._newest(lambda number: self._directory.manifest(number).info, "the newest with a sound manifest")

    def read_latest(self) -> tuple[StateInfo, Any] | None:
        """Return the newest state that can be read, and its value; None if there is none. Damaged ones are logged.

        Raises:
            CorruptStateError: there are states, and all are damaged: to begin anew would look as if nothing were lost.
            UnknownSchemaError: a newer version of the library wrote the newest.

        Example:
            >>> import tempfile
            >>> store = StateStore(tempfile.mkdtemp())
            >>> info = store.write([1, 2.5], facts={}, created_at=0.0)
            >>> newest, value = store.read_latest()
            >>> newest.number, value
            (1, [1, 2.5])
        """
        return self._newest(lambda number: (self._directory.manifest(number).info, self.read(number)), "taken")

    def _newest[T](self, get: Callable[[int], T], what: str) -> T | None:
        damaged: list[CorruptStateError] = []
        for number in reversed(self._directory.numbers()):
            try:
                found = get(number)
            except CorruptStateError as error:
                damaged.append(error)
                continue
            except UnknownNameError:  # pruned just now
                continue
            for error in damaged:
                _LOGGER.error("state %d is damaged: %s; %s is state %d", error.number, error.problem, what, number)
            return found
        if damaged:
            raise damaged[0]
        return None

    def read(self, state: StateInfo | int) -> Any:
        """Return the value of a state, every block of it checked.

        Arrays come back as numpy arrays with memory of their own, typed keys as JAX's on the default device.

        Args:
            state: the state, or its number.

        Raises:
            CorruptStateError: naming what is missing or differs.
            UnknownNameError: there is no state of this number.
            InvalidValueError: it is no number.

        Example:
            >>> import tempfile
            >>> store = StateStore(tempfile.mkdtemp())
            >>> store.read(store.write(("a", [1, 2.5, None]), facts={}, created_at=0.0))
            ('a', [1, 2.5, None])
        """
        number = state.number if isinstance(state, StateInfo) else checked_integer("read(state)", state, least=0)
        manifest = self._directory.manifest(number)
        packed = self._read_blocks(manifest, "small arrays", manifest.packed, manifest.packed_bytes)

        def load(name: str, entry: Entry) -> Any:
            if "blocks" in entry:
                data = self._read_blocks(manifest, f"value{name}", entry["blocks"], entry["bytes"])
            else:
                data = packed[entry["packed_at"] :][: entry["bytes"]].copy()
            return array_from(entry, data)

        return decode(manifest.tree, load)

    def _read_blocks(self, manifest: Manifest, part: str, names: list[str], total: int) -> np.ndarray[Any, Any]:
        data = np.empty(total, np.uint8)
        start = 0
        for name, size in zip(names, cut_sizes(total, manifest.block_bytes), strict=True):
            block = self._directory.read_block(manifest.info.number, part, name, size)
            data[start : start + size] = np.frombuffer(block, np.uint8)
            start += size
        return data

    def verify(self, number: int | None = None) -> tuple[StateReport, ...]:
        """Return for each state, oldest first, what is damaged in it; all its bytes are read.

        Args:
            number: of the one state to look at; all by default.

        Raises:
            UnknownNameError: there is no state of this number.

        Example:
            >>> import tempfile
            >>> store = StateStore(tempfile.mkdtemp())
            >>> info = store.write(np.ones(3), facts={}, created_at=0.0)
            >>> store.verify()
            (StateReport(number=1, bytes=24, problems=()),)
        """
        return verify_states(self._directory, number)

    def prune(self, keep: Retention) -> PruneReport:
        """Remove the states that a policy does not keep, and the blocks that no state needs any more.

        The newest sound state always stays: before anything is removed all of it is read, unless this store has written
        it. A state that is found to be damaged is neither counted nor removed.

        Args:
            keep: `latest_n`, `every_nth`, `best`, or several joined with `|`.

        Raises:
            InvalidValueError: `keep` is no retention.
            CheckpointWriteError: an operation on files failed; the states to be kept are as they were.
            UnknownSchemaError: a newer version of the library has written here. Nothing was removed.

        Example:
            >>> import tempfile
            >>> from pamiq_jax.checkpoint import every_nth, latest_n
            >>> store = StateStore(tempfile.mkdtemp())
            >>> for step in range(25):
            ...     info = store.write(np.full(3, step), facts={"step": step}, created_at=step)
            >>> report = store.prune(latest_n(2) | every_nth(10))
            >>> report.kept, len(report.removed)
            ((10, 20, 24, 25), 21)
        """
        if not isinstance(keep, Retention):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidValueError("prune(keep)", keep, "a retention", "write latest_n(3), for example")
        with self._directory.changing("pruning states"):
            return prune_states(self._directory, keep)
