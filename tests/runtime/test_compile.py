from __future__ import annotations

import doctest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import NonFiniteError, PublishMismatchError, StepStructureError
from tests.runtime.fakes import World, assert_equal_trees, fed_system, learner, learning_system


def two_trainers(*names: str) -> pj.System:
    models = {name: pj.Model(jnp.zeros(3)) for name in names}
    schedules = {name: pj.Schedule(learner(name), data="x", batch_size=2) for name in names}
    return fed_system(models=models, trainers=schedules)


class TestSeeds:
    def test_equal_seeds_give_equal_states(self) -> None:
        first, second = (pj.compile_system(learning_system(), seed=3) for _ in range(2))
        assert_equal_trees((first.learner, first.actor, first.params), (second.learner, second.actor, second.params))

    def test_another_seed_gives_other_keys(self) -> None:
        first, second = (pj.compile_system(two_trainers("a"), seed=seed).learner.trainers["a"] for seed in (0, 1))
        assert not jnp.array_equal(jax.random.key_data(first.data_key), jax.random.key_data(second.data_key))
        assert not jnp.array_equal(jax.random.key_data(first.state.rng_key), jax.random.key_data(second.state.rng_key))

    def test_one_trainer_more_changes_no_other_key(self) -> None:
        alone = pj.compile_system(two_trainers("a")).learner.trainers["a"]
        together = pj.compile_system(two_trainers("b", "a")).learner.trainers
        assert_equal_trees(alone, together["a"])
        keys = {tuple(jax.random.key_data(run.data_key).tolist()) for run in together.values()}
        assert len(keys) == 2


def test_model_parameters_stay_the_callers() -> None:
    params = jnp.zeros(3)
    compiled = pj.compile_system(fed_system(models={"policy": pj.Model(params)}))
    assert compiled.params["policy"].unsafe_buffer_pointer() != params.unsafe_buffer_pointer()


def test_host_placement_equals_device_placement() -> None:
    # In runs of one chunk, that is; what is gathered ahead of a second one has tests of its own.
    schedule = pj.Schedule(learner(), data="seen", batch_size=4, steps=4, when=pj.min_new(3))
    device, host = (
        pj.run_lockstep(
            learning_system(buffers={"seen": pj.ring_buffer(50, placement=placement)}, trainers={"fit": schedule}),
            40,
        )
        for placement in ("device", "host")
    )
    assert device.snapshot.version == host.snapshot.version > 3
    assert_equal_trees(
        (device.snapshot.params, device.metrics, device.learner.trainers["fit"].state, device.learner.buffers),
        (host.snapshot.params, host.metrics, host.learner.trainers["fit"].state, host.learner.buffers),
    )


class TestMismatches:
    def test_step_that_changes_a_dtype(self) -> None:
        def step(state: Any, batch: Any) -> Any:
            return state.replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.params)), {}

        trainer = learner()._replace(step=step)
        with pytest.raises(StepStructureError, match=r"step returned .*'policy'.*expected float32\[3\], got float16"):
            pj.compile_system(fed_system(pj.Schedule(trainer, data="x", batch_size=2)))

    def test_metric_that_is_no_scalar(self) -> None:
        trainer = learner()._replace(step=lambda state, batch: (state, {"all": batch}))
        with pytest.raises(StepStructureError, match=r"metric \['all'\] as float32\[2\], expected a scalar"):
            pj.compile_system(fed_system(pj.Schedule(trainer, data="x", batch_size=2)))

    def test_carry_of_another_form(self) -> None:
        def act(params: Any, carry: Any, observation: Any, rng_key: jax.Array) -> Any:
            return carry[0], jnp.float32(0), {}

        agent = pj.Agent(act, lambda rng_key: jnp.zeros(2, jnp.int32))
        system = learning_system(interaction=pj.Interaction(agent, World()))
        with pytest.raises(StepStructureError, match=r"carry of another form.*expected int32\[2\]"):
            pj.compile_system(system)

    @pytest.mark.parametrize("published", [(), {"other": 1}])
    def test_publish_without_a_model_it_promised(self, published: Any) -> None:
        trainer = learner()._replace(publish=lambda state: published)
        with pytest.raises(PublishMismatchError, match=r"trainer 'fit' publishes \['policy'\], but its `publish`"):
            pj.compile_system(fed_system(pj.Schedule(trainer, data="x", batch_size=2)))

    def test_initial_parameters_that_are_not_finite(self) -> None:
        system = fed_system(
            pj.Schedule(learner(), data="x", batch_size=2),
            models={"policy": pj.Model(jnp.array([0.0, jnp.nan, jnp.inf]))},
        )
        with pytest.raises(NonFiniteError, match=r"\['policy'\] \(2 of 3 numbers\)"):
            pj.compile_system(system)


def test_version_0_is_what_the_trainer_publishes() -> None:
    trainer = pj.gradient_trainer(lambda params, batch, key: (params["policy"].sum(), {}), optax.sgd(0.1))
    halved = trainer._replace(publish=lambda state: {"policy": state.params["policy"] / 2})
    system = fed_system(pj.Schedule(halved, data="x", batch_size=2), models={"policy": pj.Model(jnp.full(3, 4.0))})
    np.testing.assert_array_equal(pj.compile_system(system).cells().store.latest.params["policy"], np.full(3, 2.0))


class TestBuffersOfOnesOwn:
    def test_the_example_of_the_docstring_works_in_a_system(self) -> None:
        names: dict[str, Any] = {"Buffer": pj.Buffer, "jax": jax, "jnp": jnp}
        exec(doctest.DocTestParser().get_examples(str(pj.Buffer.__doc__))[0].source, names)
        schedule = pj.Schedule(learner(), data="seen", batch_size=4, when=pj.min_new(3))
        system = learning_system(buffers={"seen": names["newest"]}, trainers={"fit": schedule})
        result = pj.run_lockstep(system, 4)
        assert result.snapshot.version == 1
        state: Any = result.learner.buffers["seen"].state
        record: Any = state[0]
        assert int(record.data["observation"][0]) == 3

    def test_an_init_that_raises_is_named(self) -> None:
        def init(example: Any) -> Any:
            return jnp.zeros(len(example.data))

        buffer = pj.ring_buffer(8, example=0.0)._replace(init=init)
        with pytest.raises(
            TypeError, match="while buffer 'x' was made: its `init` was given a record of zeros, Record"
        ):
            pj.compile_system(fed_system(buffers={"x": buffer}))
