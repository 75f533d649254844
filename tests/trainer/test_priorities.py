"""Priorities on their way out of a step: through a chunk and through what wraps trainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, StepStructureError
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import (
    Trainer,
    accumulate_gradients,
    alternate,
    clip_gradients,
    ema,
    gradient_trainer,
    skip_first,
    with_hyperparameters,
    with_targets,
)
from pamiq_jax.trainer.compile import scan_chunk
from pamiq_jax.trainer.drawing import sample_at
from pamiq_jax.trainer.priorities import Drawn
from pamiq_jax.trainer.step_checks import check_step
from pamiq_jax.trainer.untraced import python_chunk

DATA = jnp.arange(6.0)
KEY = jax.random.key(0)
INDICES = {"": jnp.arange(4, dtype=jnp.int32)}


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    error = batch - params["w"]
    return jnp.mean(error**2), {"priorities": jnp.abs(error)}


TRAINER = gradient_trainer(loss_fn, optax.sgd(0.1), trains=("w",))
PARAMS = {"w": jnp.zeros(()), "v": jnp.zeros(()), "w_target": jnp.zeros(())}


def draw(data: Any, position: Any, rng_key: jax.Array) -> Drawn:
    indices = (jnp.arange(2, dtype=jnp.int32) + position) % 6
    return Drawn(data[indices], {"": indices})


def returning(metrics: Callable[[Any], Any]) -> Trainer[Any, Any]:
    return TRAINER._replace(step=lambda state, batch: (state, metrics(batch)))


@pytest.mark.parametrize("make_chunk", [scan_chunk, python_chunk])
def test_a_chunk_keeps_those_of_every_step_with_their_indices(make_chunk: Any) -> None:
    is_scanned = make_chunk is scan_chunk
    chunk = make_chunk(TRAINER._replace(compiled=is_scanned), draw if is_scanned else sample_at(draw), 3)
    state, metrics = chunk(TRAINER.init(KEY, PARAMS), DATA, 3, KEY)
    given = metrics["priorities"][""]
    assert given.indices.tolist() == [[3, 4], [4, 5], [5, 0]]
    by_hand = TRAINER.init(KEY, PARAMS)
    for step, indices in enumerate(given.indices):
        by_hand, its_metrics = TRAINER.step(by_hand, DATA[indices])
        np.testing.assert_allclose(given.priorities[step], its_metrics["priorities"], rtol=1e-6)
    assert np.shape(metrics["loss"]) == ()
    np.testing.assert_allclose(state.params["w"], by_hand.params["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("metrics", "indices", "message"),
    [
        (lambda batch: {"priorities": batch}, {}, "no buffer of its batch takes any; sample from a prioritized_buffer"),
        (lambda batch: {"priorities": batch}, {"": None}, "no buffer of its batch takes any"),
        (
            lambda batch: {"priorities": batch[:3]},
            INDICES,
            r"as float32\[3\], expected float32\[4\], one for each record",
        ),
        (lambda batch: {"priorities": jnp.mean(batch)}, INDICES, r"as float32\[\], expected float32\[4\]"),
        (lambda batch: {"priorities": batch.astype(jnp.int32)}, INDICES, r"as int32\[4\], .*astype\(jnp.float32\)"),
        (
            lambda batch: {"priorities": {"": batch}},
            INDICES,
            "as dict, expected an array, since the batch is undivided",
        ),
        (lambda batch: {"priorities": batch}, {"a": INDICES[""]}, r"expected a dict with names out of \['a'\]"),
        (
            lambda batch: {"priorities": {"b": batch}},
            {"a": INDICES[""], "b": None},
            r"priorities for 'b', whose buffer takes none; those that do: \['a'\]",
        ),
        (lambda batch: {"errors": batch}, INDICES, r"the metric \['errors'\] as float32\[4\], expected a scalar"),
    ],
)
def test_what_does_not_fit_is_refused(metrics: Any, indices: Any, message: str) -> None:
    with pytest.raises(StepStructureError, match=message):
        check_step(returning(metrics), TRAINER.init(KEY, PARAMS), DATA[:4], indices)


def test_a_trainer_that_returns_them_keeps_the_contract_of_trainers() -> None:
    check_trainer(TRAINER, PARAMS, DATA[:4])


def priorities_of(trainer: Trainer[Any, Any], batch: Any = DATA[:4]) -> Any:
    state = trainer.setup(trainer.init(KEY, PARAMS))
    check_step(trainer, state, batch, INDICES)
    return trainer.step(state, batch)[1]["priorities"].tolist()


@pytest.mark.parametrize(
    "trainer",
    [
        clip_gradients(accumulate_gradients(gradient_trainer(loss_fn, optax.sgd(0.1), trains=("w",)), 2), 1.0),
        ema(TRAINER, 0.9),
        with_hyperparameters(lambda rate: gradient_trainer(loss_fn, optax.sgd(rate), trains=("w",)), rate=0.1),
        with_targets(
            gradient_trainer(loss_fn, optax.sgd(0.1), trains=("w",), reads=("w_target",)), {"w_target": "w"}, 0.9
        ),
        skip_first(TRAINER, runs=0),
    ],
    ids=["accumulate", "ema", "with_hyperparameters", "with_targets", "skip_first"],
)
def test_what_wraps_a_trainer_lets_them_pass(trainer: Any) -> None:
    assert priorities_of(trainer) == DATA[:4].tolist()


def test_skipped_steps_say_nothing_about_a_record() -> None:
    assert np.isnan(priorities_of(skip_first(TRAINER, runs=1))).all()


def other(metrics: Callable[[jax.Array], Any]) -> Trainer[Any, Any]:
    def chase(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        return jnp.mean((batch - params["v"]) ** 2), metrics(batch)

    return gradient_trainer(chase, optax.sgd(0.1), trains=("v",))


def test_one_of_those_that_alternate_may_give_them() -> None:
    assert priorities_of(alternate(other(lambda batch: {}), TRAINER)) == DATA[:4].tolist()


def test_shares_of_several_turns_are_put_together_in_the_order_of_the_batch() -> None:
    still = gradient_trainer(loss_fn, optax.sgd(0.0), trains=("w",))
    assert priorities_of(alternate(still, other(lambda batch: {}), turns=(2, 1))) == DATA[:4].tolist()


def test_two_that_alternate_cannot_both_give_them() -> None:
    trainer = alternate(TRAINER, other(lambda batch: {"priorities": batch}))
    with pytest.raises(
        InvalidValueError, match="alternate: priorities is \"also from 'v'\", expected from one trainer"
    ):
        priorities_of(trainer)
