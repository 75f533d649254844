"""kill -9, again and again: at random moments, and before random operations on files. Then resume."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pamiq_jax.checkpoint import StateStore
from tests.chaos.rows import Form, Losses, Row
from tests.chaos.victim import OPERATIONS, PATIENCE
from tests.checkpoint.disk import CHANGES

ROOT = Path(__file__).parents[2]


class Kill(NamedTuple):
    """When a process is killed.

    Attributes:
        kind: of the operation before which it is killed; None for a moment.
        number: which operation of that kind.
        seconds: after it was ready.
        is_starting: whether `seconds` count from its start instead, so that it may be killed while it restores.
        has_writer: whether a process of its own writes its blocks, as usual; else a thread, whose operations are noted.
    """

    kind: str | None
    number: int = 0
    seconds: float = 0.0
    is_starting: bool = False
    has_writer: bool = False


def random_kill(rng: random.Random, number: int) -> Kill:
    """Return the next kill: by turns at a moment and before an operation; a few at a moment of the start."""
    if number % 2:
        return Kill(rng.choice(CHANGES), rng.randint(1, 12))
    is_starting = number % 10 == 8
    seconds = rng.uniform(0.0, 4.0 if is_starting else 1.0)
    return Kill(None, seconds=seconds, is_starting=is_starting, has_writer=number % 4 == 0)


class Victim:
    """A process that runs a live system and is killed.

    Args:
        place: for its states, and beside them the compiled programs and its mark.
        kill: when.
        saves: after so many it stops by itself.
    """

    def __init__(self, place: Path, kill: Kill, saves: int = 10**9) -> None:
        self._kill, self._mark = kill, place / "mark"
        self._mark.write_bytes(b"\0")
        command = [sys.executable, "-m", "tests.chaos.victim", str(place / "run"), str(self._mark)]
        command += ["--saves", str(saves)]
        command += ["--writer"] if kill.has_writer else []
        command += [] if kill.kind is None else ["--kind", kill.kind, "--number", str(kill.number)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=_environment(place)
        )
        self.ready: dict[str, Any] | None = None
        self.saved: list[dict[str, Any]] = []
        self.killed_in = ""
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # torn by the kill: it was not said
            event = json.loads(line)
            if "ready" in event:
                self.ready = event
                self._events.put("ready")
            elif "saved" in event:
                self.saved.append(event["saved"])
            else:
                self._events.put("at")
        self._events.put("end")

    def run(self) -> bool:
        """Kill it at its time, and return whether it was alive then."""
        try:
            if not self._kill.is_starting:
                self._wait_for("ready")
            if self._kill.kind is not None:
                self._wait_for("at")
            else:
                # The moment is what is random here, so that it is a time and no event.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self._kill.seconds)
        finally:
            self._process.send_signal(signal.SIGKILL)
            code = self._process.wait(PATIENCE)
            self._reader.join(PATIENCE)
            self._close()
        number = self._mark.read_bytes()[0]
        self.killed_in = OPERATIONS[number - 1] if number else ""
        return code == -signal.SIGKILL

    def end(self) -> int:
        """Let it end by itself, and return its exit code."""
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._reader.join(PATIENCE)
            self._close()

    def _wait_for(self, event: str) -> None:
        got = self._events.get(timeout=PATIENCE)
        if got != event:
            raise RuntimeError(f"the victim said {got!r}, expected {event!r}; its saves: {self.saved[-1:]}")

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _environment(place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(place / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def check_states(directory: Path, acknowledged: dict[str, Any] | None, losses: Losses) -> dict[str, Any] | None:
    """Return what is known of the newest state, having read all of them.

    Args:
        directory: of the run.
        acknowledged: the last state that the process said was safe.
        losses: where to note what is wrong.
    """
    store = StateStore(directory)
    for report in store.verify():
        losses.check(report.is_sound, f"state {report.number} is damaged: {'; '.join(report.problems)}")
    newest = store.latest()
    if newest is None:
        losses.check(acknowledged is None, f"acknowledged save {acknowledged} is gone")
        return None
    facts = {"number": newest.number, **newest.facts}
    if acknowledged is not None:
        losses.check(not is_behind(facts, acknowledged), f"acknowledged save {acknowledged} is gone, newest: {facts}")
    check_records(store.read(newest), losses)
    return facts


def is_behind(later: dict[str, Any], earlier: dict[str, Any]) -> bool:
    """Return whether a state's number or one of its counters is less than it was."""
    if later["number"] < earlier["number"] or later["version"] < earlier["version"]:
        return True
    return later["steps"]["fit"] < earlier["steps"]["fit"] or later["ticks"]["agent"] < earlier["ticks"]["agent"]


