"""Trainers that get in each other's way: one group, one model, one buffer, one thread."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.data import Buffer
from pamiq_jax.errors import InvalidValueError, UnsatisfiableConditionError
from tests.runtime.fakes import PATIENCE, fed_system, python_trainer
from tests.runtime.scanning import small_system
from tests.runtime.test_models import changing, scheduled
from tests.runtime.test_train import Bench


def toward(model: str, target: float | None = None, *, reads: tuple[str, ...] = ()) -> pj.Trainer[Any, Any]:
    """Return a trainer that draws a scalar model to a number, or else to the model that it reads."""

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        goal = params[reads[0]] if target is None else target
        return (params[model] - goal) ** 2, {name: params[name] for name in reads}

    return pj.gradient_trainer(loss_fn, optax.sgd(0.25), trains=(model,), reads=reads)


def toward_all(*models: str) -> pj.Trainer[Any, Any]:
    """Return a trainer that draws all numbers of its models to 1."""

    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        return sum(jnp.mean((params[model] - 1) ** 2) for model in models), {}

    return pj.gradient_trainer(loss_fn, optax.sgd(0.25), trains=models)


def scalars(**models: float) -> dict[str, pj.Model]:
    return {name: pj.Model(jnp.float32(value)) for name, value in models.items()}


def test_what_is_handed_on_unpublished_compiles_nothing_while_it_runs_however_large() -> None:
    large = 1_200_000  # more numbers than are looked through on the host
    trainers = {
        "both": scheduled(toward_all("policy", "world")),
        "world": scheduled(toward_all("world")),
    }
    models = {"policy": pj.Model(jnp.zeros(3)), "world": pj.Model(jnp.zeros(large), infer=False)}
    with pj.launch(fed_system(models=models, trainers=trainers), strict=True) as run:
        run.wait_until_ready()
        for value in range(100):
            run.collect("x", float(value))
        run.wait_for_version(2, PATIENCE)
        assert run.status.compiles_after_ready == 0


class TestGroups:
    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_a_swap_publishes_what_was_trained_last_in_whatever_order_they_are_declared(self, order: str) -> None:
        after = {"a": ("b",), "b": ()}
        more = changing(lambda w: w + 1)
        trainers = {name: scheduled(more, group="g", after=after[name]) for name in order}
        bench = Bench(fed_system(trainers=trainers))
        bench.feed(1)
        for _ in range(4):
            bench.tick()
        assert bench.cells.store.latest.version >= 1
        np.testing.assert_array_equal(bench.cells.store.latest.params["policy"], bench.learner.models["policy"])

    def test_what_waits_for_its_group_is_not_older_than_what_was_published_meanwhile(self) -> None:
        trainers = {
            "keeps": scheduled(changing(lambda w: w), group="g"),
            "slow": scheduled(changing(lambda w: w, trains=("other",)), group="g", steps=6, steps_per_chunk=1),
            "adds": scheduled(changing(lambda w: w + 1)),
        }
        models = {name: pj.Model(jnp.zeros(3)) for name in ("policy", "other")}
        bench = Bench(fed_system(models=models, trainers=trainers))
        bench.feed(1)
        seen: list[float] = []
        for _ in range(40):
            bench.tick()
            seen.append(float(bench.cells.store.latest.params["policy"][0]))
        assert seen == sorted(seen)
        assert bench.learner.trainers["keeps"].runs > 1

    def test_a_scan_publishes_the_same(self) -> None:
        def system() -> pj.System:
            more = changing(lambda w: w + 1)
            return small_system(
                trainers={
                    "a": pj.Schedule(more, data="seen", batch_size=1, group="g", after=("b",)),
                    "b": pj.Schedule(more, data="seen", batch_size=1, group="g"),
                },
            )

        scanned = pj.run_scanned(system(), 12)
        stepped = pj.run_lockstep(system(), 12)
        (end,) = jax.tree.leaves(scanned.snapshot.params)
        np.testing.assert_array_equal(end, *jax.tree.leaves(stepped.snapshot.params))
        np.testing.assert_array_equal(end, *jax.tree.leaves(dict(scanned.learner.models)))


class TestWhatATrainerOnlyPublishes:
    def jepa(self) -> pj.Trainer[Any, Any]:
        return pj.with_targets(
            toward("context", 1.0, reads=("target",)), {"target": "context"}, 0.5, publishes=("target",)
        )

    def test_reaches_the_trainers_that_read_it(self) -> None:
        system = fed_system(
            models={**scalars(target=0.0, dynamics=0.0), "context": pj.Model(jnp.float32(0), infer=False)},
            trainers={"jepa": scheduled(self.jepa()), "dynamics": scheduled(toward("dynamics", reads=("target",)))},
        )
        bench = Bench(system, check_donation=True)
        bench.feed(1)
        read = []
        for _ in range(40):
            report = bench.tick()
            assert report.error is None
            if report.trainer == "dynamics":
                read.append(float(report.metrics["target"]))
        assert read == sorted(read)
        assert read[0] < read[-1] == pytest.approx(1, abs=1e-3)

    def test_is_noted_as_made_and_not_as_forgotten(self) -> None:
        system = fed_system(models=scalars(context=0.0, target=0.0), trainers={"jepa": scheduled(self.jepa())})
        assert "no trainer trains model 'target'" not in str(system.describe())

    def test_is_not_one_that_stays_as_it_is(self) -> None:
        models = {**scalars(context=0.0), "target": pj.Model(jnp.float32(7), train=False)}
        with pytest.raises(
            InvalidValueError, match="model 'target' train is False, expected True, since trainer 'a' p"
        ):
            fed_system(models=models, trainers={"a": scheduled(self.jepa())})

    def test_is_made_by_one_trainer_alone(self) -> None:
        trainers = {"a": scheduled(self.jepa()), "b": scheduled(toward("target", -20.0))}
        with pytest.raises(InvalidValueError, match="trainer 'a' publishes is 'target', expected only models that no"):
            fed_system(models=scalars(context=0.0, target=0.0), trainers=trainers)

    def test_is_not_cast_if_it_is_read(self) -> None:
        models = {**scalars(context=0.0, dynamics=0.0), "target": pj.Model(jnp.float32(0), dtype=jnp.bfloat16)}
        trainers = {"a": scheduled(self.jepa()), "b": scheduled(toward("dynamics", reads=("target",)))}
        with pytest.raises(InvalidValueError, match="model 'target' dtype"):
            fed_system(models=models, trainers=trainers)


class TestTime:
    """The clock moves only within steps, so that time is exactly what the test says."""

    def shares(self, ticks: int, steps: dict[str, int], **changes: Any) -> dict[str, int]:
        bench: Bench | None = None

        def on_step(number: int) -> None:
            assert bench is not None
            bench.clock.advance(1.0)

        trainers = {
            name: scheduled(python_trainer(on_step), steps=count, steps_per_chunk=1, **changes.get(name, {}))
            for name, count in steps.items()
        }
        bench = Bench(fed_system(trainers=trainers))
        bench.feed(1)
        done = [bench.tick().trainer for _ in range(ticks)]
        return {name: done.count(name) for name in steps}

    def test_one_that_waits_for_the_model_keeps_its_claim(self) -> None:
        shares = self.shares(200, {"long": 50, "short": 1})
        assert abs(shares["long"] - 100) <= 50
        assert abs(shares["short"] - 100) <= 50

    def test_one_that_waits_for_data_saves_nothing_up(self) -> None:
        bench: Bench | None = None

        def on_step(number: int) -> None:
            assert bench is not None
            bench.clock.advance(1.0)

        models = {name: pj.Model(jnp.zeros(3)) for name in ("a", "b")}
        trainers = {
            "a": scheduled(python_trainer(on_step, model="a")),
            "b": scheduled(python_trainer(on_step, model="b"), when=pj.min_size(2)),
        }
        bench = Bench(fed_system(models=models, trainers=trainers))
        bench.feed(1)
        assert {bench.tick().trainer for _ in range(30)} == {"a"}
        bench.feed(1)
        done = [bench.tick().trainer for _ in range(10)]
        assert abs(done.count("b") - 5) <= 1


class TestBuffers:
    def test_runs_that_overlap_leave_room_for_a_buffer_to_be_filled(self) -> None:
        models = {name: pj.Model(jnp.zeros(3)) for name in ("a", "b")}
        trainers = {
            name: scheduled(changing(lambda w: w + 1, trains=(name,)), steps=steps, steps_per_chunk=1)
            for name, steps in (("a", 7), ("b", 11))
        }
        buffers = {"x": pj.ring_buffer(1000, sampling="epochs", example=0.0)}
        system = fed_system(models=models, buffers=buffers, trainers=trainers, queues={"x": pj.Queue(capacity=64)})
        bench = Bench(system)
        reasons = set[str]()
        for _ in range(400):
            bench.feed(1)
            bench.tick()
            reasons |= {run.reason for run in bench.learner.trainers.values()}
        assert bench.cells.collectors["x"].counts.dropped == 0
        assert any(reason.startswith("waits until buffer 'x', which a run is under way on") for reason in reasons)

    def every_second(self) -> Buffer[Any, Any, Any]:
        """Return a buffer that stores every second record of what it is given."""
        room = 64

        def add(state: Any, records: Any, count: Any) -> Any:
            values, seen, size = state
            rows = jnp.arange(records.data.shape[0])
            takes = (rows < count) & ((seen + rows) % 2 == 1)
            places = jnp.where(takes, (size + jnp.cumsum(takes) - 1) % room, room)
            return values.at[places].set(records.data, mode="drop"), seen + count, size + jnp.sum(takes)

        return Buffer(
            init=lambda example: (jnp.zeros(room), jnp.int32(0), jnp.int32(0)),
            add=add,
            sample=lambda state, batch_size, position, key: state[0][
                jax.random.randint(key, (batch_size,), 0, jnp.maximum(state[2], 1))
            ],
            size=lambda state: jnp.minimum(state[2], room),
            capacity=room,
            example=0.0,
        )

    def test_the_size_that_conditions_and_status_see_is_the_buffers_own(self) -> None:
        system = fed_system(
            buffers={"x": self.every_second()}, trainers={"t": scheduled(changing(lambda w: w), when=pj.min_size(5))}
        )
        bench = Bench(system)
        bench.feed(9)
        assert bench.tick().trainer is None
        assert bench.learner.trainers["t"].reason == "has 4 of 5 records"
        bench.feed(1)
        assert bench.tick().trainer == "t"
        assert bench.learner.buffers["x"].size == 5


class TestOrder:
    def test_a_version_that_only_one_can_publish_who_waits_for_the_waiting(self) -> None:
        trainers = {
            "a": scheduled(changing(lambda w: w), after=("b",)),
            "b": scheduled(changing(lambda w: w, trains=("n",)), when=pj.every_versions(1)),
        }
        models = {name: pj.Model(jnp.zeros(3)) for name in ("policy", "n")}
        with pytest.raises(UnsatisfiableConditionError, match="trainer 'b' would wait for ever"):
            fed_system(models=models, trainers=trainers)
        fed_system(models=models, trainers={**trainers, "c": scheduled(changing(lambda w: w))})
