"""Remove states, then the blocks that nothing refers to any more."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from pamiq_jax.checkpoint.directory import StateDirectory
from pamiq_jax.checkpoint.manifest import Manifest
from pamiq_jax.checkpoint.retention import Retention
from pamiq_jax.errors import CorruptStateError


class PruneReport(NamedTuple):
    """What pruning did.

    Attributes:
        kept: the numbers of the sound states that are left.
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

    A state counts as sound if its manifest is and its blocks are there in full length; what is in them is not read.
    """
    present = directory.blocks.sizes()
    manifests = list(_manifests(directory))
    sound = [each.info for each in manifests if each.block_sizes().items() <= present.items()]
    wanted = {info.number for info in (*keep(sound), *sound[-1:])}
    kept = [info.number for info in sound if info.number in wanted]
    removed = [info.number for info in sound if info.number not in wanted]
    directory.remove(removed)
    needed = {block for each in manifests if each.info.number not in removed for block in each.block_sizes()}
    unneeded = sorted(present.keys() - needed)
    directory.blocks.remove(unneeded)
    return PruneReport(
        kept=tuple(kept),
        removed=tuple(removed),
        damaged=tuple(number for number in directory.numbers() if number not in kept),
        freed_bytes=sum(present[block] for block in unneeded),
    )


def _manifests(directory: StateDirectory) -> Iterator[Manifest]:
    for number in directory.numbers():
        try:
            yield directory.manifest(number)
        except CorruptStateError as error:
            # Where the disk fails, as it may for a moment only, nobody knows which blocks the state needs.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                raise error.__cause__ from error
