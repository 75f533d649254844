"""Remove states, then the blocks that nothing refers to any more."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pamiq_jax.checkpoint.blocks import DamagedBlockError
from pamiq_jax.checkpoint.directory import StateDirectory
from pamiq_jax.checkpoint.manifest import Manifest, StateInfo
from pamiq_jax.errors import CorruptStateError

if TYPE_CHECKING:
    from pamiq_jax.checkpoint.retention import Retention

_LOGGER = logging.getLogger("pamiq_jax")


class PruneReport(NamedTuple):
    """What pruning did.

    Attributes:
        kept: the numbers of the states that are left and sound, as far as was looked; of the newest all was.
        removed: the numbers of the states that were removed.
        damaged: the numbers of the states that are left but cannot be read.
        freed_bytes: the bytes of the blocks that were removed.
    """

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    damaged: tuple[int, ...]
    freed_bytes: int


def prune_states(directory: StateDirectory, keep: Retention) -> PruneReport:
    """Remove the sound states that are not kept, but never the newest of them, and sweep the blocks.

    A state counts as sound if its manifest is and its blocks are there in full length. Before any is removed, all of
    the newest is looked at too; of what this process has written or looked at before, nothing is read again.
    """
    present = directory.blocks.sizes()
    states = [(manifest.info, manifest.block_sizes()) for manifest in _manifests(directory)]
    sound = [(info, sizes) for info, sizes in states if sizes.items() <= present.items()]
    kept, removed = _parted(sound, keep)
    while removed and not _is_whole(directory, *sound[-1]):
        del sound[-1]
        kept, removed = _parted(sound, keep)
    directory.remove(removed)
    needed = {block for info, sizes in states if info.number not in removed for block in sizes}
    unneeded = sorted(present.keys() - needed)
    directory.blocks.remove(unneeded)
    return PruneReport(
        kept=tuple(kept),
        removed=tuple(removed),
        damaged=tuple(number for number in directory.numbers() if number not in kept),
        freed_bytes=sum(present[block] for block in unneeded),
    )


def _parted(sound: list[tuple[StateInfo, dict[str, int]]], keep: Retention) -> tuple[list[int], list[int]]:
    infos = [info for info, _ in sound]
    wanted = {info.number for info in (*keep(infos), *infos[-1:])}
    numbers = [info.number for info in infos]
    return [number for number in numbers if number in wanted], [number for number in numbers if number not in wanted]


def _is_whole(directory: StateDirectory, info: StateInfo, block_sizes: dict[str, int]) -> bool:
    try:
        directory.blocks.check(block_sizes)
    except DamagedBlockError as error:
        _LOGGER.error("state %d is damaged: %s; it does not count, so an older one stays", info.number, error)
        return False
    return True


def _manifests(directory: StateDirectory) -> Iterator[Manifest]:
    for number in directory.numbers():
        try:
            yield directory.manifest(number)
        except CorruptStateError as error:
            # Where the disk fails, as it may for a moment only, nobody knows which blocks the state needs.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                raise error.__cause__ from error
