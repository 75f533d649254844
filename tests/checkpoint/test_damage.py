"""A byte that flips, or a file that goes, is found and named; what is sound stays readable."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.checkpoint.files import LOCAL_FILES
from pamiq_jax.checkpoint.manifest import _checksum_line  # pyright: ignore[reportPrivateUsage]
from pamiq_jax.errors import (
    CheckpointWriteError,
    CorruptStateError,
    InvalidValueError,
    UnknownNameError,
    UnknownSchemaError,
)
from tests.checkpoint.disk import counted
from tests.checkpoint.values import assert_same, small_value


def store_with(directory: Path, *seeds: int) -> StateStore:
    store = StateStore(directory, block_bytes=64)
    for seed in seeds:
        store.write(small_value(seed), facts={}, created_at=seed)
    return StateStore(directory, block_bytes=64)


def flip(path: Path, position: int = 0, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= bit
    path.write_bytes(data)


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def file_of(store: StateStore, number: int, leaf: str) -> Path:
    manifest = json.loads((store.directory / "states" / f"{number:08d}" / "manifest.json").read_text())
    block = dict(manifest["tree"]["dict"])[leaf]["array"]["blocks"][0]
    return store.directory / "blocks" / block[:2] / block


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage")
    store_with(path, 1)
    return path


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=200)
def test_any_flipped_bit_is_found(directory: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files_of(directory)))
    whole = path.read_bytes()
    try:
        flip(path, data.draw(st.integers(0, len(whole) - 1)), 1 << data.draw(st.integers(0, 7)))
        store = StateStore(directory)
        with pytest.raises(CorruptStateError, match=r"state 1 is damaged: .*checksum.*pamiq-jax verify"):
            store.read(1)
        ((number, _, problems),) = store.verify()
        assert (number, len(problems)) == (1, 1)
        assert path.name in problems[0] or "manifest.json" in problems[0]
    finally:
        path.write_bytes(whole)
    assert StateStore(directory).verify(1)[0].is_sound


@pytest.mark.parametrize("end", ["cut", "removed", "longer"])
def test_any_file_that_is_cut_or_missing_is_found(tmp_path: Path, end: str) -> None:
    store_with(tmp_path, 1)
    for path in files_of(tmp_path):
        whole = path.read_bytes()
        if end == "removed":
            path.unlink()
        else:
            path.write_bytes(whole[:-1] if end == "cut" else whole + b"x")
        store = StateStore(tmp_path)
        with pytest.raises(CorruptStateError, match=r"state 1 is damaged: .*(missing|bytes|checksum)"):
            store.read(1)
        assert not store.verify()[0].is_sound
        path.write_bytes(whole)


def test_damage_names_the_leaves_that_it_hits(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2)
    flip(file_of(store, 2, "trained"))
    first, second = store.verify()
    assert first.is_sound
    assert second.problems[0].startswith("value['trained']: block ")
    with pytest.raises(CorruptStateError, match=r"state 2 is damaged: value\['trained'\]: block \w{64} has another"):
        store.read(2)
    assert_same(store.read(1), small_value(1))


def test_small_arrays_of_one_block_are_told_apart(tmp_path: Path) -> None:
    value = [np.full(1, index, np.int32) for index in range(20)]
    store = StateStore(tmp_path, block_bytes=64)
    store.write(value, facts={}, created_at=0)
    manifest = json.loads((tmp_path / "states" / "00000001" / "manifest.json").read_text())
    second = manifest["packed"][1]
    flip(tmp_path / "blocks" / second[:2] / second)
    (problem,) = store.verify()[0].problems
    assert problem.split(":")[0] == "value[16], value[17], value[18], value[19]"


def test_a_state_without_its_manifest_is_not_listed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2)
    flip(tmp_path / "states" / "00000002" / "manifest.json", 40)
    assert [state.number for state in store.states()] == [1]
    latest = store.latest()
    assert latest is not None
    assert latest.number == 1
    assert store.write(small_value(3), facts={}, created_at=0).number == 3, "no number is given twice"


def test_a_damaged_block_is_written_again_by_a_save_that_needs_it(tmp_path: Path) -> None:
    flip(file_of(store_with(tmp_path, 1), 1, "frozen"))
    assert not StateStore(tmp_path).verify()[0].is_sound
    store = StateStore(tmp_path, block_bytes=64)
    assert store.write(small_value(1), facts={}, created_at=0).written_bytes == 64
    assert all(report.is_sound for report in store.verify()), "the old state is whole again"


def test_a_block_that_vanished_under_a_running_store_is_written_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path, block_bytes=64)
    store.write(small_value(1), facts={}, created_at=0)
    file_of(store, 1, "frozen").unlink()
    store.write(small_value(1), facts={}, created_at=0)
    assert all(report.is_sound for report in store.verify())


def test_an_unknown_number_is_refused(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2)
    for function in (store.read, store.verify):
        with pytest.raises(UnknownNameError, match="no state is named 7; known: 1, 2"):
            function(7)
    wrong: Any = "x"
    with pytest.raises(InvalidValueError, match=r"read\(state\) is 'x', expected an integer"):
        store.read(wrong)
    with pytest.raises(InvalidValueError, match=r"write\(created_at\) is 'x', expected seconds since 1970"):
        store.write(1, facts={}, created_at=wrong)


def test_a_state_that_is_pruned_while_it_is_read_is_unknown_not_damaged(tmp_path: Path) -> None:
    store_with(tmp_path, 1, 2)
    pruner = StateStore(tmp_path)

    def read(path: Path) -> bytes:
        if path.parent.parent.name == "blocks":
            pruner.prune(latest_n(1))
        return path.read_bytes()

    files = LOCAL_FILES._replace(read=read)
    with pytest.raises(UnknownNameError, match="no state is named 1; known: 2"):
        StateStore(tmp_path, files).read(1)
    assert [report.number for report in StateStore(tmp_path, files).verify()] == [2]


def test_a_newer_schema_is_told_from_damage_and_nothing_of_it_is_pruned(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2)
    state = tmp_path / "states" / "00000002"
    document = {**json.loads((state / "manifest.json").read_text()), "schema": 2}
    body = json.dumps(document).encode()
    (state / "manifest.json").write_bytes(body)
    (state / "manifest.json.sha256").write_bytes(_checksum_line(body))
    before = files_of(tmp_path)
    message = "state 2 has schema 2, expected one up to 1; it was written by a newer pamiq_jax"
    for function in (store.states, store.latest, store.verify, lambda: store.read(2), lambda: store.prune(latest_n(1))):
        with pytest.raises(UnknownSchemaError, match=message):
            function()
    assert files_of(tmp_path) == before
    assert_same(store.read(1), small_value(1))


class TestTheLastGoodOne:
    """A block that rots keeps its size: only who reads it can tell."""

    @pytest.mark.parametrize("rotten", [1, 2])
    def test_pruning_never_removes_it(self, tmp_path: Path, rotten: int, caplog: pytest.LogCaptureFixture) -> None:
        store = store_with(tmp_path, 1, 2, 3, 4)
        for number in range(5 - rotten, 5):
            flip(file_of(store, number, "trained"))
        good = 4 - rotten
        report = store.prune(latest_n(1))
        assert (report.kept, report.removed) == ((good,), tuple(range(1, good)))
        assert report.damaged == tuple(range(good + 1, 5))
        assert "state 4 is damaged: block" in caplog.text
        assert_same(store.read(good), small_value(good))

    def test_nothing_is_removed_if_all_are_rotten(self, tmp_path: Path) -> None:
        store = store_with(tmp_path, 1, 2)
        for number in (1, 2):
            flip(file_of(store, number, "trained"))
        report = store.prune(latest_n(1))
        assert (report.removed, report.damaged, len(store.states())) == ((), (2,), 2)

    def test_what_a_store_has_written_is_not_read_again(self, tmp_path: Path) -> None:
        counts: dict[str, int] = {}
        store = StateStore(tmp_path, counted(counts), block_bytes=64)
        for seed in range(3):
            store.write(small_value(seed), facts={}, created_at=seed)
            before = counts.get("read", 0)
            store.prune(latest_n(1))
            assert counts["read"] - before == 2 * min(seed + 1, 2), "manifests with their checksums"
        other = StateStore(tmp_path, counted(counts), block_bytes=64)
        other.write(small_value(7), facts={}, created_at=7)
        before = counts["read"]
        assert other.prune(latest_n(1)).removed == (3,)
        assert counts["read"] - before == 2 * 2, "blocks that were there already were looked at when it was written"

    def test_the_newest_that_can_be_read_is_taken(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = store_with(tmp_path, 1, 2, 3)
        flip(file_of(store, 3, "trained"))
        found = store.read_latest()
        assert found is not None
        assert found[0].number == 2
        assert_same(found[1], small_value(2))
        assert "state 3 is damaged: value['trained']: block" in caplog.text
        assert "taken is state 2" in caplog.text
        for number in (1, 2):
            flip(file_of(store, number, "trained"))
        with pytest.raises(CorruptStateError, match="state 3 is damaged"):
            store.read_latest()
        assert StateStore(tmp_path / "none").read_latest() is None


def failing_reads(part: str, number: int) -> Any:
    def read(path: Path) -> bytes:
        if part in str(path):
            raise OSError(number, "made to fail")
        return path.read_bytes()

    return LOCAL_FILES._replace(read=read)


@pytest.mark.parametrize("part", ["/00000002/manifest.json", "/blocks/"])
def test_a_disk_that_cannot_read_a_file_is_damage(tmp_path: Path, part: str) -> None:
    store_with(tmp_path, 1, 2)
    store = StateStore(tmp_path, failing_reads(part, errno.EIO))
    with pytest.raises(CorruptStateError, match=r"state 2 is damaged: .*cannot be read: .*made to fail"):
        store.read(2)
    assert not store.verify(2)[0].is_sound


def test_a_file_that_may_not_be_read_is_not_damage(tmp_path: Path) -> None:
    store_with(tmp_path, 1, 2)
    store = StateStore(tmp_path, failing_reads("/00000002/manifest.json", errno.EACCES))
    for function in (store.states, store.latest, store.verify):
        with pytest.raises(PermissionError, match="made to fail"):
            function()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_nothing_is_pruned_while_a_manifest_cannot_be_read(tmp_path: Path, number: int) -> None:
    store_with(tmp_path, 1, 2)
    before = files_of(tmp_path)
    with pytest.raises(CheckpointWriteError, match=r"pruning states in .*made to fail"):
        StateStore(tmp_path, failing_reads("/00000001/manifest.json", number)).prune(latest_n(1))
    assert files_of(tmp_path) == before


def test_verifying_reads_each_block_once(tmp_path: Path) -> None:
    store_with(tmp_path, *range(5))
    counts: dict[str, int] = {}
    StateStore(tmp_path, counted(counts)).verify()
    blocks = [path for path in files_of(tmp_path) if path.parent.parent.name == "blocks"]
    assert counts["read"] == 2 * 5 + len(blocks)
