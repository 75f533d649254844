from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.data import rollout_buffer
from pamiq_jax.errors import InvalidValueError, UnknownNameError, UnsatisfiableConditionError
from tests.runtime.fakes import AGENT, World, fed_system, learner, learning_system, python_trainer


def schedule(**changes: Any) -> pj.Schedule:
    return pj.Schedule(**{"trainer": learner(), "data": "x", "batch_size": 4, **changes})


class TestNames:
    def test_unknown_buffer_lists_the_known_ones(self) -> None:
        with pytest.raises(UnknownNameError, match="trainer 'fit': no buffer is named 'y'; known: 'x'"):
            fed_system(schedule(data="y"))

    def test_unknown_trained_model_lists_the_known_ones(self) -> None:
        with pytest.raises(UnknownNameError, match="trainer 'fit': no model is named 'critic'; known: 'policy'"):
            fed_system(schedule(trainer=learner("critic")))

    def test_unknown_published_model(self) -> None:
        trainer = learner()._replace(publishes=("policy", "average"))
        with pytest.raises(UnknownNameError, match="no model is named 'average'"):
            fed_system(schedule(trainer=trainer))

    def test_collect_into_an_unknown_buffer(self) -> None:
        interaction = pj.Interaction(AGENT, World(), collect={"sen": lambda record: record})
        with pytest.raises(
            UnknownNameError, match=r"Interaction\(collect\) of 'agent': no buffer is named 'sen'; .*'seen'"
        ):
            learning_system(interaction=interaction)

    def test_queue_of_an_unknown_buffer(self) -> None:
        with pytest.raises(UnknownNameError, match=r"System\(queues\): no buffer is named 'y'"):
            fed_system(queues={"y": pj.Queue()})

    def test_an_unknown_name_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="known: 'x'"):
            fed_system(schedule(data="y"))


class TestCombinations:
    def test_what_several_trainers_train_is_handed_on(self) -> None:
        everything = learner()._replace(trains=None, publishes=None)
        system = fed_system(trainers={"a": schedule(trainer=everything), "b": schedule()})
        assert system.handed_on == {"policy"}
        assert fed_system(trainers={"a": schedule()}).handed_on == set()

    def test_a_model_that_stays_as_it_is(self) -> None:
        with pytest.raises(InvalidValueError, match="model 'policy' train is False, expected True, since trainer 'a'"):
            fed_system(models={"policy": pj.Model(jnp.zeros(3), train=False)}, trainers={"a": schedule()})

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"trains": ("policy",)}, "trainer 'fit' reads is 'policy', expected models that it does not train itself"),
            ({"trains": ("other",)}, "trainer 'fit' publishes is 'policy', expected no model that it only reads"),
        ],
    )
    def test_a_read_model_is_neither_trained_nor_published(self, change: Any, match: str) -> None:
        trainer = learner()._replace(reads=("policy",), publishes=("policy",), **change)
        models = {"policy": pj.Model(jnp.zeros(3)), "other": pj.Model(jnp.zeros(3))}
        with pytest.raises(InvalidValueError, match=match):
            fed_system(schedule(trainer=trainer), models=models)

    def test_trainers_that_wait_in_a_circle(self) -> None:
        trainers = {"a": schedule(after=("b",)), "b": schedule(after=("a",))}
        with pytest.raises(
            InvalidValueError,
            match=r"Schedule\(after\) is \"(trainer '.'( -> )?){3}\", expected an order.*; take one of them out",
        ):
            fed_system(trainers=trainers)

    def test_after_a_trainer_that_does_not_exist(self) -> None:
        with pytest.raises(UnknownNameError, match="no trainer is named 'c'"):
            fed_system(trainers={"a": schedule(after=("c",))})

    def test_published_but_hidden_from_inference(self) -> None:
        models = {"policy": pj.Model(jnp.zeros(3)), "average": pj.Model(jnp.zeros(3), infer=False)}
        trainer = learner()._replace(publishes=("policy", "average"))
        with pytest.raises(
            InvalidValueError, match="model 'average' infer is False, expected True, since trainer 'fit'"
        ):
            fed_system(schedule(trainer=trainer), models=models)

    def test_a_trained_model_may_be_hidden_from_inference(self) -> None:
        system = fed_system(schedule(), models={"policy": pj.Model(jnp.zeros(3), infer=False)})
        assert system.trained_by("fit") == ("policy",)
        assert system.published_by("fit") == ()

    def test_batch_larger_than_its_buffer(self) -> None:
        buffers = {"x": pj.ring_buffer(8, sampling="epochs", example=0.0)}
        with pytest.raises(InvalidValueError, match="trainer 'fit' batch_size is 9, expected at most 8"):
            fed_system(schedule(batch_size=9), buffers=buffers)

    def test_condition_that_never_holds(self) -> None:
        with pytest.raises(UnsatisfiableConditionError, match="trainer 'fit' would wait for ever for min_size"):
            fed_system(schedule(when=pj.min_size(101)))

    def test_condition_that_contradicts_itself(self) -> None:
        with pytest.raises(UnsatisfiableConditionError, match=r"'fit' .* ~min_new\(5\) exclude each other; leave"):
            fed_system(schedule(when=pj.min_new(10) & ~pj.min_new(5)))

    @pytest.mark.parametrize(
        "when", [pj.every_versions(1), pj.every_versions(3) & pj.min_size(4), {"a": pj.every_versions(1)}], ids=repr
    )
    def test_a_version_that_nobody_else_can_publish(self, when: Any) -> None:
        source = {"data": {"a": "x"}} if isinstance(when, dict) else {}
        with pytest.raises(
            UnsatisfiableConditionError, match=r"'fit' would wait for ever for .*: no version is .*; give"
        ):
            fed_system(schedule(when=when, **source))

    def test_a_version_that_nobody_publishes_before_his_group_is_complete(self) -> None:
        first, second = schedule(group="all"), schedule(group="all", when=pj.every_versions(1))
        trainers = {"first": first, "second": second}
        with pytest.raises(UnsatisfiableConditionError, match="trainer 'second' would wait for ever"):
            fed_system(trainers=trainers)
        fed_system(trainers={**trainers, "third": schedule()})

    def test_a_version_of_a_trainer_that_publishes_nothing(self) -> None:
        models = {"policy": pj.Model(jnp.zeros(3)), "hidden": pj.Model(jnp.zeros(3), infer=False)}
        trainers = {"one": schedule(trainer=learner("hidden")), "other": schedule(when=pj.every_versions(1))}
        with pytest.raises(UnsatisfiableConditionError, match="trainer 'other' would wait for ever"):
            fed_system(trainers=trainers, models=models)

    @pytest.mark.parametrize("when", [pj.every_versions(1) | pj.min_new(4), ~pj.every_versions(1)], ids=repr)
    def test_a_version_need_not_be_waited_for(self, when: pj.Condition) -> None:
        (built,) = fed_system(schedule(when=when)).trainers.values()
        assert built.when == when


