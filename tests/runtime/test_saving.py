"""A live run is saved while it acts and trains, and a later one goes on from there."""

from __future__ import annotations

import gc
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateInfo, StateStore, latest_n
from pamiq_jax.checkpoint.block_process import BlockProcess
from pamiq_jax.checkpoint.files import LOCAL_FILES
from pamiq_jax.conditions import Progress
from pamiq_jax.errors import CheckpointWriteError, WorkerError
from pamiq_jax.runtime import TerminationSignals
from pamiq_jax.runtime import saver as saver_module
from pamiq_jax.runtime import unhurried as unhurried_module
from pamiq_jax.runtime.clock import VirtualClock
from pamiq_jax.runtime.heartbeat import Heartbeats
from pamiq_jax.runtime.saved import first_cut
from pamiq_jax.runtime.saver import Saver
from pamiq_jax.runtime.unhurried import unhurried
from tests.runtime.fakes import AGENT, PATIENCE, HeldWorld, SavedWorld, fed_system, learning_system


def test_counters_versions_and_the_world_go_on(tmp_path: Path) -> None:
    with pj.launch(learning_system(SavedWorld()), directory=tmp_path) as run:
        run.wait_for_version(2, PATIENCE)
        info = run.save(PATIENCE)
        assert run.status.saves.written == 1
    assert StateStore(tmp_path).verify()[0].problems == ()
    with pj.launch(learning_system(SavedWorld()), directory=tmp_path, resume=True) as run:
        run.wait_until_ready()
        assert run.restored is not None
        assert run.restored.state.number == info.number
        assert run.snapshot.version >= info.facts["version"] >= 2
        run.wait_for_version(info.facts["version"] + 1, PATIENCE)
        run.pause()
        assert run.learner.trainers["fit"].steps >= info.facts["steps"]["fit"]
        assert run.save(PATIENCE).number == info.number + 1  # while it is paused, too


class SlowToReset(SavedWorld):
    """Begins only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held, self.go = threading.Event(), threading.Event()

    def reset(self, seed: int) -> None:
        self.is_held.set()
        assert self.go.wait(PATIENCE)
        super().reset(seed)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_world_that_has_not_begun_again_is_saved_as_it_was(
    is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pj.run_lockstep(learning_system(SavedWorld()), 5, directory=tmp_path)
    world = SlowToReset()
    if is_late:
        monkeypatch.setattr(saver_module, "_HAND_IN_SECONDS", 0.01)
    with pj.launch(learning_system(world), directory=tmp_path, resume=True) as run:
        assert world.is_held.wait(PATIENCE)
        if not is_late:
            threading.Timer(0, world.go.set).start()
        info = run.save(PATIENCE)
        world.go.set()
    saved = StateStore(tmp_path).read(info)
    ticks = int(saved["leaves"]["['interactions']['agent']['tick']"])
    assert saved["worlds"]["agent"]["environment"]["observation"][0] == ticks
    assert saved["waiting"]["seen"]["counts"][0] == ticks >= 5


def test_a_policy_saves_by_itself(tmp_path: Path) -> None:
    with pj.launch(learning_system(), directory=tmp_path, save=pj.every_versions(1), strict=True) as run:
        version = run.wait_for_version(3, PATIENCE).version
        run.save(PATIENCE)
        assert run.status.saves.newest is not None
        assert run.status.saves.newest.facts["version"] >= version


class HeldSavedWorld(HeldWorld, SavedWorld):
    """A world that can be saved, once it is let go."""


class TickingWorld(SavedWorld):
    """A world that tells when it has been saved and has gone on for some ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.has_gone_on = threading.Event(), threading.Event()
        self._since: int | None = None

    def save_state(self) -> Any:
        self._since = len(self.shown)
        return super().save_state()

    def affect(self, action: Any) -> dict[str, Any]:
        self.has_begun.set()
        if self._since is not None and len(self.shown) >= self._since + 20:
            self.has_gone_on.set()
        return super().affect(action)


