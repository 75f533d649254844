"""Blocks that another process writes are the same ones, and its death costs one save."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamiq_jax.checkpoint import StateStore, block_process, latest_n
from pamiq_jax.checkpoint.block_process import BlockProcess
from pamiq_jax.checkpoint.block_writer import END_OF_BLOCKS, Server
from pamiq_jax.checkpoint.blocks import DamagedBlockError
from pamiq_jax.checkpoint.directory import block_places
from pamiq_jax.checkpoint.files import LOCAL_FILES, Files
from pamiq_jax.errors import CheckpointWriteError
from tests.checkpoint.disk import Killed, failing_at

PATIENCE = 60.0

OWNER = """
import itertools, sys
from pathlib import Path
import numpy as np
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.checkpoint.block_process import BlockProcess
from pamiq_jax.checkpoint.directory import block_places
from pamiq_jax.checkpoint.files import LOCAL_FILES

place, task = Path(sys.argv[1]), sys.argv[2]
blocks = BlockProcess(*block_places(place), LOCAL_FILES)
store = StateStore(place, blocks=blocks, block_bytes=1024)
for seed in range(2):
    store.write(np.arange(9000.0) + seed, facts={}, created_at=0.0)
calls = itertools.count()

def rest():
    if next(calls) == 3:
        print("ready", flush=True)
    return 0.005

blocks._rest_seconds = rest
if task == "store":
    store.write(np.arange(90000.0), facts={}, created_at=0.0)
elif task == "prune":
    store.prune(latest_n(1))
else:
    print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def store_with_process(directory: Path) -> Iterator[tuple[StateStore, BlockProcess]]:
    blocks = BlockProcess(*block_places(directory), LOCAL_FILES)
    try:
        yield StateStore(directory, blocks=blocks, block_bytes=1024), blocks
    finally:
        blocks.close()


def process_of(blocks: BlockProcess) -> subprocess.Popen[bytes]:
    assert blocks._process is not None
    return blocks._process


def value(seed: int) -> dict[str, Any]:
    """Small arrays, large ones that share blocks with nothing, an empty one, and one that stays the same."""
    source = np.random.default_rng(seed)
    return {
        "large": source.standard_normal(1000),
        "small": [source.standard_normal(3), np.zeros(0), seed],
        "same": np.arange(500),
    }


def files_in(directory: Path) -> dict[str, bytes]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def test_the_files_are_those_that_one_process_writes(tmp_path: Path) -> None:
    ours, other = StateStore(tmp_path / "ours", block_bytes=1024), tmp_path / "other"
    with store_with_process(other) as (theirs, blocks):
        for seed in (1, 2, 3):
            assert theirs.write(value(seed), facts={}, created_at=0.0) == ours.write(
                value(seed), facts={}, created_at=0.0
            )
        assert files_in(other) == files_in(ours.directory)
        process = process_of(blocks)
        assert process.poll() is None, "it has written nothing"
        if sys.platform != "win32":
            process.terminate()  # whoever ends all processes means the system, which may want to save a last time
        assert theirs.prune(latest_n(2)) == ours.prune(latest_n(2))
    assert files_in(other) == files_in(ours.directory)
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_its_death_while_it_waits_is_logged_and_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with store_with_process(tmp_path) as (store, blocks):
        store.write(value(1), facts={}, created_at=0.0)
        first = process_of(blocks)
        first.kill()
        first.wait(PATIENCE)
        store.write(value(2), facts={}, created_at=0.0)
        assert process_of(blocks).pid != first.pid
    assert "the process that writes states has ended with exit code -9; another is started" in caplog.text
    assert [report.is_sound for report in store.verify()] == [True, True]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_its_death_in_a_save_fails_the_save_and_no_other(tmp_path: Path) -> None:
    with store_with_process(tmp_path) as (store, blocks):
        store.write(value(1), facts={}, created_at=0.0)
        before = files_in(tmp_path)
        blocks._rest_seconds = lambda: process_of(blocks).kill() or 0.0  # type: ignore[func-returns-value]
        with pytest.raises(CheckpointWriteError, match="exit code -9; the states saved before are intact"):
            store.write(value(2), facts={}, created_at=0.0)
        assert {name: data for name, data in files_in(tmp_path).items() if name in before} == before
        blocks._rest_seconds = lambda: 0.0
        assert store.write(value(3), facts={}, created_at=0.0).number == 2
        assert list((tmp_path / "temporary").iterdir()) == []
    assert [report.is_sound for report in store.verify()] == [True, True]


