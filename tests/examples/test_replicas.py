"""A population is a trainer, its members are the trainer they are copies of, and it beats them left alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from examples.digits import Digits, load_digits
from examples.drawings.replicas import ancestors
from examples.replicas import (
    RANGES,
    Trainer,
    accuracy_of,
    evolve,
    first_params,
    make_batches,
    make_member,
    make_population,
    population,
    select_and_clone,
)
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import get_hyperparameters, gradient_trainer, with_hyperparameters

SIZE = 8


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Digits]:
    return load_digits()


def run(trainer: Trainer, digits: tuple[Digits, Digits], generations: int) -> tuple[Any, dict[str, np.ndarray]]:
    batches = make_batches(*digits, generations=generations, steps=10)
    state = trainer.init(jax.random.key(0), first_params())
    last, history = jax.jit(partial(evolve, trainer))(state, batches)
    return last, jax.tree.map(np.asarray, history)


def test_selected_and_cloned_members_learn_and_those_left_alone_do_not(digits: tuple[Digits, Digits]) -> None:
    trainer = make_population(SIZE)
    last, history = run(trainer, digits, generations=15)
    _, alone = run(trainer._replace(teardown=lambda state: state), digits, generations=15)
    assert np.median(history["loss"][-1]) < 0.5 < 1.0 < np.median(alone["loss"][-1])
    assert accuracy_of(trainer.publish(last), digits[1]) > 0.85
    # Far too large and far too small ones have died out.
    assert np.ptp(np.log(history["learning_rate"][-1])) < 0.5 * np.ptp(np.log(history["learning_rate"][0]))


def test_a_member_does_what_it_would_do_alone(digits: tuple[Digits, Digits]) -> None:
    population, member = make_population(SIZE), with_hyperparameters(make_member, learning_rate=0.1, noise=0.1)
    batch = jax.tree.map(lambda leaf: leaf[0, 0], make_batches(*digits, generations=1, steps=1))
    state = population.init(jax.random.key(0), first_params())
    after, _ = jax.jit(population.step)(state, batch)
    number = 3
    alone, _ = jax.jit(member.step)(jax.tree.map(lambda leaf: leaf[number], state.members), batch["train"])
    for mine, theirs in zip(jax.tree.leaves(alone.params), jax.tree.leaves(after.members.params), strict=True):
        np.testing.assert_allclose(mine, theirs[number], atol=1e-5)


def test_the_worst_quarter_become_copies_of_the_best_with_other_hyper_parameters() -> None:
    members = make_population(SIZE).init(jax.random.key(1), first_params()).members
    kernels = jnp.arange(8.0)[:, None, None] * jnp.ones((8, 2, 2))
    members = members.replace(inner=members.inner.replace(params=kernels))
    losses = jnp.array([3.0, 0.0, jnp.inf, 4.0, 1.0, 5.0, 2.0, 7.0])
    following, parents = select_and_clone(members, losses, jax.random.key(0))
    assert parents.tolist() == [0, 1, 4, 3, 4, 5, 6, 1]
    assert following.params[:, 0, 0].tolist() == [0, 1, 4, 3, 4, 5, 6, 1]
    before, after = get_hyperparameters(members), get_hyperparameters(following)
    for name in ("learning_rate", "noise"):
        ratios = after[name] / before[name][np.asarray(parents)]
        np.testing.assert_allclose(ratios[[0, 1, 3, 4, 5, 6]], 1.0)
        assert all(np.isclose(ratio, [0.8, 1.25]).any() for ratio in ratios[[2, 7]])


def make_mean(learning_rate: Any, noise: Any) -> Trainer:
    def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.mean((params["mean"] - batch - noise * jax.random.normal(rng_key)) ** 2), {}

    return gradient_trainer(loss_fn, optax.sgd(learning_rate), trains=("mean",))


def make_means(size: int) -> Trainer:
    member = with_hyperparameters(make_mean, learning_rate=0.1, noise=0.1)
    return population(member, lambda params, batch: jnp.mean((params["mean"] - batch) ** 2), RANGES, size)


def test_a_population_of_any_trainer_is_a_trainer() -> None:
    batch = {"train": jnp.ones(4), "validation": jnp.full(3, 2.0)}
    check_trainer(make_means(4), {"mean": jnp.zeros(())}, batch)


def test_in_a_system_inference_sees_the_best_member_alone() -> None:
    data = {"train": "numbers", "validation": "numbers"}
    schedule = pj.Schedule(make_means(8), data=data, batch_size=16, steps=20, when=pj.min_size(16))
    system = pj.System(
        models={"mean": pj.Model(jnp.zeros(()))},
        buffers={"numbers": pj.ring_buffer(16, example=0.0)},
        trainers={"means": schedule},
    )
    with pj.launch(system, strict=True) as run:
        assert all(run.collect("numbers", 3.0) for _ in range(16))
        snapshot = run.wait_for_version(20, timeout=60)
    assert snapshot.params["mean"].shape == ()
    assert abs(snapshot.params["mean"] - 3.0) < 0.2


def test_ancestors_are_followed_back_to_the_first_run() -> None:
    assert ancestors(np.array([[0, 0], [1, 0], [0, 1]]), member=0).tolist() == [0, 1, 0]
