"""Metrics on their way to a file: what a full disk or a kill does to them."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pamiq_jax.runtime.rows import ChunkMetrics, MetricRow, MetricRows
from tests.runtime.fakes import PATIENCE


def row(step: int) -> MetricRow:
    return MetricRow("fit", 0.5, step, None, {})


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


class LimitedFile:
    """A file on a disk that takes so many bytes more."""

    def __init__(self, file: Any) -> None:
        self._file, self.free, self.writes = file, 10**9, 0

    def __enter__(self) -> LimitedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self.writes += 1
        if not self.free:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._file.write(data[: self.free])
        self.free -= written
        return written


class LimitedPath:
    """A path whose file is a `LimitedFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.file: LimitedFile | None = None

    def open(self, *arguments: Any, **options: Any) -> LimitedFile:
        self.file = LimitedFile(self._path.open(*arguments, **options))
        return self.file


def test_rows_are_written_again_once_the_disk_has_space(tmp_path: Path) -> None:
    path, errors, passed = LimitedPath(tmp_path / "metrics.jsonl"), list[Exception](), threading.Semaphore(0)
    limited: Any = path
    rows = MetricRows(limited, lambda row: passed.release(), errors.append, gather_seconds=0.0)

    def put(*steps: int) -> None:
        for step in steps:
            rows.put(row(step), ChunkMetrics({"loss": 1.0}))
            assert passed.acquire(timeout=PATIENCE)

    put(1)
    assert path.file is not None
    for free, step in ((30, 2), (0, 5)):  # a row goes in by half, then none at all
        path.file.free = free
        put(step, step + 1)
        path.file.free = 10**9
        put(step + 2)
    assert rows.close(PATIENCE)
    assert steps_in(tmp_path / "metrics.jsonl") == [1, 4, 7]
    assert rows.dropped == 4
    assert [getattr(error, "errno", None) for error in errors] == [28, 28]  # once an episode


@pytest.mark.parametrize("torn", ["", '{"step": 2, "tra'])
def test_a_line_that_a_kill_has_torn_is_taken_away(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + torn)
    rows = MetricRows(path, None, _fail)
    rows.put(row(3), ChunkMetrics({}))
    assert rows.close(PATIENCE)
    assert steps_in(path) == [1, 3]


def _fail(error: Exception) -> None:
    raise error


def test_a_slow_reader_loses_the_oldest_rows_and_they_are_counted() -> None:
    go, stands, seen = threading.Event(), threading.Event(), list[int]()

    def on_metrics(row: MetricRow) -> None:
        stands.set()
        assert go.wait(PATIENCE)
        seen.append(row.step)

    rows = MetricRows(None, on_metrics, _fail, capacity=3)
    rows.put(row(0), ChunkMetrics({}))
    assert stands.wait(PATIENCE)
    for step in range(1, 8):
        rows.put(row(step), ChunkMetrics({}))
    assert rows.dropped == 4
    go.set()
    assert rows.close(PATIENCE)
    assert seen == [0, 5, 6, 7]


class Counted:
    """A metric that counts how often it was fetched."""

    def __init__(self) -> None:
        self.fetched = 0

    def __float__(self) -> float:
        self.fetched += 1
        return 0.5


def test_one_fetch_serves_the_file_and_the_recording(tmp_path: Path) -> None:
    metric, seen = Counted(), list[MetricRow]()
    metrics = ChunkMetrics({"loss": metric})
    rows = MetricRows(tmp_path / "metrics.jsonl", seen.append, _fail)
    rows.put(row(1), metrics)
    assert rows.close(PATIENCE)
    assert (metrics.numbers(), seen[0].metrics, metric.fetched) == ({"loss": 0.5}, {"loss": 0.5}, 1)


def test_rows_that_came_together_are_written_at_once(tmp_path: Path) -> None:
    path = LimitedPath(tmp_path / "metrics.jsonl")
    limited: Any = path
    rows = MetricRows(limited, None, _fail, gather_seconds=PATIENCE)
    for step in range(5):
        rows.put(row(step), ChunkMetrics({}))
    assert rows.close(PATIENCE)
    assert path.file is not None
    assert path.file.writes == 1
    assert steps_in(tmp_path / "metrics.jsonl") == [0, 1, 2, 3, 4]