class TestNumbers:
    @pytest.mark.parametrize("name", ["batch_size", "steps"])
    def test_schedule_needs_positive_numbers(self, name: str) -> None:
        with pytest.raises(InvalidValueError, match=rf"Schedule\({name}\) is 0, expected an integer from 1"):
            schedule(**{name: 0})

    @pytest.mark.parametrize("chunk", [0, 5, 24])
    def test_chunks_divide_the_run(self, chunk: int) -> None:
        with pytest.raises(InvalidValueError, match=r"a divisor of steps=12: \[1, 2, 3, 4, 6, 12\]"):
            schedule(steps=12, steps_per_chunk=chunk)

    @pytest.mark.parametrize(("steps", "chunk"), [(1, 1), (12, 12), (96, 16), (17, 1), (34, 2)])
    def test_default_chunk_is_the_largest_divisor_up_to_16(self, steps: int, chunk: int) -> None:
        assert schedule(steps=steps).chunk == chunk

    def test_uncompiled_steps_are_chunks_of_their_own(self) -> None:
        assert schedule(trainer=learner()._replace(compiled=False), steps=12).chunk == 1

    @pytest.mark.parametrize("interval", [0, -0.1, float("inf"), float("nan"), "1"])
    def test_interval(self, interval: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"Interaction\(interval_seconds\) is .*, expected more than 0"):
            pj.Interaction(AGENT, World(), interval_seconds=interval)

    @pytest.mark.parametrize("scale", [0, float("inf"), float("nan")])
    def test_time_scale(self, scale: float) -> None:
        with pytest.raises(InvalidValueError, match=r"RealClock\(scale\) is .*, expected more than 0 and finite; 1 is"):
            pj.launch(fed_system(), time_scale=scale)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"weight": float("inf")}, r"Schedule\(weight\) is inf, expected more than 0 and finite; 1 is"),
            ({"weight": float("nan")}, r"Schedule\(weight\) is nan, expected more than 0 and finite"),
            ({"priority": "high"}, r"Schedule\(priority\) is 'high', expected a number; 0 is"),
            ({"group": 3}, r"Schedule\(group\) is 3, expected a name, or None; give"),
            ({"after": "enc"}, r"Schedule\(after\) is 'enc', expected a tuple of trainer names; write \('enc',\)"),
            ({"steps": 4, "steps_per_chunk": 2.0}, r"Schedule\(steps_per_chunk\) is 2.0, expected an integer from 1"),
            ({"after": (1,)}, r"Schedule\(after\) is \(1,\), expected a tuple of trainer names"),
            ({"trainer": max}, r"Schedule\(trainer\) is 'builtin_.*', expected a Trainer; make one"),
        ],
    )
    def test_what_a_schedule_is_refused_for(self, change: dict[str, Any], match: str) -> None:
        with pytest.raises(InvalidValueError, match=match):
            schedule(**change)

    @pytest.mark.parametrize("argument", ["trains", "publishes", "reads"])
    def test_one_name_instead_of_a_tuple(self, argument: str) -> None:
        inner = learner()
        names: Any = {argument: "abc"}
        match = rf"custom_trainer\({argument}\) is 'abc', expected a tuple of model names; write \('abc',\)"
        with pytest.raises(InvalidValueError, match=match):
            pj.custom_trainer(inner.init, inner.step, **names)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"trainers": {"t": learner()}}, r"System\(trainers\) 't' is 'Trainer', expected a Schedule; .*Schedule\("),
            ({"models": {"a": np.zeros(3)}}, r"System\(models\) 'a' is 'ndarray', expected a Model; .*Model\(params\)"),
            ({"buffers": {"x": []}}, r"System\(buffers\) 'x' is 'list', expected a Buffer; make one"),
            ({"queues": {"x": 100}}, r"System\(queues\) 'x' is 'int', expected a Queue; write Queue\("),
            ({"models": pj.Model(0.0)}, r"System\(models\) is 'Model', expected a dict of Model by name; give each"),
        ],
    )
    def test_parts_of_another_kind(self, change: dict[str, Any], match: str) -> None:
        with pytest.raises(InvalidValueError, match=match):
            fed_system(**change)

    @pytest.mark.parametrize("device", ["cpu:0", 0, {"w": "cpu"}])
    def test_a_device_by_its_name(self, device: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"Model\(device\) is .*, expected a jax.Device .*; write jax.dev"):
            pj.Model({"w": jnp.zeros(3)}, device=device)

    def test_a_device_or_a_sharding(self) -> None:
        device = jax.devices()[1]
        for place in (device, jax.sharding.SingleDeviceSharding(device), {"w": device}):
            assert pj.Model({"w": jnp.zeros(3)}, device=place).device is place

    @pytest.mark.parametrize("name", ["capacity", "chunk"])
    def test_queue_needs_positive_numbers(self, name: str) -> None:
        with pytest.raises(InvalidValueError, match=rf"Queue\({name}\) is 0"):
            pj.Queue(**{name: 0})

    def test_queue_overflow(self) -> None:
        with pytest.raises(InvalidValueError, match=r"Queue\(overflow\) is 'block', expected \"drop_oldest\" or"):
            pj.Queue(overflow="block")  # type: ignore[arg-type]

    def test_rows_fit_queue_and_buffer(self) -> None:
        system = fed_system(queues={"x": pj.Queue(capacity=50, chunk=300)})
        assert system.rows("x") == 50
        assert fed_system(buffers={"x": pj.ring_buffer(7, example=0.0)}).rows("x") == 7


