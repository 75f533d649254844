"""Population-based training: many copies of one trainer as one, that breeds its own hyper-parameters.

`population` makes a trainer out of a trainer. Its step is the member's step under `vmap`, so that sixteen members are
one program; the end of a run selects and clones, a pure function of the states; what it publishes is the best member.
Each member has a learning rate of its own, and noise of its own that it sees the digits through. Nobody tunes them:
whoever does badly becomes a copy of somebody who does well, with slightly other hyper-parameters.

Jaderberg et al. 2017, arXiv:1711.09846. Run: `python -m examples.replicas`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures
from examples.digits import PIXELS, Digits, load_digits
from examples.drawings.replicas import draw
from pamiq_jax.trainer import HyperparameterState, set_hyperparameters, with_hyperparameters

type Members = HyperparameterState[Any]
type Trainer = pj.Trainer[Any, Any]

# --- A population of any trainer.


class PopulationState(flax.struct.PyTreeNode):
    """States of all members, and how each does.

    Attributes:
        members: the member's state, leaves `[N, ...]`.
        losses: float32 `[N]`, of each on the validation batches of the run, added up; the least is best.
        parents: int32 `[N]`, whose copy each became when the last run ended; its own number if nobody's.
        generation: int32 `[]`, runs that have ended.
        rng_key: `key[]`, never consumed.
    """

    members: Members
    losses: jax.Array
    parents: jax.Array
    generation: jax.Array
    rng_key: jax.Array

    @property
    def params(self) -> Any:
        """All members' parameters, leaves `[N, ...]`."""
        return self.members.params


def population(
    trainer: Trainer, evaluate: Callable[..., jax.Array], ranges: Mapping[str, tuple[float, float]], size: int
) -> Trainer:
    """Return a trainer of `size` copies of a trainer, on batches `{"train": ..., "validation": ...}`.

    Args:
        trainer: a member, from `with_hyperparameters`.
        evaluate: `(params, validation batch) -> loss []`.
        ranges: lowest and highest first value of each hyper-parameter; the members' are at equal ratios.
        size: how many members, at least 4.
    """

    def init(rng_key: jax.Array, params: Any) -> PopulationState:
        members = jax.vmap(trainer.init, in_axes=(0, None))(jax.random.split(rng_key, size), params)
        first = {name: spread(jax.random.fold_in(rng_key, i), *ranges[name], size) for i, name in enumerate(ranges)}
        zero, everyone = jnp.zeros((), jnp.int32), jnp.arange(size, dtype=jnp.int32)
        return PopulationState(set_hyperparameters(members, **first), jnp.zeros(size), everyone, zero, rng_key)

    def setup(state: PopulationState) -> PopulationState:
        return state.replace(members=jax.vmap(trainer.setup)(state.members), losses=jnp.zeros_like(state.losses))

    def step(state: PopulationState, batch: Mapping[str, Any]) -> tuple[PopulationState, dict[str, jax.Array]]:
        members, _ = jax.vmap(trainer.step, in_axes=(0, None))(state.members, batch["train"])
        losses = jax.vmap(evaluate, in_axes=(0, None))(members.params, batch["validation"])
        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        state = state.replace(members=members, losses=state.losses + losses)
        return state, {"best_loss": jnp.min(losses), "median_loss": jnp.median(losses)}

    def teardown(state: PopulationState) -> PopulationState:
        rng_key = jax.random.fold_in(state.rng_key, state.generation)
        members, parents = select_and_clone(jax.vmap(trainer.teardown)(state.members), state.losses, rng_key)
        return state.replace(members=members, parents=parents, generation=state.generation + 1)

    def publish(state: PopulationState) -> Any:
        best = jax.tree.map(lambda leaf: leaf[jnp.argmin(state.losses)], state.members)
        return trainer.publish(best)

    def receive(state: PopulationState, models: Mapping[str, Any]) -> PopulationState:
        return state.replace(members=trainer.receive(state.members, models))

    return trainer._replace(init=init, setup=setup, step=step, teardown=teardown, publish=publish, receive=receive)


def select_and_clone(members: Members, losses: jax.Array, rng_key: jax.Array) -> tuple[Members, jax.Array]:
    """Return the next generation, and whose copy each of it is, int32 `[N]`.

    The worst quarter become copies of the best quarter, with each hyper-parameter a little smaller or larger.

    Args:
        members: leaves `[N, ...]`.
        losses: `[N]`.
        rng_key: consumed.
    """
    size, order = losses.size, jnp.argsort(losses)
    worst, best = order[-(size // 4) :], order[: size // 4]
    parents = jnp.arange(size, dtype=jnp.int32).at[worst].set(best.astype(jnp.int32))
    members = jax.tree.map(lambda leaf: leaf[parents], members)
    mutated: dict[str, jax.Array] = {}
    for name, values in members.hyperparameters.items():
        rng_key, key = jax.random.split(rng_key)
        factors = jnp.where(jax.random.bernoulli(key, shape=worst.shape), 0.8, 1.25)
        mutated[name] = values.at[worst].multiply(factors)
    return set_hyperparameters(members, **mutated), parents


def spread(rng_key: jax.Array, low: float, high: float, size: int) -> jax.Array:
    """Return `size` numbers at equal ratios from `low` to `high`, in random order."""
    return jax.random.permutation(rng_key, jnp.geomspace(low, high, size))


# --- Its member: a classifier of digits.

classifier = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)])


