from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.demo.cartpole import SOLVED_RETURN, CartPoleConfig, act, cartpole_system, init_models
from pamiq_jax.demo.recorder import Recorder
from pamiq_jax.runtime import LockstepResult, run_lockstep

RANDOM_RETURN = 22.0
"""What uniformly random actions reach on average."""


def lockstep(config: CartPoleConfig, interactions: int, seed: int) -> tuple[LockstepResult, Recorder]:
    system = cartpole_system(config, seed=seed)
    assert system.interaction is not None
    recorder = Recorder(config.num_envs, SOLVED_RETURN, clock=lambda: 0.0)
    result = run_lockstep(system, interactions, seed=seed, check_donation=True, on_interaction=recorder)
    system.interaction.environment.close()
    return result, recorder


def test_two_runs_in_lockstep_are_equal_bit_for_bit() -> None:
    config = CartPoleConfig(num_envs=2, rollout_length=16, hidden_size=8)
    (first, first_recorder), (second, second_recorder) = (lockstep(config, 100, seed=3) for _ in range(2))
    assert first.snapshot.version == second.snapshot.version == 6
    jax.tree.map(np.testing.assert_array_equal, dict(first.snapshot.params), dict(second.snapshot.params))
    jax.tree.map(np.testing.assert_array_equal, first.metrics, second.metrics)
    assert first_recorder.curve == second_recorder.curve
    assert first_recorder.observed.statistics.recent == second_recorder.observed.statistics.recent


def test_another_seed_gives_other_networks() -> None:
    first, second = (init_models(CartPoleConfig(), seed)["policy"][0]["kernel"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_it_learns_in_lockstep() -> None:
    result, recorder = lockstep(CartPoleConfig(), 2_000, seed=0)
    observed = recorder.observed
    assert result.snapshot.version == 31
    assert result.buffers["rollout"].dropped == 0
    assert observed.torn_reads == 0
    assert observed.statistics.mean > 4 * RANDOM_RETURN


def test_the_agent_notices_models_of_different_steps() -> None:
    layers = init_models(CartPoleConfig(hidden_size=8), seed=0)
    for value_step, expected in ((4, False), (5, True)):
        params = {
            "policy": {"network": layers["policy"], "step": jnp.int32(4)},
            "value": {"network": layers["value"], "step": jnp.int32(value_step)},
        }
        _, action, extras = act(params, (), jnp.zeros((3, 4)), jax.random.key(0))
        assert bool(extras["torn"]) is expected
        assert action.shape == extras["log_prob"].shape == (3,)


def test_the_recorded_probability_is_that_of_the_action_taken() -> None:
    layers = init_models(CartPoleConfig(hidden_size=8), seed=0)
    params = {name: {"network": network, "step": jnp.int32(0)} for name, network in layers.items()}
    _, action, extras = act(params, (), jnp.ones((1000, 4)), jax.random.key(1))
    frequency = float(jnp.mean(action.astype(jnp.float32)))
    probability = float(jnp.exp(extras["log_prob"][jnp.argmax(action)]))
    assert abs(frequency - probability) < 0.05