def test_agent_of_another_kind() -> None:
    with pytest.raises(InvalidValueError, match=r"Interaction\(agent\) is 'function', .*wrap a pure function"):
        pj.Interaction(lambda *_: None, World())  # type: ignore[arg-type]


def test_buffer_that_nothing_feeds_needs_an_example() -> None:
    with pytest.raises(InvalidValueError, match=r"buffer 'x' example is None, .*pass `example=`"):
        pj.compile_system(fed_system(buffers={"x": pj.ring_buffer(10)}))


def test_by_default_every_buffer_gets_the_whole_record() -> None:
    system = learning_system(buffers={"seen": pj.ring_buffer(10), "again": pj.ring_buffer(10)})
    record = {"observation": np.zeros(3)}
    assert {name: select(record) for name, select in system.collects("agent").items()} == {
        "seen": record,
        "again": record,
    }


def test_a_rollout_is_learned_from_once_whatever_the_condition() -> None:
    seen: list[list[float]] = []
    trainer = python_trainer(lambda number: None)

    def step(state: Any, batch: Any) -> Any:
        seen.append(batch.tolist())
        return state, {}

    schedule = pj.Schedule(trainer._replace(step=step), data="x", batch_size=5)
    compiled = pj.compile_system(fed_system(schedule, buffers={"x": rollout_buffer(4, bootstrap=1, example=0.0)}))
    learner, cells = compiled.learner, compiled.cells()
    for value in range(14):
        cells.collectors["x"].collect(float(value), version=0)
        learner, _ = pj.train_tick(compiled.programs, learner, cells, pj.VirtualClock())
    assert seen == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]
    assert learner.trainers["fit"].reason == "waits for 3 new records, each is learned from once"
