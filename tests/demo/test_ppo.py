from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.demo.cartpole import CartPoleConfig, init_models
from pamiq_jax.demo.networks import apply_network, init_network
from pamiq_jax.demo.ppo import PPOConfig, make_batch, ppo_loss, ppo_trainer
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import explain_donation

CONFIG = PPOConfig(num_epochs=2, num_minibatches=2)
PARAMS = init_models(CartPoleConfig(hidden_size=8), seed=0)


def make_rollout(length: int = 8, count: int = 4) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    shape = (length + 1, count)
    ended = generator.random(shape) < 0.2
    return {
        "observation": generator.normal(size=(*shape, 4)).astype(np.float32),
        "action": generator.integers(0, 2, shape).astype(np.int32),
        "reward": np.ones(shape, np.float32),
        "terminated": ended,
        "truncated": np.zeros(shape, np.bool_),
        "autoreset": np.roll(ended, 1, axis=0),
        "log_prob": np.full(shape, np.log(0.5), np.float32),
    }


def test_keeps_the_contract_of_a_trainer() -> None:
    check_trainer(ppo_trainer(CONFIG), PARAMS, make_rollout(), tolerance=1e-3)


def test_published_models_carry_the_step_that_made_them() -> None:
    trainer = ppo_trainer(CONFIG)
    state = trainer.init(jax.random.key(0), PARAMS)
    state, _ = jax.jit(trainer.step)(state, make_rollout())
    published = trainer.publish(state)
    assert set(published) == {"policy", "value"}
    assert [int(model["step"]) for model in published.values()] == [1, 1]
    assert published["policy"]["network"][0]["kernel"] is state.params["policy"][0]["kernel"]


def test_neither_parameters_nor_the_stamp_are_donated() -> None:
    trainer = ppo_trainer(CONFIG)
    plan = explain_donation(trainer, trainer.init(jax.random.key(0), PARAMS))
    kept = {row.leaf for row in plan.rows if not row.donated}
    assert ".step" in kept
    assert all(row.leaf in kept for row in plan.rows if row.leaf.startswith(".params"))
    assert all(row.donated for row in plan.rows if row.leaf.startswith(".opt_state"))


def test_rows_that_reset_teach_nothing() -> None:
    rollout = make_rollout()
    changed = {name: leaf.copy() for name, leaf in rollout.items()}
    resets = rollout["autoreset"].copy()
    resets[-1] = False
    assert resets.any()
    changed["action"][resets] = 1 - changed["action"][resets]
    changed["log_prob"][resets] = -3.0
    trainer = ppo_trainer(CONFIG)
    state = trainer.init(jax.random.key(0), PARAMS)
    step = jax.jit(trainer.step)
    first, second = step(state, rollout)[0], step(state, changed)[0]
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_advantages_are_normalized_over_the_rows_that_count() -> None:
    batch = make_batch(CONFIG, PARAMS, make_rollout())
    assert batch["observation"].shape == (32, 4)
    mean = jnp.average(batch["advantage"], weights=batch["weight"])
    variance = jnp.average(batch["advantage"] ** 2, weights=batch["weight"])
    assert float(mean) == pytest.approx(0.0, abs=1e-5)
    assert float(variance) == pytest.approx(1.0, abs=1e-4)


def test_the_gain_of_a_change_is_bounded_by_the_clip_range() -> None:
    batch = {
        "observation": jnp.zeros((1, 4)),
        "action": jnp.zeros(1, jnp.int32),
        "log_prob": jnp.log(jnp.array([0.01])),  # the present policy takes it fifty times as often
        "advantage": jnp.ones(1),
        "return": jnp.zeros(1),
        "weight": jnp.ones(1),
    }
    _, metrics = ppo_loss(CONFIG, PARAMS, batch)
    assert float(metrics["policy_loss"]) == pytest.approx(-1.0 - CONFIG.clip_range)
    assert float(metrics["clipped"]) == 1.0


def test_a_minibatch_of_resets_alone_has_a_finite_loss() -> None:
    batch = make_batch(CONFIG, PARAMS, make_rollout())
    loss, _ = ppo_loss(CONFIG, PARAMS, {**batch, "weight": jnp.zeros_like(batch["weight"])})
    assert float(loss) == 0.0


def test_networks_start_orthogonal_and_equal_for_equal_seeds() -> None:
    first, second = (init_network((4, 16, 3), 0.5, np.random.default_rng(3)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    kernel = np.asarray(first[1]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 0.25 * np.eye(3), atol=1e-6)


def test_a_network_takes_any_number_of_batch_axes() -> None:
    layers = init_network((4, 8, 2), 1.0, np.random.default_rng(0))
    inputs = jnp.linspace(-1.0, 1.0, 24).reshape(2, 3, 4)
    flat = apply_network(layers, inputs.reshape(6, 4))
    np.testing.assert_allclose(apply_network(layers, inputs).reshape(6, 2), flat, rtol=1e-6)
