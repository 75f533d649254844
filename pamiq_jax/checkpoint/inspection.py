"""What a directory of states holds, in words."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pamiq_jax.checkpoint.directory import StateDirectory
from pamiq_jax.checkpoint.files import LOCAL_FILES
from pamiq_jax.checkpoint.manifest import Manifest
from pamiq_jax.checkpoint.values import Json, iterate_leaves
from pamiq_jax.checkpoint.verification import verify_states
from pamiq_jax.errors import CheckpointNotFoundError, CorruptStateError, UnknownNameError

MANY_LEAVES = 40
"""A state of more leaves is shown by groups, unless all are asked for."""


def describe_states(directory: str | Path, *, state: int | None = None, all_leaves: bool = False) -> str:
    """Return in words which states a directory holds, and what is in one of them.

    Args:
        directory: of a `StateStore`.
        state: the number of the state to look into; the newest by default.
        all_leaves: a line for every leaf, however many there are.

    Raises:
        CheckpointNotFoundError: there is no state.
        UnknownNameError: there is no state of this number.
        CorruptStateError: the manifest of the state is damaged, or all are; of others a line says so.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pamiq_jax.checkpoint import StateStore
        >>> store = StateStore(tempfile.mkdtemp())
        >>> info = store.write({"w": np.ones((2, 3)), "n": 7}, facts={"steps": 100}, created_at=1.7e9)
        >>> print(describe_states(store.directory))
        1 state, 48 B in blocks
        state  created (UTC)        total  only there
            1  2023-11-14 22:13:20   48 B        48 B
        <BLANKLINE>
        state 1
          steps: 100
        2 leaves, 48 B
          ['w']  float64[2,3]  48 B
          ['n']  int              7
    """
    files = _existing(directory)
    manifests = list(files.manifests())
    newest = manifests[-1].info.number if manifests else files.numbers()[-1]
    chosen = files.manifest(newest if state is None else state)
    lines = [*_table_of_states(manifests), *_damaged(files, manifests), "", f"state {chosen.info.number}"]
    lines += [f"  {name}: {value}" for name, value in _flat_facts(chosen.info.facts)]
    return "\n".join([*lines, *_leaves(chosen, all_leaves)])


def describe_soundness(directory: str | Path) -> tuple[bool, str]:
    """Return whether all states of a directory are sound, and a line for each of them; all bytes are read.

    Raises:
        CheckpointNotFoundError: there is no state.

    Example:
        >>> import tempfile
        >>> from pamiq_jax.checkpoint import StateStore
        >>> store = StateStore(tempfile.mkdtemp())
        >>> info = store.write([1, 2], facts={}, created_at=0.0)
        >>> describe_soundness(store.directory)
        (True, 'state 1: sound, 0 B')
    """
    reports = verify_states(_existing(directory), None)
    lines = [
        f"state {report.number}: " + (f"damaged: {'; '.join(report.problems)}" if report.problems else "sound")
        + (f", {rounded(report.bytes)}" if report.is_sound else "")
        for report in reports
    ]  # fmt: skip
    return all(report.is_sound for report in reports), "\n".join(lines)


def rounded(number: int) -> str:
    """Return bytes in the largest decimal unit of which there is one at least.

    Example:
        >>> rounded(999), rounded(1_250_000)
        ('999 B', '1.2 MB')
    """
    units = ("kB", "MB", "GB", "TB")
    power = min((len(str(number)) - 1) // 3, len(units))
    return f"{number} B" if power == 0 else f"{number / 1000**power:.1f} {units[power - 1]}"


def _existing(directory: str | Path) -> StateDirectory:
    files = StateDirectory(Path(directory), LOCAL_FILES)
    if not files.numbers():
        raise CheckpointNotFoundError(directory)
    return files


def _table_of_states(manifests: list[Manifest]) -> list[str]:
    blocks = [manifest.block_sizes() for manifest in manifests]
    users = Counter(block for sizes in blocks for block in sizes)
    stored = sum({block: size for sizes in blocks for block, size in sizes.items()}.values())
    rows = [("state", "created (UTC)", "total", "only there")]
    for manifest, sizes in zip(manifests, blocks, strict=True):
        alone = sum(size for block, size in sizes.items() if users[block] == 1)
        info = manifest.info
        rows.append((str(info.number), _moment(info.created_at), rounded(info.bytes), rounded(alone)))
    title = f"{len(manifests)} state{'s' * (len(manifests) != 1)}, {rounded(stored)} in blocks"
    return [title, *_columns(rows, "><>>")]


def _damaged(files: StateDirectory, manifests: list[Manifest]) -> list[str]:
    """Return a line for each state whose manifest cannot be read, so that it is in no table."""
    lines: list[str] = []
    for number in sorted(set(files.numbers()) - {manifest.info.number for manifest in manifests}):
        try:
            files.manifest(number)
        except CorruptStateError as error:
            lines.append(f"state {number} is damaged: {error.problem}")
        except UnknownNameError:
            pass  # pruned meanwhile
    return lines


def _moment(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _flat_facts(facts: Json, name: str = "") -> Iterable[tuple[str, Json]]:
    if not isinstance(facts, Mapping) or not facts:
        return [(name, facts)] if name else []
    parts: list[tuple[str, Any]] = [(f"{name}.{key}" if name else key, part) for key, part in facts.items()]
    return [row for key, part in parts for row in _flat_facts(part, key)]


def _leaves(manifest: Manifest, all_leaves: bool) -> list[str]:
    rows = [_leaf_row(name, leaf) for name, leaf in iterate_leaves(manifest.tree)]
    title = f"{len(rows)} {'leaf' if len(rows) == 1 else 'leaves'}, {rounded(manifest.info.bytes)}"
    if len(rows) <= MANY_LEAVES or all_leaves:
        return [title, *(f"  {line}" for line in _columns([(name, form, size) for name, form, size, _ in rows], "<<>"))]
    groups: dict[str, list[int]] = {}
    for name, _, _, size in rows:
        groups.setdefault(_group(name), []).append(size)
    table = [(name, f"{len(sizes)} leaves", rounded(sum(sizes))) for name, sizes in groups.items()]
    return [f"{title}, in groups; --all shows each", *(f"  {line}" for line in _columns(table, "<>>"))]


def _leaf_row(name: str, leaf: Any) -> tuple[str, str, str, int]:
    shown = name or "the value itself"
    if not isinstance(leaf, dict):
        value = repr(leaf)
        return shown, type(leaf).__name__, value if len(value) <= 20 else value[:17] + "...", 0
    shape = ",".join(map(str, leaf["shape"][:-1] if "key" in leaf else leaf["shape"]))
    dtype = f"key<{leaf['key']}>" if "key" in leaf else leaf["dtype"]
    return shown, f"{dtype}[{shape}]", rounded(leaf["bytes"]), leaf["bytes"]


def _group(name: str) -> str:
    """Return the first two parts of a name."""
    parts = name.replace("][", "]\0[").replace("].", "]\0.").split("\0")
    return "".join(parts[:2])


def _columns(rows: list[tuple[str, ...]], alignments: str) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(alignments))] if rows else []
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, alignments, widths, strict=True)).rstrip()
        for row in rows
    ]
