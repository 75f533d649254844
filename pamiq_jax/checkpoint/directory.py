"""How the files of a directory of states lie, and how a change of them ends."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from pathlib import Path

from pamiq_jax.checkpoint.blocks import NAME, BlockStore, DamagedBlockError
from pamiq_jax.checkpoint.files import Files, list_if_there, make_missing, sync_with_parents
from pamiq_jax.checkpoint.manifest import Manifest, read_manifest, write_manifest
from pamiq_jax.errors import CheckpointWriteError, CorruptStateError, UnknownNameError

NUMBER = re.compile("[0-9]{8,}")


def block_places(path: Path) -> tuple[Path, Path]:
    """Return where the blocks of a directory of states lie, and where they lie until they are complete."""
    return path / "blocks", path / "temporary"


class StateDirectory:
    """The files of a `StateStore`.

    `states/<number>/` holds a manifest and its checksum, `blocks/ab/<sha256>` the bytes, `temporary/` what is not
    complete yet or not needed any more.

    Args:
        path: the directory.
        files: the file operations.
        blocks: who reads and writes the blocks of this directory; by default with these file operations.
    """

    def __init__(self, path: Path, files: Files, blocks: BlockStore | None = None) -> None:
        self.path = path
        self.blocks = BlockStore(*block_places(path), files) if blocks is None else blocks
        self._files = files
        self._states = path / "states"
        self._temporary = path / "temporary"
        self._is_durable = False

    def numbers(self) -> list[int]:
        """Return the numbers of all states, damaged ones too, in ascending order."""
        return sorted(int(name) for name in filter(NUMBER.fullmatch, list_if_there(self._files, self._states)))

    def manifest(self, number: int) -> Manifest:
        """Return the manifest of a state.

        Raises:
            UnknownNameError: there is no such state.
            CorruptStateError: its manifest is damaged.
        """
        try:
            return read_manifest(self._files, self._place(number), number)
        except CorruptStateError as error:
            self.check_exists(number, error)
            raise

    def manifests(self) -> Iterator[Manifest]:
        """Yield the manifest of each complete state, oldest first."""
        for number in self.numbers():
            with contextlib.suppress(CorruptStateError, UnknownNameError):  # damaged, or pruned just now
                yield self.manifest(number)

    def check_exists(self, number: int, cause: Exception | None = None) -> None:
        """Raise UnknownNameError if there is no state of this number, for example because it was pruned meanwhile."""
        if self._files.size(self._place(number)) is None:
            raise UnknownNameError("state", number, self.numbers(), str(self.path)) from cause

    def read_block(self, number: int, part: str, name: str, size: int) -> bytes:
        """Return a block of a state.

        Raises:
            CorruptStateError: naming the part of the state that the block belongs to.
            UnknownNameError: the state was pruned meanwhile.
        """
        try:
            return self.blocks.read(name, size)
        except DamagedBlockError as error:
            self.check_exists(number, error)
            raise CorruptStateError(number, f"{part}: {error}") from error

    @contextlib.contextmanager
    def changing(self, task: str) -> Generator[None]:
        """Remove what a crash left, let the caller change files, and clean up and explain if that fails."""
        try:
            self._make_directories()
            self._clear_temporary()
            yield
        except OSError as error:
            with contextlib.suppress(OSError):  # the next change does it, if it cannot be done now
                self._clear_temporary()
            raise CheckpointWriteError(f"{task} in {self.path}", error) from error

    def add(self, manifest: Manifest) -> None:
        """Make a state visible, in one step, whose blocks are all in place."""
        name = _name(manifest.info.number)
        write_manifest(self._files, self._temporary / name, manifest)
        self._files.rename(self._temporary / name, self._states / name)
        self._files.sync_directory(self._states)

    def remove(self, numbers: list[int]) -> None:
        """Make states invisible, each in one step; when this returns their blocks may go."""
        for number in numbers:
            self._files.rename(self._place(number), self._temporary / _name(number))
        if numbers:
            # Else a power failure could bring a state back whose blocks are gone.
            self._files.sync_directory(self._states)
            self._clear_temporary()

    def _make_directories(self) -> None:
        places = (self._states, self._temporary, self.blocks.directory)
        made = [make_missing(self._files, place) for place in places]
        if any(made) or not self._is_durable:  # an earlier process may have been killed just after it made them
            sync_with_parents(self._files, self.path)
            self._is_durable = True

    def _clear_temporary(self) -> None:
        for name in list_if_there(self._files, self._temporary):
            path = self._temporary / name
            if NAME.fullmatch(name):
                self._files.remove(path)
            elif NUMBER.fullmatch(name):
                for file in self._files.list_directory(path):
                    self._files.remove(path / file)
                self._files.remove_directory(path)

    def _place(self, number: int) -> Path:
        return self._states / _name(number)


def _name(number: int) -> str:
    return f"{number:08d}"
