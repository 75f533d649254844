"""The disk is full, fails, or is read-only: a save fails loudly, training goes on, the states before stay."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore, latest_n
from pamiq_jax.errors import CheckpointWriteError
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.systems import Watch, busy_system, errors_of, learns_on, saving_with
from tests.checkpoint.disk import CHANGES, files_that
from tests.runtime.fakes import PATIENCE

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
OPERATIONS_OF_A_SAVE = 60


class Switch:
    """Makes file operations fail while it is on: all that change something, or one of them.

    Attributes:
        error: the number of the error; 0 is off.
        left: how many operations are let through first.
        is_once: whether it goes off when one has failed.
        failed: how many have.
    """

    def __init__(self) -> None:
        self.error, self.left, self.is_once, self.failed = 0, 0, False, 0

    def fail_once(self, error: int, after: int) -> None:
        self.error, self.left, self.is_once = error, after, True

    def fail_always(self, error: int) -> None:
        self.error, self.left, self.is_once = error, 0, False

    def off(self) -> None:
        self.error = 0

    def __call__(self, name: str, number: int) -> None:
        if not self.error or (self.is_once and name == "close") or (not self.is_once and name not in CHANGES):
            return
        if self.left:
            self.left -= 1
            return
        error = self.error
        if self.is_once:
            self.error = 0
        self.failed += 1
        raise OSError(error, os.strerror(error))


def _save(run: pj.Run) -> CheckpointWriteError | None:
    """Save, and return why it was not possible."""
    try:
        run.save(PATIENCE)
    except CheckpointWriteError as error:
        return error
    return None


def _check_it_goes_on(run: pj.Run, watch: Watch, place: Path, losses: Losses) -> None:
    losses.check(watch.goes_on(10), "the agent stood still")
    losses.check(learns_on(run, 1), "training stood still")
    newest = run.status.saves.newest
    reports = StateStore(place).verify()
    losses.check(all(report.is_sound for report in reports), "a state is damaged")
    losses.check(newest is None or newest.number in [report.number for report in reports], "a saved state is gone")


def failing_once(form: Form) -> list[Row]:
    """Let one random file operation of each save fail."""
    losses, times, switch, watch, failed = Losses(), form.times(5, 300), Switch(), Watch(), 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        place = Path(name)
        with saving_with(files_that(switch)):
            run = pj.launch(busy_system(), directory=place, keep=latest_n(2), on_interaction=watch)
        with run:
            run.save(PATIENCE)
            for _ in range(times):
                switch.fail_once(form.rng.choice(ERRORS), form.rng.randrange(OPERATIONS_OF_A_SAVE))
                error = _save(run)
                switch.off()
                failed += error is not None
                losses.check(error is None or error.errno in ERRORS, f"the save failed with {error!r}")
                _check_it_goes_on(run, watch, place, losses)
            losses.check(_save(run) is None, "no save succeeds any more")
            losses.check(run.status.saves.failed == failed, "the status counts otherwise")
            losses.check(errors_of(run) == [], "who had asked was told, and run.wait too")
    happened = (
        f"{switch.failed} operations failed, {failed} saves with them (CheckpointWriteError); each time agent and "
        "training went on, all states sound; the next save worked"
    )
    return [
        Row(
            "an error of one random file operation in a save (no space, quota, I/O, permission)",
            times,
            happened,
            losses.found,
        )
    ]


def read_only(form: Form) -> list[Row]:
    """Let the directory become read-only while a system runs, and launch into one that is."""
    losses, times, switch, watch = Losses(), form.times(1, 20), Switch(), Watch()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        place = Path(name)
        with saving_with(files_that(switch)):
            run = pj.launch(
                busy_system(), directory=place, on_interaction=watch, save=pj.every_versions(3), keep=latest_n(2)
            )
        with run:
            run.save(PATIENCE)
            for _ in range(times):
                before = run.status.saves.failed
                if _may_ignore_permissions():
                    switch.fail_always(errno.EROFS)
                else:
                    _allow_writing(place, is_allowed=False)
                fails = watch.until(lambda before=before: run.status.saves.failed > before + 1)
                losses.check(fails, "the policy's saves did not fail")
                told = [error.__cause__ for error in errors_of(run)]
                losses.check(told != [], "run.wait told nothing")
                losses.check(all(isinstance(cause, CheckpointWriteError) for cause in told), f"run.wait told {told}")
                _check_it_goes_on(run, watch, place, losses)
                switch.off()
                _allow_writing(place, is_allowed=True)
                losses.check(_save(run) is None, "no save succeeds any more")
                errors_of(run)  # of saves that had begun before
    how = "by a failing file layer, since root ignores permissions" if _may_ignore_permissions() else "by its mode"
    happened = (
        f"each save of the policy failed, told by run.wait ({how}); agent and training went on, states sound; "
        "later saves worked"
    )
    return [Row("a directory becomes read-only", times, happened, losses.found), _launch_into_read_only()]


def _may_ignore_permissions() -> bool:
    return os.geteuid() == 0


def _allow_writing(place: Path, *, is_allowed: bool) -> None:
    for path in (place, *(path for path in place.rglob("*") if path.is_dir())):
        path.chmod(0o755 if is_allowed else 0o555)


@contextlib.contextmanager
def small_disk(options: str) -> Generator[Path | str]:
    """Mount a small file system in memory, and give its path, or why that is not possible."""
    with tempfile.TemporaryDirectory(prefix="chaos-disk-") as name:
        command = ["mount", "-t", "tmpfs", "-o", options, "chaos", name]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except OSError as error:
            yield str(error)
            return
        if result.returncode:
            yield result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "mounting is not permitted"
            return
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True, timeout=60)


def _launch_into_read_only() -> Row:
    tried, losses = "launch into a read-only directory", Losses()
    with small_disk("size=1m,ro") as place:
        if isinstance(place, str):
            return Row(tried, 0, f"not tried: {place}")
        try:
            pj.launch(busy_system(), directory=place / "run").stop()
            losses.check(False, "it was launched")
        except OSError as error:
            losses.check(error.errno == errno.EROFS, f"it said {error!r}")
    return Row(tried, 1, "refused with the operating system's error; no thread was started", losses.found)


def full(form: Form) -> list[Row]:
    """Fill a small disk while a system saves on it, and free it again."""
    tried, losses, times, watch, failed = "a disk of 4 MB fills up", Losses(), form.times(1, 20), Watch(), 0
    with small_disk("size=4m") as place:
        if isinstance(place, str):
            return [Row(tried, 0, f"not tried: {place}")]
        run = pj.launch(busy_system(), directory=place / "run", keep=latest_n(1), on_interaction=watch)
        with run:
            run.save(PATIENCE)
            for _ in range(times):
                _fill(place / "filler")
                error = _save(run)
                losses.check(error is not None and error.errno == errno.ENOSPC, f"the save said {error!r}")
                failed += error is not None
                _check_it_goes_on(run, watch, place / "run", losses)
                (place / "filler").unlink()
                losses.check(_save(run) is None, "no save succeeds although there is space again")
            others = {error.worker for error in errors_of(run)} - {"pamiq-metrics"}
            losses.check(not others, f"run.wait told of {others}")
        losses.check(all(report.is_sound for report in StateStore(place / "run").verify()), "a state is damaged")
    happened = (
        f"{failed} saves failed with ENOSPC; agent and training went on, states sound; "
        "with space again the next save worked"
    )
    return [Row(tried, times, happened, losses.found)]


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
