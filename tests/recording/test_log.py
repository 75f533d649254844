"""A log that only grows, and what is left of it when it is cut off or damaged anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamiq_jax.errors import RecordingError, UnstorableValueError
from pamiq_jax.recording import Recording
from pamiq_jax.recording.entries import Batch, batch_value, text_rows
from pamiq_jax.recording.log import LogWriter, read_log

VALUES: list[Any] = [{"x": np.arange(3, dtype=np.int32)}, {"text": "é", "none": None, "nan": float("nan")}, [1, (2.5,)]]


def written(path: Path) -> list[int]:
    """Write the values, and return where each ends."""
    log = LogWriter(path)
    ends = [12]
    for value in VALUES:
        ends.append(ends[-1] + log.append(value))
    log.sync()
    log.close()
    assert path.stat().st_size == ends[-1]
    return ends


def read(path: Path) -> tuple[list[Any], str]:
    values, log = [], read_log(path)
    while True:
        try:
            values.append(next(log))
        except StopIteration as end:
            return values, end.value


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    written(tmp_path / "log")
    values, damage = read(tmp_path / "log")
    assert damage == ""
    assert repr(values) == repr(VALUES)
    assert values[0]["x"].dtype == np.int32


def test_cut_off_at_any_byte_it_has_all_that_is_whole(tmp_path: Path) -> None:
    ends, path = written(tmp_path / "log"), tmp_path / "cut"
    content = (tmp_path / "log").read_bytes()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        values, damage = read(path)
        assert len(values) == sum(end <= size for end in ends[1:])
        assert damage.startswith("cut off at byte") == (size not in ends)


def test_a_changed_byte_ends_it_there(tmp_path: Path) -> None:
    ends, path = written(tmp_path / "log"), tmp_path / "log"
    content = bytearray(path.read_bytes())
    content[ends[1] + 20] ^= 1
    path.write_bytes(content)
    values, damage = read(path)
    assert (len(values), damage) == (1, f"damaged at byte {ends[1]}")


def test_zeros_at_the_end_are_a_torn_entry(tmp_path: Path) -> None:
    ends, path = written(tmp_path / "log"), tmp_path / "log"
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    values, damage = read(path)
    assert (repr(values), damage) == (repr(VALUES), f"cut off at byte {ends[-1]}")


@pytest.mark.parametrize(
    ("byte", "match"),
    [
        (30, r"log is damaged at byte 12, in its first entry; nothing of it can be read"),
        (15, r"log is cut off at byte 12, in its first entry; the run was killed before it began, or the file is dam"),
    ],
    ids=["in its body", "in its size"],
)
def test_a_changed_bit_in_the_first_entry_is_not_called_empty(byte: int, match: str, tmp_path: Path) -> None:
    path = tmp_path / "recording" / "000001" / "log"
    path.parent.mkdir(parents=True)
    written(path)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=match):
        Recording(tmp_path)


def test_another_file_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("something else, and long enough")
    with pytest.raises(RecordingError, match="it is no log, or a newer pamiq_jax wrote it"):
        list(read_log(tmp_path / "log"))


def test_a_log_is_never_written_over_and_takes_no_object(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log")
    with pytest.raises(FileExistsError):
        LogWriter(tmp_path / "log")
    with pytest.raises(UnstorableValueError, match="object"):
        log.append({"x": object()})
    log.close()
    assert read(tmp_path / "log") == ([], "")


def test_texts_that_come_again_and_again_are_stored_once() -> None:
    made = [(tick, "trainer fit", "training", "chunk_done", "training") for tick in range(100)]
    value = batch_value(Batch(0, [], transitions=made))
    assert value["transitions"]["texts"] == ["trainer fit", "training", "chunk_done"]
    assert list(text_rows(value["transitions"])) == made


def test_a_recording_of_another_form_says_what_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "recording" / "000001"
    path.mkdir(parents=True)
    log = LogWriter(path / "log")
    log.append({"kind": "begin", "form": 1})
    log.close()
    with pytest.raises(
        RecordingError, match=r"has form 1, expected one of \(2, 3\); read it with the pamiq_jax that wrote it"
    ):
        Recording(tmp_path)
