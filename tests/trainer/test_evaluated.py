from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer import (
    Optimization,
    Trainer,
    accumulate_gradients,
    clip_gradients,
    custom_trainer,
    gradient_trainer,
    guard,
    publish_evaluated,
    with_optimizers,
)
from pamiq_jax.trainer.partition import Partition, partitioned_trainer
from tests.runtime.fakes import World

EVALUATE = optax.contrib.schedule_free_eval_params
TX = optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5)
KEY = jax.random.key(0)
PARAMS = {"a": jnp.float32(1), "b": jnp.float32(-1)}


def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
    return (params["a"] - batch) ** 2 + (params["b"] - batch) ** 2, {}


def trained(trainer: Trainer[Any, Any], params: Any = PARAMS) -> tuple[Any, Any]:
    """Return the state after four steps, and what is published of it."""
    state, step = trainer.init(KEY, params), jax.jit(trainer.step)
    for batch in (1.0, 4.0, 2.0, 3.0):
        state, _ = step(state, jnp.float32(batch))
    return state, trainer.publish(state)


def inner(tx: Any = TX, **options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, tx, **options)


def assert_near(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), actual, expected)


def test_the_evaluation_point_is_published_and_the_same_parameters_are_trained() -> None:
    plain, y = trained(inner())
    state, x = trained(publish_evaluated(inner(), EVALUATE))
    assert_near(state.params, plain.params)
    assert_near(x, EVALUATE(plain.opt_state, plain.params))
    assert abs(float(x["a"] - y["a"])) > 0.01


def test_what_changes_gradients_goes_around_it() -> None:
    clipped = trained(clip_gradients(publish_evaluated(inner(), EVALUATE), 1.0))
    picked = trained(publish_evaluated(clip_gradients(inner(), 1.0), lambda state, params: EVALUATE(state[1], params)))
    assert_near(clipped[1], picked[1])
    assert_near(clipped[1], EVALUATE(clipped[0].opt_state[1], clipped[0].params))

    state, x = trained(accumulate_gradients(publish_evaluated(inner(), EVALUATE), 2))
    assert_near(x, EVALUATE(state.opt_state.inner_opt_state, state.params))

    state, x = trained(with_optimizers(guard(publish_evaluated(inner(), EVALUATE)), {"b": optax.sgd(0.1)}))
    alone, of_a = trained(
        publish_evaluated(gradient_trainer(lambda p, x, key: ((p - x) ** 2, {}), TX), EVALUATE), jnp.float32(1)
    )
    assert_near(x, {"a": of_a, "b": state.params["b"]})
    assert_near(state.params["a"], alone.params)


def test_of_a_model_in_parts_the_trained_one_is_evaluated() -> None:
    partition = Partition(lambda m: (m["w"], m["mean"]), lambda w, mean: {"w": w, "mean": mean})

    def loss_of(m: Any, batch: Any, rng_key: Any) -> Any:
        return (m["w"] - batch) ** 2, ({**m, "mean": batch}, {})

    trainer = partitioned_trainer(loss_of, Optimization(TX), partition, model="net")
    params = {"net": {"w": jnp.float32(1), "mean": jnp.float32(0)}}
    state, x = trained(publish_evaluated(trainer, EVALUATE), params)
    assert_near(x, {"net": {"w": EVALUATE(state.opt_state, state.params["net"]["w"]), "mean": 3.0}})


def test_it_is_published_in_the_dtype_of_the_parameters() -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    trainer = publish_evaluated(
        inner(optax.contrib.schedule_free(optax.sgd(0.5), 0.5, state_dtype="float32")), EVALUATE
    )
    published = trainer.publish(trainer.init(KEY, params))
    assert {leaf.dtype for leaf in jax.tree.leaves(published)} == {jnp.dtype(jnp.bfloat16)}


def test_sam_publishes_the_parameters_that_it_walked_away_from() -> None:
    def returned(opt_state: Any, params: Any) -> Any:
        is_back = opt_state.steps_since_sync == 0
        return jax.tree.map(lambda here, there: jnp.where(is_back, here, there), params, opt_state.cache)

    trainer = publish_evaluated(inner(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))), returned)
    state, step = trainer.init(KEY, PARAMS), jax.jit(trainer.step)
    away, _ = step(state, jnp.float32(3))
    assert float(away.params["a"]) != 1
    assert float(trainer.publish(away)["a"]) == 1
    back, _ = step(away, jnp.float32(3))
    assert float(trainer.publish(back)["a"]) == float(back.params["a"]) > 1


@pytest.mark.parametrize("around", [clip_gradients, accumulate_gradients])
def test_sam_can_be_combined(around: Any) -> None:
    state, _ = trained(around(inner(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))), 2))
    assert 1 < float(state.params["a"]) < 4


def test_a_system_acts_with_it_and_none_of_it_is_donated() -> None:
    def item_loss_fn(w: Any, batch: Any, rng_key: Any) -> Any:
        return jnp.mean((w["policy"] - batch["observation"][:, 0]) ** 2), {}

    trainer = publish_evaluated(gradient_trainer(item_loss_fn, TX), EVALUATE)
    system = pj.System(
        models={"policy": pj.Model(jnp.zeros(()))},
        buffers={"x": pj.ring_buffer(8)},
        trainers={"fit": pj.Schedule(trainer, data="x", batch_size=2)},
        interaction=pj.Interaction(pj.Agent(lambda p, carry, observation, key: (carry, p["policy"], {})), World()),
    )
    result = pj.run_lockstep(system, 6, check_donation=True)
    state = result.learner.trainers["fit"].state
    np.testing.assert_array_equal(result.snapshot.params["policy"], trainer.publish(state)["policy"])
    assert float(result.snapshot.params["policy"]) != float(state.params["policy"])


def test_wrong_use_is_said() -> None:
    with pytest.raises(InvalidValueError, match=r"publish_evaluated\(evaluate\) is None, expected a function"):
        publish_evaluated(inner(), None)  # pyright: ignore[reportArgumentType]
    own = custom_trainer(lambda key, params: params, lambda state, batch: (state, {}))
    with pytest.raises(InvalidValueError, match=r"publish_evaluated\(trainer\) is 'one that does not show"):
        publish_evaluated(own, EVALUATE)
    outside = publish_evaluated(clip_gradients(inner(), 1.0), EVALUATE)
    with pytest.raises(AttributeError) as caught:
        outside.publish(outside.init(KEY, PARAMS))
    assert any("pick the state where it is one of several" in note for note in caught.value.__notes__)
