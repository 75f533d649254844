"""A live run that was recorded is computed again in one thread: bit for bit, up to any version, from any cut."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import (
    InvalidValueError,
    RecordingError,
    StateMismatchError,
    UnknownNameError,
    WorkerError,
)
from pamiq_jax.recording import Recording
from pamiq_jax.runtime import MetricRow
from tests.runtime.everything import everything
from tests.runtime.fakes import (
    PATIENCE,
    assert_equal_trees,
    fed_system,
    learning_system,
    mean_loss,
    nan_trainer,
    python_trainer,
)
from tests.runtime.resuming import quick_compiles


@pytest.fixture(scope="module", autouse=True)
def few_compiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same programs are compiled for the live run and for each replay of it: once is enough."""
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


def adjustable(learning_rate: float = 0.05) -> pj.System:
    """Return a system whose learning rate can be changed while it runs."""
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)
    trainer = pj.gradient_trainer(mean_loss("policy", 0.1), tx, trains=("policy",))
    schedule = pj.Schedule(trainer, data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    return learning_system(trainers={"fit": schedule})


def parts_of(learner: Any) -> Any:
    runs = {name: run._replace(phase=str(run.phase), reason="") for name, run in learner.trainers.items()}
    return runs, learner.buffers, learner.models, learner.pending, learner.now_used, learner.turn


def log_of(directory: Path, number: int = 1) -> Path:
    return directory / "recording" / f"{number:06d}" / "log"


class Live:
    """A recorded run of `adjustable`, with what was seen of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows: list[MetricRow] = []
        self.snapshots: dict[int, Any] = {}
        self.acted: list[int] = []
        with pj.launch(
            adjustable(),
            directory=directory,
            seed=3,
            record=True,
            on_metrics=self.rows.append,
            on_interaction=lambda report: self.acted.append(report.version),
        ) as run:
            self.keep(run.wait_for_version(2, PATIENCE))
            run.trainers["fit"].set(learning_rate=0.5)
            run.save(PATIENCE)
            self.keep(run.wait_for_version(4, PATIENCE))
            run.pause()
            self.keep(run.snapshot)
            run.resume()
            self.keep(run.wait_for_version(run.snapshot.version + 3, PATIENCE))
        self.learner, self.status = run.learner, run.status
        self.keep(run.snapshot)

    def keep(self, snapshot: pj.Snapshot) -> None:
        self.snapshots[snapshot.version] = snapshot


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    return Live(tmp_path_factory.mktemp("live"))


@pytest.fixture
def cut(live: Live, tmp_path: Path) -> Path:
    """The directory of a copy of the recording, whose log may be cut."""
    folder = log_of(tmp_path).parent
    folder.mkdir(parents=True)
    (folder / "start").symlink_to(log_of(live.directory).parent / "start")
    log_of(tmp_path).write_bytes(log_of(live.directory).read_bytes())
    return tmp_path


class TestReplay:
    def test_states_and_metrics_are_those_of_the_live_run(self, live: Live) -> None:
        replayed = pj.replay(live.directory, adjustable())
        assert (replayed.difference, replayed.damage, replayed.is_complete) == (None, "", True)
        assert replayed.checked_version == replayed.snapshot.version
        assert_equal_trees(parts_of(replayed.learner), parts_of(live.learner))
        assert_equal_trees(replayed.snapshot._asdict(), live.snapshots[max(live.snapshots)]._asdict())
        assert live.status.recording is not None
        assert replayed.ticks == live.status.recording.ticks
        chunks = [row.metrics for row in live.rows if "loss" in row.metrics]
        assert [{name: float(value) for name, value in metrics.items()} for _, metrics in replayed.metrics] == chunks

    def test_it_stops_at_any_version(self, live: Live) -> None:
        for version, snapshot in live.snapshots.items():
            replayed = pj.replay(live.directory, adjustable(), until=version)
            assert_equal_trees(replayed.snapshot._asdict(), snapshot._asdict())
            assert not replayed.is_complete

    def test_the_changed_learning_rate_is_in_it(self, live: Live) -> None:
        first, last = (pj.replay(live.directory, adjustable(), until=version) for version in (1, max(live.snapshots)))
        rates = [pj.get_hyperparameters(result.learner.trainers["fit"].state) for result in (first, last)]
        assert [float(rate["learning_rate"]) for rate in rates] == [np.float32(0.05), 0.5]

    def test_of_every_kind_of_trainer_and_buffer(self, tmp_path: Path) -> None:
        with pj.launch(everything(), directory=tmp_path, record=True) as run:
            run.wait_for_version(12, PATIENCE)
            run.save(PATIENCE)
            run.wait_for_version(20, PATIENCE)
        replayed = pj.replay(tmp_path, everything())
        assert replayed.difference is None
        assert_equal_trees(parts_of(replayed.learner), parts_of(run.learner))
        assert_equal_trees(replayed.snapshot._asdict(), run.snapshot._asdict())

    def test_a_resumed_run_has_a_recording_of_its_own(self, tmp_path: Path) -> None:
        versions: list[int] = []
        for _ in range(2):
            with pj.launch(learning_system(), directory=tmp_path, record=True, resume=True) as run:
                run.wait_for_version(run.snapshot.version + 3, PATIENCE)
                run.save(PATIENCE)
            versions.append(run.snapshot.version)
        second = pj.replay(tmp_path, learning_system())
        assert_equal_trees(parts_of(second.learner), parts_of(run.learner))
        begun = Recording(tmp_path).begin.version
        assert 0 < begun <= versions[0]
        assert pj.replay(tmp_path, learning_system(), number=1).snapshot.version == versions[0]
        assert pj.replay(tmp_path, learning_system(), until=begun - 1).snapshot.version == begun - 1
        assert pj.replay(tmp_path, learning_system(), until=begun).ticks == 0
        with pytest.raises(InvalidValueError, match=f"replay\\(until\\) is 0, expected at least {begun}"):
            pj.replay(tmp_path, learning_system(), number=2, until=0)

    def test_a_trainer_that_failed_fails_again(self, tmp_path: Path) -> None:
        def system() -> pj.System:
            schedules = {
                "bad": pj.Schedule(nan_trainer(3), data="x", batch_size=1, when=pj.min_new(1)),
                "good": pj.Schedule(nan_trainer(9**9, model="value"), data="x", batch_size=1, when=pj.min_new(1)),
            }
            models = {name: pj.Model(np.zeros(3, np.float32)) for name in ("policy", "value")}
            return fed_system(trainers=schedules, models=models)

        with pj.launch(system(), directory=tmp_path, record=True) as run:
            for version in range(1, 3):
                run.collect("x", 1.0)
                run.wait_for_version(2 * version, PATIENCE)  # both have had it
            run.collect("x", 1.0)
            with pytest.raises(WorkerError, match="bad"):
                run.wait(PATIENCE)
        replayed = pj.replay(tmp_path, system())
        assert replayed.difference is None
        assert "failed: NonFiniteError" in replayed.learner.trainers["bad"].reason
        assert_equal_trees(parts_of(replayed.learner), parts_of(run.learner))

    def test_a_trainer_that_begins_anew_does_so_again(self, tmp_path: Path) -> None:
        def system() -> pj.System:
            return fed_system(pj.Schedule(nan_trainer(3), data="x", batch_size=1, when=pj.min_new(1)))

        faults = pj.keep_acting(backoff_seconds=0.01)
        with pj.launch(system(), directory=tmp_path, record=True, faults=faults) as run:
            for version in (1, 2):
                run.collect("x", 1.0)
                run.wait_for_version(version, PATIENCE)
            run.collect("x", 1.0)
            while run.learner.trainers["fit"].faults.rollbacks < 2:
                run.wait(0.01)
        replayed = pj.replay(tmp_path, system(), faults=faults)
        assert replayed.difference is None
        assert replayed.learner.trainers["fit"].faults.rollbacks >= 2
        assert_equal_trees(parts_of(replayed.learner), parts_of(run.learner))


class TestDifferences:
    def test_another_learning_rate_is_found_at_its_first_effect(self, live: Live) -> None:
        # The state, and the rate within it, comes from the recording: this one is fixed in the optimizer's code.
        trainer = pj.gradient_trainer(
            lambda params, batch, key: (2 * mean_loss("policy", 0.1)(params, batch, key)[0], {}),
            optax.inject_hyperparams(optax.adam)(learning_rate=0.05),
            trains=("policy",),
        )
        schedule = pj.Schedule(trainer, data="seen", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
        difference = pj.replay(live.directory, learning_system(trainers={"fit": schedule})).difference
        assert difference is not None
        assert difference.what == "the metrics"
        assert difference.replayed["loss"] == 2 * difference.recorded["loss"]
        assert str(difference).startswith(f"tick {difference.tick}, ")

    def test_another_condition_is_found_where_it_says_something_else(self, live: Live) -> None:
        schedule = dataclasses.replace(adjustable().trainers["fit"], when=pj.min_new(30))
        replayed = pj.replay(live.directory, learning_system(trainers={"fit": schedule}))
        assert replayed.difference is not None
        assert replayed.difference.tick == replayed.ticks - 1
        assert "of 30 new records" in replayed.learner.trainers["fit"].reason

    def test_parameters_that_differ_in_what_no_metric_shows(self, tmp_path: Path) -> None:
        def system(factor: float) -> pj.System:
            def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
                return pj.TrainerState(dict(params), (), np.zeros((), np.int32), rng_key)

            def step(state: pj.TrainerState[Any], batch: Any) -> Any:
                params = jax.tree.map(lambda leaf: leaf + factor, state.params)
                return state.replace(params=params, step=state.step + 1), {"always": np.float32(0)}

            trainer = pj.custom_trainer(init, step, trains=("policy",))
            return fed_system(pj.Schedule(trainer, data="x", batch_size=1, when=pj.min_new(1)))

        with pj.launch(system(1.0), directory=tmp_path, record=True) as run:
            run.collect("x", 1.0)
            run.wait_for_version(1, PATIENCE)
        assert pj.replay(tmp_path, system(1.0)).difference is None
        difference = pj.replay(tmp_path, system(1.5)).difference
        assert difference is not None
        assert difference.what == "the checksum of version 1"

    def test_a_trainer_that_draws_on_something_else(self, tmp_path: Path) -> None:
        numbers = iter(range(100))

        def system() -> pj.System:
            trainer = python_trainer(lambda number: None)

            def step(state: Any, batch: Any) -> Any:
                return state, {"number": np.float32(next(numbers))}

            schedule = pj.Schedule(trainer._replace(step=step), data="x", batch_size=1, when=pj.min_new(1))
            return fed_system(schedule)

        with pj.launch(system(), directory=tmp_path, record=True) as run:
            run.collect("x", 1.0)
            run.wait_for_version(1, PATIENCE)
        difference = pj.replay(tmp_path, system()).difference
        assert difference is not None
        assert (difference.what, difference.recorded["number"]) == ("the metrics", 0)

    def test_another_system_is_refused(self, live: Live) -> None:
        other = learning_system(trainers={})
        with pytest.raises(StateMismatchError, match=r"\['trainers'\]\['fit'\]"):
            pj.replay(live.directory, other)


class TestCutOff:
    def test_it_replays_up_to_where_it_is_cut(self, live: Live, cut: Path) -> None:
        whole = pj.replay(live.directory, adjustable())
        content = log_of(cut).read_bytes()
        for share in (0.3, 0.7, 0.99):
            log_of(cut).write_bytes(content[: int(share * len(content))])
            part = pj.replay(cut, adjustable())
            assert (part.difference, part.is_complete) == (None, False)
            assert part.damage.startswith("cut off at byte")
            assert_equal_trees(part.metrics, whole.metrics[: len(part.metrics)])
            assert part.ticks <= whole.ticks
        with pytest.raises(RecordingError, match=r"expected version 1000 in it; cut off at byte"):
            pj.replay(cut, adjustable(), until=1000)

    def test_a_version_after_the_end(self, live: Live) -> None:
        with pytest.raises(RecordingError, match="expected version 100000 in it; the run ended there"):
            pj.replay(live.directory, adjustable(), until=100_000)

    def test_killed_before_anything_was_written(self, cut: Path) -> None:
        log_of(cut).write_bytes(log_of(cut).read_bytes()[:10])
        with pytest.raises(RecordingError, match="the run was killed before it began"):
            pj.replay(cut, adjustable())

    def test_a_killed_process_leaves_what_can_be_replayed(self, tmp_path: Path) -> None:
        code = (
            "import sys, pamiq_jax as pj; from tests.runtime.fakes import learning_system\n"
            "with pj.launch(learning_system(), directory=sys.argv[1], record=True) as run:\n"
            "    run.wait_for_version(3, 120)\n"
            "    while run.status.recording.ticks < 20: run.wait(0.01)\n"
            "    print('kill', run.status.recording.ticks, flush=True)\n"
            "    run.wait(120)\n"
        )
        # As `quick_compiles` has it here: other programs round otherwise.
        environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            word, ticks = process.stdout.readline().split()
            os.kill(process.pid, signal.SIGKILL)
        assert word == "kill"
        replayed = pj.replay(tmp_path, learning_system())
        assert (replayed.difference, replayed.is_complete) == (None, False)
        assert replayed.ticks >= int(ticks)
        assert replayed.damage


class TestData:
    def test_the_records_are_a_dataset(self, live: Live) -> None:
        records = Recording(live.directory).records("seen")
        assert len(records.version) == live.status.buffers["seen"].seen - live.status.buffers["seen"].dropped
        assert records.data["observation"][:, 0].tolist() == list(range(len(records.version)))
        assert records.version.tolist() == live.acted[: len(records.version)]
        assert records.is_first[0]
        assert records.is_first.sum() == 2  # the first of all, and the first after the pause

    def test_it_says_which_version_each_tick_used(self, live: Live) -> None:
        changes = Recording(live.directory).versions()["agent"]
        ticks = [tick for tick, _ in changes]
        used = [
            version
            for (tick, version), end in zip(changes, [*ticks[1:], len(live.acted)], strict=True)
            for _ in range(tick, end)
        ]
        assert used == live.acted

    def test_it_has_the_commands(self, live: Live) -> None:
        events = [(machine, event) for _, machine, _, event, _ in Recording(live.directory).transitions()]
        commands = [event for machine, event in events if machine == "system"]
        assert commands[-6:] == ["pause", "all_paused", "resume", "all_resumed", "stop", "all_stopped"]

    def test_only_records_of_a_system_that_does_not_learn(self, tmp_path: Path) -> None:
        with pj.launch(fed_system(), directory=tmp_path, record=True) as run:
            for value in range(150):
                run.collect("x", float(value))
        recording = Recording(tmp_path)
        assert recording.records("x").data.tolist() == list(range(150))
        assert recording.records("x", example=0.0).data.tolist() == list(range(150))
        with pytest.raises(UnknownNameError, match="no buffer is named 'y'"):
            recording.records("y")
        with pytest.raises(StateMismatchError):
            recording.records("x", example={"other": 0.0})

    def test_no_record(self, tmp_path: Path) -> None:
        with pj.launch(fed_system(), directory=tmp_path, record=True) as run:
            run.wait_until_ready()
        with pytest.raises(RecordingError, match="no record came into buffer 'x'"):
            Recording(tmp_path).records("x")
