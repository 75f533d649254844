"""The dreamer learns in a world that it only reads, and what it has learned there helps outside.

With seed 0 the wish, as it really comes true, rises from -0.90 to -0.45, with seed 1 from -0.89 to -0.72; with seed 2
it does not, -0.90 and -0.93 (`python -m examples dreamer --seeds 0-2`). The test runs the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

import pamiq_jax as pj
from examples import dreamer as example
from examples.forward_dynamics import explorer, live
from examples.tables import lived_wish


@pytest.fixture(scope="module")
def result(world: object) -> pj.LockstepResult:
    return pj.run_lockstep(example.make_system(world, learns_world=False, steps=600), 680, check_donation=True)


def dreamed_wish(world: object, policy: Any, life: Mapping[str, Any]) -> float:
    hidden, seen, noise = life["hidden"], life["seen"], np.zeros((50, len(life["seen"]), 1), np.float32)
    _, dreamed = jax.jit(example.dream)({"dynamics": world, "policy": policy}, hidden, seen, noise)
    return float(np.mean(example.wish(dreamed)))


def test_the_wish_is_fulfilled_in_dreams(world: object, result: pj.LockstepResult) -> None:
    learned, untrained = result.snapshot.params["policy"], example.init_networks(0)["policy"]
    life = live(explorer, {"dynamics": world}, 100, seed=1)
    assert dreamed_wish(world, learned, life) > dreamed_wish(world, untrained, life) + 0.5


def test_the_wish_is_fulfilled_better_in_real_lives_too(world: object) -> None:
    snapshot = pj.run_lockstep(example.make_system(world, steps=1_000), 1_100).snapshot
    learned = {name: snapshot.params[name] for name in ("dynamics", "policy")}
    untrained = {"dynamics": world, "policy": example.init_networks(0)["policy"]}
    assert lived_wish(learned) > lived_wish(untrained) + 0.1


def test_the_world_stays_as_it_was_and_the_value_stays_inside(world: object, result: pj.LockstepResult) -> None:
    assert set(result.snapshot.params) == {"dynamics", "policy"}
    read = result.learner.trainers["dreamer"].state.reads["dynamics"]
    for model in (result.snapshot.params["dynamics"], read):
        assert jax.tree.all(jax.tree.map(np.array_equal, model, world))


def test_lambda_returns_are_discounted_sums_that_end_in_the_last_value() -> None:
    rewards, values = np.float32([[1.0], [2.0]]), np.float32([[10.0], [20.0]])
    last = 2.0 + example.DISCOUNT * 20.0
    first = 1.0 + example.DISCOUNT * ((1 - example.LAMBDA) * 10.0 + example.LAMBDA * last)
    np.testing.assert_allclose(example.lambda_returns(rewards, values)[:, 0], [first, last], rtol=1e-6)