def test_what_waits_for_a_buffer_is_of_the_moment_that_its_interaction_goes_on_from(tmp_path: Path) -> None:
    fast, slow = TickingWorld(), HeldSavedWorld()

    def whole(record: Any) -> Any:
        return record

    system = learning_system(
        buffers={name: pj.ring_buffer(2_000, sampling="in_order") for name in ("left", "right", "both")},
        trainers={},
        interaction={
            "left": pj.Interaction(AGENT, fast, 0.001, collect={"left": whole, "both": whole}),
            "right": pj.Interaction(AGENT, slow, 0.001, collect={"right": whole, "both": whole}),
        },
    )
    with pj.launch(system, directory=tmp_path) as run, ThreadPoolExecutor(1) as executor:
        run.wait_until_ready()
        assert slow.is_held.wait(PATIENCE)
        assert fast.has_begun.wait(PATIENCE)  # whoever has not begun is saved as it was, and is not asked
        saved = executor.submit(run.save, PATIENCE)
        assert fast.has_gone_on.wait(PATIENCE)  # it has handed in, and ticks on, while the other one is still asked
        slow.go.set()
        info = saved.result(PATIENCE)
    value, ticks = StateStore(tmp_path).read(info), info.facts["ticks"]
    for name in ("left", "right"):
        leaves, inserted = value["leaves"], value["leaves"][f"['buffers'][{name!r}]['inserted']"]
        added = leaves[f"['buffers'][{name!r}]['state'].records.data['observation']"][:inserted]
        waiting = value["waiting"][name]["records"][".records.data['observation']"]
        np.testing.assert_array_equal(np.concatenate([added, waiting])[:, 0], np.arange(ticks[name]))
    # Of the buffer that both feed too: what has come since the first of them handed in belongs to the next state.
    both = value["waiting"]["both"]["counts"][0]
    assert both == sum(ticks.values())
    assert len(fast.shown) >= ticks["left"] + 20


def test_who_does_not_answer_is_saved_as_last_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pamiq_jax.runtime.saver._HAND_IN_SECONDS", 0.01)
    world = HeldSavedWorld()
    with pj.launch(learning_system(world, trainers={}), directory=tmp_path) as run:
        run.wait_until_ready()
        assert world.is_held.wait(PATIENCE)
        info = run.save(PATIENCE)
        world.go.set()
    value = StateStore(tmp_path).read(info)
    assert (info.facts["ticks"], value["worlds"], value["waiting"]["seen"]["counts"]) == ({"agent": 0}, {}, (0, 0, 0))
    assert "saved without the present state of agent, which did not answer" in caplog.text


