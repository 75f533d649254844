"""What becomes of a recording when something is wrong: with the arguments, the directory or the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, RecordingError, UnknownNameError, WorkerError
from pamiq_jax.recording.log import LogWriter
from pamiq_jax.runtime import recorder as recorder_module
from tests.runtime.fakes import PATIENCE, fed_system, learning_system
from tests.runtime.resuming import quick_compiles


@pytest.fixture(scope="module", autouse=True)
def few_compiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


class TestTrouble:
    def test_what_is_no_policy_is_refused_before_anything_begins(self, tmp_path: Path) -> None:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"save": 60}, r"\(save\) is 60, expected a condition; write every_seconds"),
            ({"keep": 3}, r"\(keep\) is 3, expected a retention; write latest_n"),
            ({"faults": pj.keep_acting}, r"\(faults\) is .*, expected a FaultPolicy; .*with brackets"),
        ]
        for options, match in wrong:
            with pytest.raises(InvalidValueError, match=match):
                pj.launch(learning_system(), directory=tmp_path, **options)
            with pytest.raises(InvalidValueError, match=match):
                pj.run_lockstep(learning_system(), 1, directory=tmp_path, **options)
        with pytest.raises((InvalidValueError, TypeError), match=r"until|integer"):
            pj.replay(tmp_path, learning_system(), until=1.5)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())

    def test_a_directory_is_needed(self) -> None:
        with pytest.raises(InvalidValueError, match=r"launch\(directory\) is None, expected a directory"):
            pj.launch(fed_system(), record=True)

    def test_nothing_was_recorded(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingError, match=r"holds no recording, expected `recording/<number>`; launch with"):
            pj.replay(tmp_path, fed_system())
        with pj.launch(fed_system(), directory=tmp_path, record=True) as run:
            run.wait_until_ready()
        with pytest.raises(UnknownNameError, match="no recording is named 7"):
            pj.replay(tmp_path, fed_system(), number=7)

    def test_a_full_disk_ends_the_recording_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        append, calls = LogWriter.append, iter(range(10_000))

        def failing(log: LogWriter, value: Any) -> int:
            if next(calls) >= 3:
                raise OSError(28, "No space left on device")
            return append(log, value)

        monkeypatch.setattr(LogWriter, "append", failing)
        with pj.launch(learning_system(), directory=tmp_path, record=True) as run:
            with pytest.raises(WorkerError, match="No space left on device") as raised:
                run.wait(PATIENCE)
            assert isinstance(raised.value.__cause__, RecordingError)
            run.wait_for_version(run.snapshot.version + 2, PATIENCE)
            status = run.status.recording
            assert status is not None
            assert "it has ended: OSError" in str(status)
        assert pj.replay(tmp_path, learning_system()).difference is None

    def test_a_disk_that_is_too_slow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorder_module, "_MOST_BYTES", 500)
        with pj.launch(learning_system(), directory=tmp_path, record=True) as run:
            with pytest.raises(WorkerError, match="the disk is too slow"):
                run.wait(PATIENCE)
            run.wait_for_version(run.snapshot.version + 2, PATIENCE)

    def test_a_replay_under_another_fault_policy_is_refused(self, tmp_path: Path) -> None:
        policy = pj.keep_acting(restarts=3, repair={"fit": lambda state: state})
        with pj.launch(learning_system(), directory=tmp_path, record=True, faults=policy) as run:
            run.wait_for_version(1, PATIENCE)
        recorded = r"keep_acting\(restarts=3, .*repair of \['fit'\]\), as it was launched; pass the `faults=` that"
        for other in (pj.fail_fast(), pj.keep_acting(restarts=3)):
            with pytest.raises(InvalidValueError, match=recorded):
                pj.replay(tmp_path, learning_system(), faults=other)
        again = pj.keep_acting(restarts=3, repair={"fit": lambda state: state})
        assert pj.replay(tmp_path, learning_system(), faults=again).difference is None
