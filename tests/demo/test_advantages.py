from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.demo.advantages import generalized_advantages

type Rows = dict[str, np.ndarray]

DISCOUNT, LAMBDA = 0.9, 0.8


def reference(rollout: Rows, values: np.ndarray, discount: float, gae_lambda: float) -> np.ndarray:
    """Follow each row of each environment forward in plain Python, until its episode ends or the rollout does."""
    length, count = rollout["reward"].shape
    advantages = np.zeros((length, count))
    for env in range(count):
        for start in range(length):
            weight = 1.0
            for row in range(start, length):
                following = 0.0 if rollout["terminated"][row, env] else float(values[row + 1, env])
                delta = float(rollout["reward"][row, env]) + discount * following - float(values[row, env])
                advantages[start, env] += weight * delta
                if rollout["terminated"][row, env] or rollout["truncated"][row, env]:
                    break
                weight *= discount * gae_lambda
    return advantages


def make_rollout(length: int, ends: dict[str, list[tuple[int, int]]], count: int = 1) -> Rows:
    rollout: Rows = {"reward": np.ones((length, count), np.float32)}
    for name in ("terminated", "truncated", "autoreset"):
        rollout[name] = np.zeros((length, count), np.bool_)
    for name, places in ends.items():
        for row, env in places:
            rollout[name][row, env] = True
            if row + 1 < length:
                rollout["autoreset"][row + 1, env] = True
                rollout["reward"][row + 1, env] = 0.0
    return rollout


def random_values(length: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(length + 1, count)).astype(np.float32)


@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"terminated": [(3, 0)]},
        {"truncated": [(3, 0)]},
        {"terminated": [(7, 0)]},
        {"truncated": [(7, 0)]},
        {"terminated": [(1, 0), (5, 1)], "truncated": [(4, 0), (2, 1)]},
        {"terminated": [(2, 1)], "truncated": [(2, 1)]},
    ],
)
def test_equals_plain_python(ends: dict[str, list[tuple[int, int]]]) -> None:
    rollout, values = make_rollout(8, ends, count=2), random_values(8, 2)
    actual = jax.jit(generalized_advantages, static_argnums=(2, 3))(rollout, jnp.asarray(values), DISCOUNT, LAMBDA)
    np.testing.assert_allclose(actual, reference(rollout, values, DISCOUNT, LAMBDA), rtol=1e-5, atol=1e-5)


def advantages_of(rollout: Rows, values: np.ndarray) -> np.ndarray:
    return np.asarray(generalized_advantages(rollout, jnp.asarray(values), DISCOUNT, LAMBDA))[:, 0]


def test_a_truncated_episode_is_continued_by_its_last_observation_and_a_terminated_one_is_not() -> None:
    values = np.array([[0.0], [0.0], [10.0], [0.0]], np.float32)
    truncated = advantages_of(make_rollout(3, {"truncated": [(1, 0)]}), values)
    terminated = advantages_of(make_rollout(3, {"terminated": [(1, 0)]}), values)
    assert truncated[1] == pytest.approx(1.0 + DISCOUNT * 10.0)
    assert terminated[1] == pytest.approx(1.0)


def test_nothing_of_the_next_episode_reaches_the_last_one() -> None:
    rollout, values = make_rollout(6, {"truncated": [(2, 0)]}), random_values(6, 1)
    changed = values.copy()
    changed[4:] += 100.0  # row 3 resets; its value is that of the last observation, row 4 begins the next episode
    np.testing.assert_array_equal(advantages_of(rollout, values)[:3], advantages_of(rollout, changed)[:3])
    assert not np.allclose(advantages_of(rollout, values)[4:], advantages_of(rollout, changed)[4:])
