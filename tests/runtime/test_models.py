"""Trainers that hand models on, read them, publish together, and share the thread."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.conditions import max_duty
from pamiq_jax.errors import InvalidValueError, PublishMismatchError, UnknownNameError, WorkerError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.trainer import ReadingState
from tests.runtime.fakes import World, fed_system, python_trainer
from tests.runtime.test_train import Bench


def changing(change: Any, *, trains: tuple[str, ...] = ("policy",)) -> pj.Trainer[Any, Any]:
    """Return a compiled trainer that applies `change` to each of its models at each step."""

    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        mine = {name: params[name] for name in trains}
        return pj.TrainerState(mine, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        return state.replace(params=jax.tree.map(change, state.params), step=state.step + 1), {}

    return pj.custom_trainer(init, step, trains=trains)


def scheduled(trainer: pj.Trainer[Any, Any], **changes: Any) -> pj.Schedule:
    return pj.Schedule(**{"trainer": trainer, "data": "x", "batch_size": 1, **changes})


class TestHandingOn:
    def test_the_second_run_starts_from_the_first_ones_result(self) -> None:
        trainers = {"add": scheduled(changing(lambda w: w + 1)), "double": scheduled(changing(lambda w: w * 2))}
        bench = Bench(fed_system(trainers=trainers), check_donation=True)
        bench.feed(1)
        values = []
        for _ in range(6):
            assert bench.tick().error is None
            values.append(float(bench.cells.store.latest.params["policy"][0]))
        assert values == [1, 2, 3, 6, 7, 14]

    def test_no_run_begins_on_a_model_that_another_is_training(self) -> None:
        trainers = {
            "long": scheduled(changing(lambda w: w + 1), steps=3, steps_per_chunk=1),
            "other": scheduled(changing(lambda w: w * 2)),
        }
        bench = Bench(fed_system(trainers=trainers))
        bench.feed(1)
        assert [bench.tick().trainer for _ in range(2)] == ["long", "long"]
        assert bench.run("other").reason == "waits for 'long', which is training policy"
        assert [bench.tick().trainer for _ in range(2)] == ["long", "other"]
        assert float(bench.cells.store.latest.params["policy"][0]) == 6


class TestReading:
    def test_a_read_model_is_the_newest_and_stays_untouched(self) -> None:
        def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
            return jnp.sum(params["policy"]), {"world": params["world"][0]}

        reader = pj.gradient_trainer(loss_fn, optax.sgd(0.0), trains=("policy",), reads=("world",))
        models = {"policy": pj.Model(jnp.zeros(3)), "world": pj.Model(jnp.zeros(3))}
        trainers = {"world": scheduled(changing(lambda w: w + 1, trains=("world",))), "reader": scheduled(reader)}
        bench = Bench(fed_system(models=models, trainers=trainers), check_donation=True)
        bench.feed(1)
        seen = []
        for _ in range(8):
            report = bench.tick()
            assert report.error is None
            if report.trainer == "reader":
                seen.append(float(report.metrics["world"]))
        assert seen == [1, 2, 3, 4]
        assert float(bench.cells.store.latest.params["world"][0]) == 4

    def test_a_frozen_model_is_read_and_never_changes(self) -> None:
        def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
            return jnp.sum((params["policy"] - params["world"]) ** 2), {}

        reader = pj.gradient_trainer(loss_fn, optax.sgd(0.5), trains=("policy",), reads=("world",))
        models = {"policy": pj.Model(jnp.zeros(3)), "world": pj.Model(jnp.ones(3), train=False)}
        bench = Bench(fed_system(models=models, trainers={"reader": scheduled(reader, steps=4)}))
        bench.feed(1)
        bench.tick()
        params = bench.cells.store.latest.params
        assert params["world"].tolist() == [1, 1, 1]
        assert params["policy"].tolist() == [1, 1, 1]


def test_a_group_publishes_in_one_swap() -> None:
    models = {"policy": pj.Model(jnp.zeros(3)), "value": pj.Model(jnp.zeros(3))}
    trainers = {
        "p": scheduled(changing(lambda w: w + 1), group="both"),
        "v": scheduled(changing(lambda w: w + 1, trains=("value",)), group="both"),
    }
    bench = Bench(fed_system(models=models, trainers=trainers))
    bench.feed(1)
    versions = [bench.tick().version for _ in range(4)]
    assert versions == [None, 1, None, 2]
    params = bench.cells.store.latest.params
    assert float(params["policy"][0]) == float(params["value"][0]) == 2


def test_an_agent_of_models_on_different_devices_is_told_the_remedy() -> None:
    def act(params: Any, carry: Any, observation: Any, rng_key: Any) -> Any:
        return carry, params["here"] + params["there"], {}

    models = {"here": pj.Model(jnp.float32(0)), "there": pj.Model(jnp.float32(0), device=jax.devices()[1])}
    system = pj.System(models=models, interaction=pj.Interaction(pj.Agent(act), World()))
    with pytest.raises(ValueError, match="incompatible devices") as raised:
        pj.compile_system(system)
    (note,) = (note for note in raised.value.__notes__ if "the agent uses" in note)
    assert f"'there': ['{jax.devices()[1]}']" in note
    assert note.endswith("give all models that the agent uses the same Model(device=), or none of them any")


def test_published_in_another_dtype_and_place() -> None:
    device = jax.devices()[3]
    models = {"policy": pj.Model(jnp.zeros(3), dtype=jnp.bfloat16, device=device)}
    bench = Bench(fed_system(models=models, trainers={"fit": scheduled(changing(lambda w: w + 1))}))
    before = bench.cells.store.latest.params["policy"]
    bench.feed(1)
    bench.tick()
    after = bench.cells.store.latest.params["policy"]
    for published in (before, after):
        assert published.dtype == jnp.bfloat16
        assert published.devices() == {device}
    assert after.tolist() == [1, 1, 1]
    assert bench.learner.trainers["fit"].state.params["policy"].dtype == jnp.float32


TWO_MODELS = {name: pj.Model(jnp.zeros(3)) for name in ("policy", "value")}


class TestWhatIsNotDeclared:
    def test_a_model_that_is_published_all_the_same_is_refused(self) -> None:
        both = changing(lambda w: w + 1)._replace(publish=lambda state: {**state.params, "value": jnp.ones(3)})
        match = r"trainer 'fit' declares \['policy'\], but its `publish` returned \['value'\] too; name .* `publishes`"
        with pytest.raises(PublishMismatchError, match=match):
            pj.compile_system(fed_system(scheduled(both), models=TWO_MODELS))
        pj.compile_system(fed_system(scheduled(both._replace(publishes=("policy", "value"))), models=TWO_MODELS))

    def test_a_read_model_that_is_published_is_refused(self) -> None:
        reading = pj.gradient_trainer(
            lambda params, x, key: (jnp.vdot(params["policy"], params["value"]), {}),
            optax.sgd(0.1),
            trains=("policy",),
            reads=("value",),
        )
        wrong = reading._replace(publish=lambda state: {**state.params, **state.reads})
        with pytest.raises(PublishMismatchError, match=r"returned \['value'\] too"):
            pj.compile_system(fed_system(scheduled(wrong), models=TWO_MODELS))

    def test_a_trained_model_that_inference_may_not_see_is_none_of_them(self) -> None:
        models = {**TWO_MODELS, "value": pj.Model(jnp.zeros(3), infer=False)}
        trainer = changing(lambda w: w + 1, trains=("policy", "value"))
        assert pj.compile_system(fed_system(scheduled(trainer), models=models)).params.keys() == {"policy"}

    def test_what_a_step_makes_of_a_read_model_is_lost_when_the_next_run_begins(self) -> None:
        def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
            trained, read = {"policy": params["policy"]}, {"value": params["value"]}
            return ReadingState(trained, (), jnp.zeros((), jnp.int32), rng_key, reads=read)

        def step(state: Any, batch: Any) -> Any:
            params, reads = jax.tree.map(lambda w: w + 1, (state.params, state.reads))
            return state.replace(params=params, reads=reads, step=state.step + 1), {}

        greedy = pj.custom_trainer(
            init,
            step,
            trains=("policy",),
            reads=("value",),
        )
        bench = Bench(fed_system(scheduled(greedy), models=TWO_MODELS))
        bench.feed(1)
        for _ in range(2):
            assert bench.tick().error is None
        assert bench.cells.store.latest.params["value"].tolist() == [0, 0, 0]
        state = bench.learner.trainers["fit"].state
        assert (float(state.params["policy"][0]), float(state.reads["value"][0])) == (2, 1)


def test_batches_from_several_buffers_by_name() -> None:
    def init(rng_key: jax.Array, params: Any) -> pj.TrainerState[Any]:
        return pj.TrainerState(params, (), jnp.zeros((), jnp.int32), rng_key)

    def step(state: pj.TrainerState[Any], batch: Any) -> Any:
        return state, {"real": jnp.sum(batch["real"]), "dream": jnp.sum(batch["dream"])}

    trainer = pj.custom_trainer(init, step, trains=("policy",))
    schedule = pj.Schedule(
        trainer,
        data={"real": "x", "dream": "y"},
        batch_size={"real": 2, "dream": 3},
        when={"dream": pj.min_size(3)},
    )
    ring = pj.ring_buffer(10, sampling="in_order", example=0.0)
    bench = Bench(fed_system(schedule, buffers={"x": ring, "y": ring}))
    for value in (1.0, 2.0):
        bench.cells.collectors["x"].collect(value, 0)
    assert bench.tick().trainer is None
    assert bench.learner.trainers["fit"].reason == "dream: has 0 of 3 records"
    for value in (10.0, 20.0, 30.0):
        bench.cells.collectors["y"].collect(value, 0)
    metrics = bench.tick().metrics
    assert (float(metrics["real"]), float(metrics["dream"])) == (3, 60)


class TestSharing:
    """The clock moves only within steps, so that time is exactly what the test says."""

    def shares(self, ticks: int, seconds: dict[str, float], **changes: dict[str, Any]) -> dict[str, int]:
        models = {name: pj.Model(jnp.zeros(3)) for name in seconds}
        trainers: dict[str, pj.Schedule] = {}
        bench: Bench | None = None

        def trainer_of(name: str) -> pj.Trainer[Any, Any]:
            def on_step(number: int) -> None:
                assert bench is not None
                bench.clock.advance(seconds[name])

            return python_trainer(on_step, model=name)

        for name in seconds:
            trainers[name] = scheduled(trainer_of(name), **changes.get(name, {}))
        bench = Bench(fed_system(models=models, trainers=trainers))
        bench.feed(1)
        done = [bench.tick().trainer for _ in range(ticks)]
        return {name: done.count(name) for name in seconds}

    def test_a_slow_trainer_does_not_starve_the_others(self) -> None:
        shares = self.shares(55, {"slow": 10.0, "quick": 1.0})
        assert abs(shares["slow"] - 5) <= 1
        assert abs(shares["quick"] - 50) <= 1

    def test_weights(self) -> None:
        shares = self.shares(40, {"heavy": 1.0, "light": 1.0}, heavy={"weight": 3.0})
        assert abs(shares["heavy"] - 30) <= 1

    def test_priorities(self) -> None:
        assert self.shares(10, {"low": 1.0, "high": 1.0}, high={"priority": 1}) == {"low": 0, "high": 10}

    def test_who_waits_for_a_higher_priority_says_so(self) -> None:
        trainers = {
            "low": scheduled(python_trainer(lambda number: None, model="low")),
            "high": scheduled(python_trainer(lambda number: None, model="high"), priority=1),
        }
        bench = Bench(fed_system(models={name: pj.Model(jnp.zeros(3)) for name in trainers}, trainers=trainers))
        bench.feed(1)
        assert bench.tick().trainer == "high"
        assert bench.learner.trainers["low"].reason.endswith("; 'high' goes first, its priority is higher")

    def test_after(self) -> None:
        shares = self.shares(12, {"first": 1.0, "second": 1.0}, first={"weight": 10.0}, second={"after": ("first",)})
        assert 0 < shares["second"] <= shares["first"]

    def test_a_duty_leaves_time_free(self) -> None:
        bench: Bench | None = None

        def on_step(number: int) -> None:
            assert bench is not None
            bench.clock.advance(1.0)

        bench = Bench(fed_system(scheduled(python_trainer(on_step), when=max_duty(0.25))))
        bench.feed(1)
        done = 0
        for _ in range(100):
            if bench.tick().trainer is None:
                bench.clock.advance(1.0)
            else:
                done += 1
        assert bench.learner.trainers["fit"].phase is TrainerPhase.WAITING
        assert done / bench.clock.now() <= 0.27
        assert done > 10


class TestLive:
    def test_the_learning_rate_changes_while_it_runs_without_a_compile(self) -> None:

        tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
        trainer = pj.gradient_trainer(lambda params, x, key: (jnp.sum(params["policy"]), {}), tx, trains=("policy",))
        rows: list[Any] = []
        with pj.launch(fed_system(scheduled(trainer)), strict=True, on_metrics=rows.append) as run:
            run.collect("x", 1.0)
            run.wait_for_version(2, 60)
            assert run.snapshot.params["policy"].tolist() == [0, 0, 0]
            assert run.trainers["fit"].hyperparameters() == {"learning_rate": 0.0}
            run.pause()
            run.trainers["fit"].set(learning_rate=0.5)
            run.resume()
            run.wait_for_version(run.snapshot.version + 2, 60)
            assert float(run.snapshot.params["policy"][0]) < 0
            with pytest.raises(InvalidValueError, match="'momentum'"):
                run.trainers["fit"].set(momentum=0.5)
            with pytest.raises(UnknownNameError, match=r"run.trainers: no trainer is named 'nope'; known: 'fit'"):
                run.trainers["nope"]
            assert list(run.trainers) == ["fit"]
            assert "nope" not in run.trainers
            assert (run.status.compiles_after_ready, run.status.errors) == (0, ())
        assert any("set_learning_rate" in row.metrics for row in rows)
        with pytest.raises(InvalidValueError, match="run is 'stopped', expected a run that has not ended; pamiq-train"):
            run.trainers["fit"].set(learning_rate=1.0)
        with pytest.raises(InvalidValueError, match="run is 'stopped', expected a run that has not ended"):
            run.trainers["fit"].hyperparameters()

    def test_transitions_are_told_in_order_on_the_thread_that_makes_them(self) -> None:

        told: list[tuple[Any, str]] = []
        with pj.launch(
            fed_system(scheduled(changing(lambda w: w + 1), when=pj.min_new(1))),
            on_transition=lambda transition: told.append((transition, threading.current_thread().name)),
        ) as run:
            run.collect("x", 1.0)
            run.wait_for_version(1, 60)
            run.pause()
            run.resume()
        assert sorted(transition.sequence for transition, _ in told) == list(range(len(told)))
        trainer = [str(transition.event) for transition, _ in told if transition.machine == "trainer fit"]
        assert trainer[:5] == ["start", "set_up", "steps_done", "published", "torn_down"]
        system = sorted(transition for transition, _ in told if transition.machine == "system")
        for earlier, later in itertools.pairwise(system):
            assert earlier.after == later.before
        threads = {str(transition.event): name for transition, name in told}
        assert threads["torn_down"] == "pamiq-training"
        assert threads["pause"] == threads["resume"] == threading.current_thread().name
        assert threads["all_paused"] == "pamiq-training"

    def test_a_hook_that_raises_is_an_error_with_its_name(self) -> None:
        def curious(transition: Any) -> None:
            raise KeyError("lost")

        run = pj.launch(fed_system(), on_transition=curious)
        with pytest.raises(WorkerError, match=r"on_transition curious.*lost"):
            run.wait(60)
        run.stop()

    def test_time_can_be_scaled(self) -> None:
        with pytest.raises(InvalidValueError, match=r"RealClock\(scale\) is 0"):
            pj.launch(fed_system(), time_scale=0)
        hourly = scheduled(changing(lambda w: w + 1), when=pj.every_seconds(3600))
        with pj.launch(fed_system(hourly), time_scale=36_000) as run:
            run.collect("x", 1.0)
            assert run.wait_for_version(3, 60).published_at > 3 * 3600