def check_records(value: dict[str, Any], losses: Losses) -> None:
    """Note if a record was lost or is there twice: the world counts its ticks, and each record holds the count."""
    leaves, buffer = value["leaves"], "['buffers']['seen']['state']"
    ticks, inserted = int(leaves["['interactions']['agent']['tick']"]), leaves["['buffers']['seen']['inserted']"]
    size = int(leaves[f"{buffer}.size"])
    held = leaves[f"{buffer}.records.data['observation']"][:size, 0]
    waiting = value["waiting"]["seen"]["records"][".records.data['observation']"][:, 0]
    seen, dropped, pending = value["waiting"]["seen"]["counts"]
    losses.check(seen == ticks and inserted + dropped + pending == ticks, "ticks and records differ in number")
    numbers = np.concatenate([np.sort(held), waiting])
    is_whole = bool((numbers == np.arange(ticks - len(numbers), ticks)).all())
    losses.check(is_whole, f"records lost or doubled: after {ticks} ticks the last are {numbers[-8:].tolist()}")


def _resumed_as_it_was(victim: Victim, newest: dict[str, Any] | None, losses: Losses) -> None:
    """Note if a process has not gone on from the newest state."""
    if victim.ready is None:
        return  # killed before
    losses.check(victim.ready["ready"] == newest, f"resumed from {victim.ready['ready']}, the newest was {newest}")
    before = newest or {"number": 0, "version": 0, "steps": {"fit": 0}, "ticks": {"agent": 0}}
    losses.check(victim.ready["version"] >= before["version"], "the version went back")
    for saved in victim.saved:
        losses.check(not is_behind(saved, before) and saved["number"] > before["number"], "a counter went back")
        before = saved


def killed_and_resumed(form: Form) -> list[Row]:
    """Kill a saving process, look at what it left, and let the next one go on from there."""
    losses, landed, acknowledged, starting, kills = Losses(), Counter[str](), 0, 0, form.times(2, 200)
    with tempfile.TemporaryDirectory(prefix="chaos-kills-") as name:
        place, newest = Path(name), None
        for number in range(kills):
            victim = Victim(place, random_kill(form.rng, number))
            losses.check(victim.run(), "a process ended before it was killed")
            _resumed_as_it_was(victim, newest, losses)
            acknowledged += len(victim.saved)
            landed["" if victim.ready is None else victim.killed_in] += 1
            starting += victim.ready is None
            newest = check_states(place / "run", victim.saved[-1] if victim.saved else newest, losses)
        last = Victim(place, Kill(None, has_writer=True), saves=2)
        losses.check(last.end() == 0, "the last process failed")
        _resumed_as_it_was(last, newest, losses)
        check_states(place / "run", last.saved[-1] if last.saved else None, losses)
        lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
        losses.check(all(json.loads(line)["metrics"] for line in lines), "a row of metrics is empty")
    within = ", ".join(f"{name} {landed[name]}" for name in OPERATIONS if landed[name])
    happened = (
        f"all resumed; {acknowledged + len(last.saved):,} saves acknowledged; "
        f"{kills - landed['']} kills landed within a file operation of a save ({within}), "
        f"{starting} before it was ready; in a quarter of them another process wrote the blocks"
    )
    return [Row("kill -9 of a process that saves all the time, then resume", kills, happened, losses.found)]
