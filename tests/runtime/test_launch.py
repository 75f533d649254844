from __future__ import annotations

import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import RecordMismatchError, UnknownNameError
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase
from pamiq_jax.metrics import LatencyHistogram
from pamiq_jax.runtime import InferenceStatus, Meanwhile
from tests.runtime.fakes import (
    AGENT,
    PATIENCE,
    HeldWorld,
    World,
    fed_system,
    learner,
    learning_system,
    python_trainer,
    wait_for_phase,
)

STARTING = (SystemPhase.NEW, SystemPhase.COMPILING)


def pamiq_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("pamiq-")}


class SlowToCompile(World):
    """Its spec, which compiling reads, is given out only when allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.may_compile = threading.Event()
        self._spec = World.spec

    @property
    def spec(self) -> pj.EnvironmentSpec:  # type: ignore[override]
        assert self.may_compile.wait(PATIENCE)
        return self._spec


class TestStart:
    def test_it_returns_before_anything_is_compiled(self) -> None:
        world = SlowToCompile()
        with pj.launch(learning_system(world)) as run:
            status = run.status
            assert status.phase in STARTING
            assert (status.version, status.trainers, status.inference.ticks) == (0, {}, 0)
            world.may_compile.set()
            run.wait_until_ready()
            assert run.status.phase is SystemPhase.RUNNING

    def test_too_slow_to_be_waited_for(self) -> None:
        world = SlowToCompile()
        with pj.launch(learning_system(world)) as run:
            wait_for_phase(run, SystemPhase.COMPILING)
            with pytest.raises(TimeoutError, match=r"not ready within 0\.01 seconds; it is compiling"):
                run.wait_until_ready(timeout=0.01)
            world.may_compile.set()

    def test_threads_are_named_and_all_end(self) -> None:
        with pj.launch(learning_system()) as run:
            assert pamiq_threads() == {"pamiq-inference", "pamiq-training", "pamiq-metrics", "pamiq-watchdog"}
            run.wait_until_ready()
        assert pamiq_threads() == set()

    def test_without_an_agent_there_is_no_inference_thread(self) -> None:
        with pj.launch(fed_system()):
            assert pamiq_threads() == {"pamiq-training", "pamiq-metrics", "pamiq-watchdog"}

    def test_the_environment_is_reset_with_the_seed_and_closed_once(self) -> None:
        world = World()
        with pj.launch(learning_system(world), seed=9) as run:
            run.wait_for_version(1, PATIENCE)
            assert (world.resets, world.shown[0][2], world.closed.is_set()) == (1, 9.0, False)
        assert world.closed.is_set()


class TestStop:
    def test_while_it_compiles(self) -> None:
        world = SlowToCompile()
        run = pj.launch(learning_system(world))
        wait_for_phase(run, SystemPhase.COMPILING)
        with pytest.raises(TimeoutError, match=r"pamiq-training did not end within 0\.01 seconds; call stop again"):
            run.stop(timeout=0.01)
        world.may_compile.set()
        run.stop()
        assert run.status.phase is SystemPhase.STOPPED
        assert (world.resets, world.closed.is_set()) == (0, True)
        assert run.wait() is pj.WaitResult.ENDED

    def test_the_timeout_is_for_all_threads_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world, go, trains, joined = HeldWorld(), threading.Event(), threading.Event(), list[float]()

        def on_step(number: int) -> None:
            trains.set()
            assert go.wait(PATIENCE)

        schedule = pj.Schedule(python_trainer(on_step), data="x", batch_size=1)
        buffers = {"x": pj.ring_buffer(9, example=0.0)}
        interaction = pj.Interaction(AGENT, world, collect={})
        run = pj.launch(learning_system(trainers={"fit": schedule}, buffers=buffers, interaction=interaction))
        run.collect("x", 0.0)
        assert world.is_held.wait(PATIENCE)
        assert trains.wait(PATIENCE)
        for thread in run._engine.threads:

            def join(timeout: float, inner: Any = thread.join) -> None:
                joined.append(timeout)
                inner(timeout)

            monkeypatch.setattr(thread, "join", join)
        with pytest.raises(TimeoutError, match=r"pamiq-training, pamiq-inference did not end within 0\.2 seconds"):
            run.stop(timeout=0.2)
        assert joined[1] < joined[0] / 2  # the first one has taken all of it
        go.set()
        world.go.set()
        run.stop()

    def test_twice(self) -> None:
        run = pj.launch(fed_system())
        run.stop()
        run.stop()
        assert run.status.phase is SystemPhase.STOPPED

    def test_a_run_under_way_ends_with_its_chunk(self) -> None:
        runs: list[pj.Run] = []
        reached = threading.Event()

        def on_step(number: int) -> None:
            if number == 4:
                reached.set()
                wait_for_phase(runs[0], SystemPhase.STOPPING)

        schedule = pj.Schedule(python_trainer(on_step), data="x", batch_size=1, steps=30, steps_per_chunk=3)
        run = pj.launch(fed_system(schedule))
        runs.append(run)
        run.collect("x", 0.0)
        assert reached.wait(PATIENCE)
        run.stop()
        status = run.status.trainers["fit"]
        assert (status.phase, status.steps) == (TrainerPhase.STOPPED, 6)

    def test_what_was_learned_stays_to_be_looked_at(self) -> None:
        with pj.launch(learning_system()) as run:
            run.wait_for_version(2, PATIENCE)
        assert run.snapshot.version == run.status.version >= 2
        state = run.learner.trainers["fit"].state
        assert int(state.step) == run.status.trainers["fit"].steps
        assert bool(jnp.all(jnp.isfinite(state.params["policy"])))


class TestWait:
    def test_time_is_over(self) -> None:
        with pj.launch(fed_system()) as run:
            assert run.wait(0) is pj.WaitResult.TIMEOUT

    def test_it_ends_when_another_thread_stops_the_system(self) -> None:
        with pj.launch(fed_system()) as run:
            run.wait_until_ready()
            stopper = threading.Thread(target=run.stop)
            stopper.start()
            assert run.wait(PATIENCE) is pj.WaitResult.ENDED
            stopper.join(PATIENCE)

    def test_a_version_that_does_not_come(self) -> None:
        with pj.launch(fed_system()) as run:
            run.wait_until_ready()
            with pytest.raises(TimeoutError, match="version 1 was not published within 0 seconds; the newest is 0"):
                run.wait_for_version(1, timeout=0)


class TestData:
    def test_what_is_collected_is_trained_on(self) -> None:
        batches: list[list[float]] = []
        trainer = python_trainer(lambda number: None)

        def step(state: Any, batch: Any) -> Any:
            batches.append(sorted(np.asarray(batch).tolist()))
            return trainer.step(state, batch)

        schedule = pj.Schedule(trainer._replace(step=step), data="x", batch_size=3, when=pj.min_new(3))
        buffers = {"x": pj.ring_buffer(10, sampling="epochs", example=0.0)}
        with pj.launch(fed_system(schedule, buffers=buffers)) as run:
            assert [run.collect("x", value) for value in (1.0, 2.0, 4.0)] == [True] * 3
            run.wait_for_version(1, PATIENCE)
            run.pause()
            buffer = run.status.buffers["x"]
            assert (buffer.size, buffer.capacity, buffer.seen, buffer.dropped, buffer.pending) == (3, 10, 3, 0, 0)
        assert batches == [[1.0, 2.0, 4.0]]

    def test_records_that_find_no_room(self) -> None:
        queues = {"x": pj.Queue(capacity=2, overflow="drop_newest")}
        with pj.launch(fed_system(queues=queues)) as run:
            run.pause()
            assert [run.collect("x", value) for value in (1.0, 2.0, 3.0)] == [True, True, False]
            assert run.status.buffers["x"].dropped == 1

    def test_unknown_buffer(self) -> None:
        with pj.launch(fed_system()) as run:
            run.wait_until_ready()
            with pytest.raises(UnknownNameError, match=r"run.collect: no buffer is named 'y'; known: 'x'"):
                run.collect("y", 1.0)

    def test_a_record_of_another_form(self) -> None:
        with pj.launch(fed_system()) as run:
            with pytest.raises(RecordMismatchError, match=r"expected float32\[\], got float32\[2\]"):
                run.collect("x", np.zeros(2, np.float32))
            assert run.status.buffers["x"].seen == 0


class TestInfer:
    def test_the_newest_parameters_are_applied(self) -> None:
        with pj.launch(fed_system(models={"policy": pj.Model(jnp.arange(3.0), jnp.vdot)})) as run:
            assert float(run.infer("policy", jnp.ones(3))) == 3.0

    @pytest.mark.parametrize("name", ["unknown", "silent", "hidden"])
    def test_models_that_cannot_be_applied(self, name: str) -> None:
        models = {
            "policy": pj.Model(jnp.zeros(3), jnp.vdot),
            "silent": pj.Model(jnp.zeros(3)),
            "hidden": pj.Model(jnp.zeros(3), jnp.vdot, infer=False),
        }
        with pj.launch(fed_system(models=models)) as run:
            run.wait_until_ready()
            with pytest.raises(
                UnknownNameError, match=rf"no model with `apply` and `infer=True` is named '{name}'; known: 'policy'$"
            ):
                run.infer(name, jnp.ones(3))


class TestCompiles:
    @pytest.mark.parametrize("placement", ["device", "host"])
    def test_none_after_ready(self, placement: Any) -> None:
        jax.clear_caches()  # or an earlier test might have compiled what this one must
        buffers = {"seen": pj.ring_buffer(50, placement=placement)}
        with pj.launch(learning_system(buffers=buffers), strict=True) as run:
            run.wait_for_version(5, PATIENCE)
            run.pause()
            run.resume()
            run.wait_for_version(run.snapshot.version + 2, PATIENCE)
            assert run.status.compiles_after_ready == 0


class TestStatus:
    def test_it_reads_like_a_report(self) -> None:
        with pj.launch(learning_system()) as run:
            run.wait_for_version(1, PATIENCE)
            run.pause()
            status = run.status
        lines = str(status).splitlines()
        assert lines[0].startswith("paused, ")
        assert lines[0].endswith(f"version {status.version}")
        assert lines[1].startswith("inference: ")
        assert re.search(r"latency p50 [\d.]+ ms, p99 [\d.]+ ms, p99.9 [\d.]+ ms$", lines[1])
        assert lines[-2].startswith("trainer fit: ")
        assert "loss" in lines[-2]
        assert lines[-1].startswith("buffer seen: ")
        assert lines[-1].endswith("0 dropped")

    def test_latencies_are_told_apart_by_what_else_went_on(self) -> None:
        idle, training = (LatencyHistogram.empty().add(seconds) for seconds in (0.001, 0.01))
        both = {Meanwhile.IDLE: idle, Meanwhile.TRAINING: training.add(0.01)}
        with pj.launch(learning_system()) as run:
            status = run.status
        for while_what, lines in ((both, 3), ({Meanwhile.IDLE: idle}, 1)):
            interactions = {"agent": InferenceStatus(ticks=3, latency_while=while_what)}
            text = str(status._replace(interactions=interactions))
            html = status._replace(interactions=interactions)._repr_html_()
            assert text.count("p99.9") == lines
            assert ("  while training: 2 ticks, p50 10.23 ms, p99 10.23 ms, p99.9 10.23 ms" in text) == (lines == 3)
            assert ("agent, while idle" in html) == (lines == 3)

    def test_it_says_what_is_waited_for(self) -> None:
        schedule = pj.Schedule(learner(), data="x", batch_size=2, when=pj.min_size(7))
        with pj.launch(fed_system(schedule)) as run:
            run.collect("x", 1.0)
            run.pause()  # after a tick that has asked
            run.resume()
            run.pause()
            assert run.status.trainers["fit"].reason in ("has 0 of 7 records", "has 1 of 7 records")

    def test_deadlines_that_are_missed_are_counted(self) -> None:
        interaction = pj.Interaction(AGENT, World(), interval_seconds=1e-6)
        with pj.launch(learning_system(interaction=interaction)) as run:
            run.wait_for_version(1, PATIENCE)
            run.pause()
            assert run.status.inference.deadline_misses > run.status.inference.ticks > 0


class TestMetrics:
    def test_every_chunk_is_written_and_told(self, tmp_path: Path) -> None:
        rows: list[Any] = []
        schedule = pj.Schedule(python_trainer(lambda number: None), data="x", batch_size=1, steps=6, steps_per_chunk=2)
        with pj.launch(fed_system(schedule), directory=tmp_path, on_metrics=rows.append) as run:
            run.collect("x", 0.0)
            run.wait_for_version(3, PATIENCE)
        written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        steps = run.status.trainers["fit"].steps
        assert steps >= 18
        assert [row["step"] for row in written] == list(range(2, steps + 1, 2)) == [row.step for row in rows]
        assert [row["version"] for row in written[:6]] == [None, None, 1, None, None, 2]
        assert [row["metrics"]["number"] for row in written[:3]] == [1.5, 3.5, 5.5]
        assert {row["trainer"] for row in written} == {"fit"}
        assert [row["seconds"] for row in written] == sorted(row["seconds"] for row in written)
        assert run.status.metrics_dropped == 0

    def test_what_is_no_number_is_null_in_the_file(self, tmp_path: Path) -> None:
        trainer = python_trainer(lambda number: None)

        def step(state: Any, batch: Any) -> Any:
            state, _ = trainer.step(state, batch)
            return state, {"nan": jnp.float32(math.nan), "inf": jnp.float32(-math.inf), "one": jnp.float32(1)}

        rows: list[Any] = []
        schedule = pj.Schedule(trainer._replace(step=step), data="x", batch_size=1)
        with pj.launch(fed_system(schedule), directory=tmp_path, on_metrics=rows.append) as run:
            run.collect("x", 0.0)
            run.wait_for_version(1, PATIENCE)
        line = (tmp_path / "metrics.jsonl").read_text().splitlines()[0]

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        assert json.loads(line, parse_constant=refuse)["metrics"] == {"nan": None, "inf": None, "one": 1.0}
        assert math.isnan(rows[0].metrics["nan"])

    def test_a_second_run_appends(self, tmp_path: Path) -> None:
        schedule = pj.Schedule(python_trainer(lambda number: None), data="x", batch_size=1)
        counts = []
        for _ in range(2):
            with pj.launch(fed_system(schedule), directory=tmp_path) as run:
                run.collect("x", 0.0)
                run.wait_for_version(1, PATIENCE)
            counts.append(run.status.trainers["fit"].steps)
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == sum(counts)