@pytest.mark.parametrize("is_hurried", [False, True])
def test_a_rest_is_taken_before_files_are_made_and_removed(is_hurried: bool, tmp_path: Path) -> None:
    class Rests(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not self.is_set():
                taken.append(timeout)
            return self.is_set()

    taken: list[float | None] = []
    hurried = Rests()
    if is_hurried:
        hurried.set()
    store = StateStore(tmp_path, unhurried(LOCAL_FILES, hurried))
    for seed in (0, 1):
        store.write(np.full(100, seed), facts={}, created_at=0.0)
    store.prune(latest_n(1))
    created, removed = 2 * 3, 3  # a block, a manifest and its checksum
    assert taken == [] if is_hurried else [unhurried_module.REST_SECONDS] * (created + removed)


@pytest.mark.parametrize("terminations", [0, 1])
def test_only_a_termination_hurries(terminations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pj.launch(pj.System(models={"m": pj.Model(np.zeros(3, np.float32))}), directory=tmp_path) as run:
        saver = run._workers.saving.saver
        assert saver is not None
        monkeypatch.setattr(run._signals, "_terminations", terminations)
        run._engine.save_by_signal()
        assert saver._is_hurried.is_set() == bool(terminations)
        monkeypatch.undo()  # while a termination is under way the handlers stay


def test_what_is_handed_in_too_late_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The records that wait have been noted by then: with a newer actor those in between would be lost.
    monkeypatch.setattr(saver_module, "_HAND_IN_SECONDS", 0.01)
    taken: list[dict[str, Any]] = []

    class LateSaver(Saver):
        def _write(self, save: Any) -> StateInfo:
            self.hand_in("slow", lambda: ("a newer state", {}))  # type: ignore[arg-type, return-value]
            taken.append(save.actors)
            return StateInfo(1, 0.0, {}, 0, 0)

    nobody: Any = None
    saver = LateSaver(
        StateStore(tmp_path), keep=latest_n(1), policy=None, on_error=lambda error: None, on_free=lambda: None
    )
    future = saver.ask()
    saver.begin(nobody, Progress(), {}, {}, {"slow": nobody})
    assert future.result(PATIENCE).number == 1
    assert saver.close(PATIENCE)
    assert taken == [{"slow": (None, {})}]  # as it was last known


def test_what_cannot_be_removed_is_told_and_the_save_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(store: StateStore, keep: Any) -> None:
        raise CheckpointWriteError("pruning states", PermissionError(13, "Permission denied"))

    monkeypatch.setattr(StateStore, "prune", prune)
    with pj.launch(fed_system(), directory=tmp_path) as run:
        assert run.save(PATIENCE).number == 1
        with pytest.raises(WorkerError, match=r"'pamiq-saver' failed: CheckpointWriteError: pruning states failed"):
            run.wait(PATIENCE)
        assert (run.status.saves.written, run.status.saves.failed, run.status.saves.error) == (1, 0, "")
    assert [state.number for state in StateStore(tmp_path).states()] == [1]


def test_the_thread_says_while_it_saves_and_no_longer(tmp_path: Path) -> None:
    heartbeats, beats = Heartbeats(VirtualClock(), ()), list[str]()

    class Store(StateStore):
        def write(self, value: object, **facts: Any) -> StateInfo:
            beats.append(heartbeats["pamiq-saver"].beat.activity.kind)
            return StateInfo(1, 0.0, {}, 0, 0)

    system = fed_system()
    compiled = pj.compile_system(system)
    saver = Saver(
        Store(tmp_path),
        keep=latest_n(1),
        policy=None,
        on_error=lambda error: None,
        on_free=lambda: beats.append(heartbeats["pamiq-saver"].beat.activity.kind),
        heartbeats=heartbeats,
    )
    future = saver.ask()
    saver.begin(first_cut(compiled), Progress(), {}, {}, {})
    assert future.result(PATIENCE).number == 1
    assert saver.close(PATIENCE)
    assert beats == ["saving", "saving", "sleeping"]  # buffers may change again; it is written; the next one may begin
    assert [name for name, _ in heartbeats.pulses] == []


def process_of(run: pj.Run) -> subprocess.Popen[bytes]:
    saver = run._workers.saving.saver
    assert saver is not None
    blocks = saver.store._directory.blocks
    assert isinstance(blocks, BlockProcess)
    assert blocks._process is not None
    return blocks._process


def test_a_process_of_its_own_writes_and_ends_with_the_run(tmp_path: Path) -> None:
    with pj.launch(fed_system(), directory=tmp_path) as run:
        process = process_of(run)
        run.save(PATIENCE)
        assert process.poll() is None
    assert process.returncode == 0
    assert [report.is_sound for report in StateStore(tmp_path).verify()] == [True]


@pytest.fixture
def handler_put_back() -> Iterator[None]:
    """Put back what the main thread alone may: a run that is dropped ends on another one."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signals = TerminationSignals(None, lambda: None)
    assert signals.install()
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


@pytest.mark.usefixtures("handler_put_back")
def test_it_ends_with_a_run_that_nobody_holds(tmp_path: Path) -> None:
    run = pj.launch(fed_system(), directory=tmp_path)
    run.wait_until_ready(PATIENCE)
    process, threads = process_of(run), [each for each in threading.enumerate() if each.name.startswith("pamiq-")]
    del run
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE)
    assert process.returncode == 0


def test_its_death_costs_one_save_which_is_told(tmp_path: Path) -> None:
    with pj.launch(fed_system(), directory=tmp_path) as run:
        first = run.save(PATIENCE)
        saver = run._workers.saving.saver
        assert saver is not None
        blocks: Any = saver.store._directory.blocks
        blocks._rest_seconds = lambda: process_of(run).kill() or 0.0
        with pytest.raises(CheckpointWriteError, match="the process that writes states has ended"):
            run.save(PATIENCE)
        assert (run.status.saves.failed, run.status.saves.newest) == (1, first)
        blocks._rest_seconds = lambda: 0.0
        assert run.save(PATIENCE).number == first.number + 1
    assert all(report.is_sound for report in StateStore(tmp_path).verify())