def loss_of(params: Any, batch: Digits) -> jax.Array:
    """Return the mean cross entropy `[]` of the digits `[B, 64]`."""
    logits = classifier.apply(params["classifier"], batch.images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))


def make_member(learning_rate: Any, noise: Any) -> Trainer:
    """Return a trainer that sees the digits through noise of so large a deviation."""

    def loss_fn(params: Any, batch: Digits, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images = batch.images + noise * jax.random.normal(rng_key, batch.images.shape)
        return loss_of(params, batch._replace(images=images)), {}

    return pj.gradient_trainer(loss_fn, optax.sgd(learning_rate, momentum=0.9), trains=("classifier",))


RANGES = {"learning_rate": (1e-5, 3.0), "noise": (0.01, 3.0)}


def make_population(size: int) -> Trainer:
    """Return a population whose first members differ far too much in both hyper-parameters."""
    return population(with_hyperparameters(make_member, learning_rate=0.1, noise=0.1), loss_of, RANGES, size)


# --- All of it as one program.


def evolve(trainer: Trainer, state: PopulationState, batches: Any) -> tuple[PopulationState, dict[str, Any]]:
    """Return the last state, and the history `[generations, N]`: one run a generation, all runs one program.

    Args:
        trainer: from `population`.
        state: of it.
        batches: leaves `[generations, steps, B, ...]`.
    """

    def generation(state: PopulationState, batches: Any) -> tuple[PopulationState, dict[str, Any]]:
        state, _ = jax.lax.scan(trainer.step, trainer.setup(state), batches)
        mean_losses = state.losses / jax.tree.leaves(batches)[0].shape[0]
        following = trainer.teardown(state)
        seen = {"loss": mean_losses, "parents": following.parents, **state.members.hyperparameters}
        return following, seen

    return jax.lax.scan(generation, state, batches)


def make_batches(
    train: Digits, validation: Digits, *, generations: int, steps: int, size: int = 32, seed: int = 0
) -> dict[str, Digits]:
    """Return random batches, `[generations, steps, size, ...]`; those to validate with are four times as large."""
    generator = np.random.default_rng(seed)

    def draw(digits: Digits, size: int) -> Digits:
        rows = generator.integers(len(digits.labels), size=(generations, steps, size))
        return Digits(jnp.asarray(digits.images[rows]), jnp.asarray(digits.labels[rows], jnp.int32))

    return {"train": draw(train, size), "validation": draw(validation, 4 * size)}


def first_params(seed: int = 0) -> dict[str, Any]:
    """Return the parameters that all members start from."""
    return {"classifier": classifier.init(jax.random.key(seed), jnp.zeros((1, PIXELS)))}


def accuracy_of(params: Any, digits: Digits) -> float:
    """Return the share of the digits that are read right."""
    answers = jnp.argmax(classifier.apply(params["classifier"], digits.images), axis=-1)
    return float(jnp.mean(answers == digits.labels))


def main(directory: Path = figures.RUNS) -> None:
    """Breed 24 members for 40 runs, and keep the same ones without selection; print and draw both."""
    train, held_out = load_digits(held_out=797)
    validation, test = Digits(*(part[:400] for part in held_out)), Digits(*(part[400:] for part in held_out))
    batches = make_batches(train, validation, generations=40, steps=20)
    trainer = make_population(24)
    state = trainer.init(jax.random.key(0), first_params())
    last, history = jax.jit(partial(evolve, trainer))(state, batches)
    _, alone = jax.jit(partial(evolve, trainer._replace(teardown=lambda state: state)))(state, batches)
    history, alone = jax.tree.map(np.asarray, (history, alone))
    for name, losses in (("selected and cloned", history["loss"][-1]), ("left alone", alone["loss"][-1])):
        print(f"{name}: validation loss {losses.min():.3f} at best, {np.median(losses):.3f} in the middle")
    accuracy = accuracy_of(trainer.publish(last), test)
    path = figures.save(draw(history, alone, accuracy), "replicas", directory)
    print(f"the best reads {accuracy:.1%} of unseen digits right; figure: {path}")


if __name__ == "__main__":
    main()