def test_an_error_in_it_is_raised_here(tmp_path: Path) -> None:
    with store_with_process(tmp_path) as (store, blocks):
        store.write(value(1), facts={}, created_at=0.0)
        name = next(iter(blocks.sizes()))
        with pytest.raises(FileNotFoundError, match="No such file or directory") as raised:
            blocks.remove([name, name])
        assert (raised.value.errno, Path(raised.value.filename).name) == (errno.ENOENT, name)
        with pytest.raises(DamagedBlockError, match=f"block {name} is missing"):
            blocks.check({name: 1})
        (tmp_path / "blocks").rename(tmp_path / "elsewhere")
        (tmp_path / "blocks").write_text("a file")
        with pytest.raises(CheckpointWriteError, match="a file lies where a directory should be") as failed:
            store.write(value(2), facts={}, created_at=0.0)
        assert failed.value.errno == errno.ENOTDIR
        (tmp_path / "blocks").unlink()
        assert store.write(value(3), facts={}, created_at=0.0).number == 2
        assert process_of(blocks).poll() is None


def answers(directory: Path, requests: bytes, files: Files = LOCAL_FILES) -> list[Any]:
    """What the other process would answer."""
    for place in block_places(directory):
        place.mkdir(parents=True, exist_ok=True)
    replies = io.BytesIO()
    Server(*block_places(directory), io.BytesIO(requests), replies, files).serve()
    return [json.loads(line) for line in replies.getvalue().splitlines()]


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_full_disk_is_told_when_all_blocks_have_come_and_the_next_request_is_understood(
    position: int, tmp_path: Path
) -> None:
    blocks = b"".join(b"[3, 0.0]\n" + data for data in (b"abc", b"def", b"ghi"))
    store = b'["store", [], 0.0]\n' + blocks + f"[{END_OF_BLOCKS}, 0.0]\n".encode()
    full = failing_at(position, errno.ENOSPC)
    started, failed, stored, sizes = answers(tmp_path, store + store + b'["sizes", [], 0.0]\n', full)
    assert (started, failed["error"][0]) == ({"value": None}, errno.ENOSPC)
    assert sizes["value"] == {name: 3 for name, _ in stored["value"]}
    assert len(sizes["value"]) == 3


@pytest.mark.parametrize("length", [5, 19, 24, 28, 30])
def test_a_request_that_ends_in_the_middle_ends_it(length: int, tmp_path: Path) -> None:
    torn = b'["store", [], 0.0]\n[3, 0.0]\nabc'[:length]
    with pytest.raises(SystemExit) if length > 18 else contextlib.nullcontext():
        assert answers(tmp_path, torn) == [{"value": None}]
    assert files_in(tmp_path) == {}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("task", ["wait", "store", "prune"])
def test_it_ends_with_the_process_that_it_writes_for(task: str, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), task],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    owner.kill()
    _, told = owner.communicate(timeout=PATIENCE)  # until nobody can write there any more
    assert told == b""
    assert all(report.is_sound for report in StateStore(tmp_path).verify())


def test_nothing_is_removed_for_somebody_who_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Killed(f"exit code {code}")

    monkeypatch.setattr(os, "_exit", end)
    parents = iter([1, 1, 2])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    store = b'["store", [], 0.0]\n[3, 0.0]\nabc[-1, 0.0]\n'
    name = hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(Killed, match="exit code 0"):
        answers(tmp_path, store + f'["remove", [["{name}"]], 0.0]\n'.encode())
    assert (tmp_path / "blocks" / name[:2] / name).read_bytes() == b"abc"


def test_where_none_can_be_started_this_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with store_with_process(tmp_path) as (store, _):
        for seed in (1, 2):
            store.write(value(seed), facts={}, created_at=0.0)
        store.prune(latest_n(1))
    assert [report.is_sound for report in store.verify()] == [True]
    assert caplog.text.count("no process writes states") == 1


def test_one_that_does_not_begin_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(block_process, "_START", "raise SystemExit(3)")
    with store_with_process(tmp_path) as (store, _):
        assert store.write(value(1), facts={}, created_at=0.0).number == 1
    assert "has ended with exit code 3, before it answered; a thread of this one does" in caplog.text


@pytest.mark.parametrize("path", [None, ""])
def test_an_interpreter_that_does_not_know_where_it_lies_writes_by_itself(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", path)
    blocks = BlockProcess(*block_places(tmp_path), LOCAL_FILES)
    assert blocks._process is None
    assert StateStore(tmp_path, blocks=blocks).write(np.arange(3.0), facts={}, created_at=0.0).written_bytes == 24
