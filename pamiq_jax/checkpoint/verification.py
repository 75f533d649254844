"""Is what lies on the disk what was written?"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from pamiq_jax.checkpoint.blocks import DamagedBlockError
from pamiq_jax.checkpoint.directory import StateDirectory
from pamiq_jax.checkpoint.manifest import Manifest
from pamiq_jax.errors import CorruptStateError, UnknownNameError


class StateReport(NamedTuple):
    """What was found out about a state by reading all of it.

    Attributes:
        number: of the state.
        bytes: what its arrays hold; 0 if that cannot be told.
        problems: what is damaged, a line each; none if the state is sound.
    """

    number: int
    bytes: int
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether the state can be read."""
        return not self.problems


def verify_states(directory: StateDirectory, number: int | None) -> tuple[StateReport, ...]:
    """Return a report on one state, or on all of them; a block that several need is read once."""
    verdicts: dict[tuple[str, int], str | None] = {}
    if number is not None:
        return (_verify(directory, number, verdicts),)
    reports: list[StateReport] = []
    for each in directory.numbers():
        with contextlib.suppress(UnknownNameError):  # pruned meanwhile
            reports.append(_verify(directory, each, verdicts))
    return tuple(reports)


def _verify(directory: StateDirectory, number: int, verdicts: dict[tuple[str, int], str | None]) -> StateReport:
    try:
        manifest = directory.manifest(number)
    except CorruptStateError as error:
        return StateReport(number, 0, (error.problem,))
    problems: list[str] = []
    for block, size in manifest.block_sizes().items():
        if (block, size) not in verdicts:
            verdicts[block, size] = _verdict(directory, block, size)
        verdict = verdicts[block, size]
        if verdict is not None:
            directory.check_exists(number)
            problems.append(f"{', '.join(_users(manifest, block))}: {verdict}")
    return StateReport(number, manifest.info.bytes, tuple(problems))


def _verdict(directory: StateDirectory, block: str, size: int) -> str | None:
    try:
        directory.blocks.read(block, size)
    except DamagedBlockError as error:
        return str(error)
    return None


def _users(manifest: Manifest, block: str) -> list[str]:
    """Return the names of the arrays that lie in a block."""
    start = end = 0
    if block in manifest.packed:
        start = manifest.packed.index(block) * manifest.block_bytes
        end = start + manifest.block_bytes
    return [
        f"value{name}"
        for name, entry in manifest.arrays()
        if block in entry.get("blocks", ())
        or ("packed_at" in entry and entry["packed_at"] < end and entry["packed_at"] + entry["bytes"] > start)
    ]
