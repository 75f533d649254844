"""Whatever operation on files fails, ends the process or loses power: the states saved before stay readable."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.checkpoint.files import LOCAL_FILES, Files
from pamiq_jax.errors import CheckpointWriteError
from tests.checkpoint.disk import Killed, MemoryDisk, counted, failing_at, files_that, killed_at
from tests.checkpoint.values import assert_same, small_value

DIRECTORY = Path("/runs/states")


def save(files: Files, seed: int, directory: Path = DIRECTORY) -> None:
    StateStore(directory, files, block_bytes=64).write(small_value(seed), facts={"seed": seed}, created_at=seed)


def prune(files: Files, directory: Path = DIRECTORY) -> None:
    StateStore(directory, files).prune(latest_n(1))


def sound_seeds(files: Files, directory: Path = DIRECTORY) -> list[int]:
    """Return the seeds of all states that are there; each of them must be sound."""
    store = StateStore(directory, files)
    assert [report.problems for report in store.verify() if not report.is_sound] == []
    for state in store.states():
        assert_same(store.read(state), small_value(state.facts["seed"]))
    return [state.facts["seed"] for state in store.states()]


def blocks(files: Files, directory: Path = DIRECTORY) -> set[str]:
    groups = [directory / "blocks" / name for name in files.list_directory(directory / "blocks")]
    return {name for group in groups for name in files.list_directory(group)}


def check_a_later_save_works_and_cleans_up(files: Files, directory: Path = DIRECTORY) -> None:
    save(files, 9, directory)
    assert sound_seeds(files, directory)[-1] == 9
    assert files.list_directory(directory / "temporary") == []
    numbers = [state.number for state in StateStore(directory, files).states()]
    assert numbers == sorted(set(numbers))
    prune(files, directory)
    assert sound_seeds(files, directory) == [9]
    assert blocks(files, directory) == blocks(disk_with(9).files())


def number_of_operations(change: Callable[[Files], None], make: Callable[[], Files]) -> int:
    counts: dict[str, int] = {}
    change(counted(counts, make()))
    return sum(counts.values()) - counts.get("bytes", 0)


def disk_with(*seeds: int) -> MemoryDisk:
    disk = MemoryDisk()
    for seed in seeds:
        save(disk.files(), seed)
    return disk


CHANGES: dict[str, tuple[Callable[[Files], None], tuple[int, ...], tuple[list[int], ...]]] = {
    # What is done, what was saved before, and the states that may be there afterwards.
    "a save": (lambda files: save(files, 3), (1, 2), ([1, 2], [1, 2, 3])),
    "the first save": (lambda files: save(files, 3), (), ([], [3])),
    "pruning": (prune, (1, 2, 3), ([1, 2, 3], [2, 3], [3], [1, 3])),
}


def keep_nothing(seed: int) -> Callable[[], bool]:
    return lambda: False


def keep_some(seed: int) -> Callable[[], bool]:
    source = random.Random(seed)
    return lambda: source.random() < 0.5


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("is_kept", [None, keep_nothing, keep_some], ids=["killed", "power lost", "some of it kept"])
def test_a_crash_at_any_operation_leaves_whole_states(name: str, is_kept: Callable[[int], Any] | None) -> None:
    change, seeds, allowed = CHANGES[name]
    total = number_of_operations(change, lambda: disk_with(*seeds).files())
    assert total > 25
    for position in range(total):
        disk = disk_with(*seeds)
        with pytest.raises(Killed):
            change(killed_at(position, disk.files()))
        if is_kept is not None:
            disk.lose_power(is_kept(position))
        assert sound_seeds(disk.files()) in allowed, f"after operation {position} of {total}"
        check_a_later_save_works_and_cleans_up(disk.files())
        disk.lose_power()
        assert sound_seeds(disk.files()) == [9], "what the crash left unsynced was relied on"


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_done_survives_a_power_failure(name: str) -> None:
    change, seeds, allowed = CHANGES[name]
    disk = disk_with(*seeds)
    change(disk.files())
    disk.lose_power()
    assert sound_seeds(disk.files()) == (allowed[-1] if name != "pruning" else [3])


@pytest.mark.parametrize("name", CHANGES)
def test_an_error_of_any_operation_leaves_whole_states(name: str) -> None:
    change, seeds, allowed = CHANGES[name]
    total = number_of_operations(change, lambda: disk_with(*seeds).files())
    for position in range(total):
        for number in (errno.EIO, (errno.ENOSPC, errno.EACCES)[position % 2]):
            disk = disk_with(*seeds)
            failure = None
            try:
                change(failing_at(position, number, disk.files()))
            except CheckpointWriteError as error:
                failure = error
            # A block that cannot be read is written again, which is no failure.
            assert failure is None or failure.errno == number
            assert sound_seeds(disk.files()) in allowed
            check_a_later_save_works_and_cleans_up(disk.files())


def test_a_real_disk_survives_a_kill_at_any_operation(tmp_path: Path) -> None:
    # Syncing matters when power is lost; here it would only take time.
    files = LOCAL_FILES._replace(sync=lambda descriptor: None, sync_directory=lambda path: None)

    def prepared(directory: Path) -> Path:
        save(files, 1, directory)
        return directory

    counts: dict[str, int] = {}
    save(counted(counts, files), 2, prepared(tmp_path / "whole"))
    total = sum(counts.values()) - counts["bytes"]
    for position in range(total):
        directory = prepared(tmp_path / str(position))
        with pytest.raises(Killed):
            save(killed_at(position, files), 2, directory)
        assert sound_seeds(files, directory) in ([1], [1, 2])
        check_a_later_save_works_and_cleans_up(files, directory)


def test_a_disk_that_is_full_is_explained_and_its_space_given_back() -> None:
    disk = disk_with(1)

    def full(name: str, number: int) -> None:
        if name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointWriteError, match=r"saving a state in .* failed: .*No space left.*intact; free some"):
        save(files_that(full, disk.files()), 2)
    assert disk.files().list_directory(DIRECTORY / "temporary") == []
    assert sound_seeds(disk.files()) == [1]


def test_a_failed_save_is_an_os_error_with_its_cause_and_a_remedy() -> None:
    def read_only(name: str, number: int) -> None:
        if name == "create":
            raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(OSError, match="make the directory writable for this user") as caught:
        save(files_that(read_only, disk_with(1).files()), 2)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_one_store_goes_on_after_a_failed_save() -> None:
    disk = disk_with(1)
    state = {"broken": False}

    def act(name: str, number: int) -> None:
        if state["broken"] and name == "sync_directory":
            raise OSError(errno.EIO, "Input/output error")

    store = StateStore(DIRECTORY, files_that(act, disk.files()), block_bytes=64)
    store.write(small_value(2), facts={"seed": 2}, created_at=0)
    state["broken"] = True
    with pytest.raises(CheckpointWriteError, match="see that the disk is in order"):
        store.write(small_value(3), facts={"seed": 3}, created_at=0)
    state["broken"] = False
    store.write(small_value(3), facts={"seed": 3}, created_at=0)
    disk.lose_power()
    assert sound_seeds(disk.files()) == [1, 2, 3]


def test_blocks_of_a_failed_save_may_be_pruned_before_the_next_one() -> None:
    disk = disk_with(1)
    state = {"broken": True}

    def act(name: str, number: int) -> None:
        if state["broken"] and name == "sync_directory" and len(blocks(disk.files())) > 5:
            raise OSError(errno.EIO, "Input/output error")

    store = StateStore(DIRECTORY, files_that(act, disk.files()), block_bytes=64)
    with pytest.raises(CheckpointWriteError, match="Input/output error"):
        store.write(small_value(2), facts={"seed": 2}, created_at=0)
    state["broken"] = False
    assert store.prune(latest_n(1)).freed_bytes > 0
    store.write(small_value(2), facts={"seed": 2}, created_at=0)
    assert sound_seeds(disk.files()) == [1, 2]


def test_names_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    save(LOCAL_FILES, 1, tmp_path)
    for name in ("states/note.txt", "blocks/note.txt", "blocks/ab", "temporary/note.txt"):
        path = tmp_path / name
        if path.suffix:
            path.write_text("mine")
        else:
            path.mkdir(exist_ok=True)
            (path / "note.txt").write_text("mine")
    save(LOCAL_FILES, 2, tmp_path)
    prune(LOCAL_FILES, tmp_path)
    assert sound_seeds(LOCAL_FILES, tmp_path) == [2]
    assert len(list(tmp_path.rglob("note.txt"))) == 4


def test_a_killed_save_leaves_blocks_that_the_next_one_uses(tmp_path: Path) -> None:
    value = {"a": np.arange(100.0)}

    def no_manifest(name: str, number: int) -> None:
        if name == "make_directory" and written["bytes"] >= 800:
            raise Killed

    written: dict[str, int] = {"bytes": 0}
    with pytest.raises(Killed):
        StateStore(tmp_path, files_that(no_manifest, counted(written))).write(value, facts={}, created_at=0)
    assert written["bytes"] == 800
    assert StateStore(tmp_path).write(value, facts={}, created_at=0).written_bytes == 0
