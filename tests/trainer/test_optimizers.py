"""Optimizers as they are: each goes on bit for bit from a saved state, and takes a change of its learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.checkpoint import StateStore, match, named_leaves
from pamiq_jax.testing.comparing import bit_difference, form_difference, frozen
from pamiq_jax.trainer import explain_donation, get_hyperparameters, gradient_trainer, set_hyperparameters
from pamiq_jax.trainer.compile import own

PARAMS = {"encoder": {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}, "decoder": {"w": jnp.ones((3, 2))}}
BATCH = jnp.linspace(-2.0, 1.5, 8).reshape(4, 2)
KEY = jax.random.key(0)

ADAM = optax.inject_hyperparams(optax.adam)
SGD = optax.inject_hyperparams(optax.sgd)


class Case(NamedTuple):
    """An optimizer, and the names of the learning rates that can be changed."""

    tx: Any
    rates: tuple[str, ...] = ()


def by_model(params: Any) -> dict[str, str]:
    return {"encoder": "slow", "decoder": "fast"}


def schedule_free() -> Any:
    return optax.contrib.schedule_free(SGD(learning_rate=0.1), learning_rate=0.1)


CASES: dict[str, Case] = {
    "chain with a schedule": Case(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 10)))
    ),
    "injected": Case(ADAM(learning_rate=0.1), ("learning_rate",)),
    "injected in a chain": Case(optax.chain(optax.clip(1.0), SGD(learning_rate=0.1, momentum=0.9)), ("learning_rate",)),
    "multi_transform": Case(
        optax.multi_transform({"slow": ADAM(learning_rate=0.01), "fast": SGD(learning_rate=0.1)}, by_model),
        ("slow.learning_rate", "fast.learning_rate"),
    ),
    "frozen in part": Case(
        optax.multi_transform({"slow": optax.set_to_zero(), "fast": SGD(learning_rate=0.1)}, by_model),
        ("learning_rate",),
    ),
    "MultiSteps": Case(optax.MultiSteps(ADAM(learning_rate=0.1), 2), ("learning_rate",)),
    "apply_if_finite": Case(optax.apply_if_finite(SGD(learning_rate=0.1), 3), ("learning_rate",)),
    "ema of updates": Case(optax.chain(SGD(learning_rate=0.1), optax.ema(0.9)), ("learning_rate",)),
    "noisy_sgd": Case(optax.noisy_sgd(0.1, eta=1e-3, key=KEY)),
    "schedule-free": Case(schedule_free(), ("learning_rate",)),
    "schedule-free adamw": Case(optax.contrib.schedule_free_adamw(0.1)),
    "prodigy": Case(optax.contrib.prodigy(0.1)),
    "muon": Case(optax.contrib.muon(0.1)),
    "ademamix": Case(optax.contrib.ademamix(0.1)),
    "adopt": Case(optax.contrib.adopt(0.1)),
    "dadapt_adamw": Case(optax.contrib.dadapt_adamw(1.0)),
    "mechanize": Case(optax.contrib.mechanize(optax.sgd(0.1))),
    "momo": Case(optax.contrib.momo(0.1)),
    "reduce_on_plateau": Case(
        optax.chain(SGD(learning_rate=0.1), optax.contrib.reduce_on_plateau()), ("learning_rate",)
    ),
    "polyak_sgd": Case(optax.polyak_sgd()),
    "lbfgs": Case(optax.lbfgs()),
    "sam": Case(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), sync_period=2)),
    "opaque sam": Case(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True)),
}


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    return jnp.mean((jnp.tanh(batch @ params["encoder"]["w"]) @ params["decoder"]["w"] - batch) ** 2), {}


def changed(state: Any, rates: tuple[str, ...], value: float) -> Any:
    return set_hyperparameters(state, **dict.fromkeys(rates, value))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_goes_on_from_a_saved_state_and_takes_another_learning_rate(case: Case, tmp_path: Path) -> None:
    trainer = gradient_trainer(loss_fn, case.tx)
    step = jax.jit(trainer.step)
    first = own(trainer.init(KEY, PARAMS))
    state, metrics = step(first, BATCH)
    assert form_difference(first, state) is None
    state, _ = step(state, BATCH)

    store = StateStore(tmp_path)
    saved = store.write({"leaves": named_leaves(state)}, facts={}, created_at=0.0)
    restored, _ = match(own(trainer.init(jax.random.key(1), PARAMS)), store.read(saved)["leaves"])
    expected, found = step(state, BATCH), step(restored, BATCH)
    assert bit_difference(frozen(expected), frozen(found)) is None
    assert float(found[1]["loss"]) < float(metrics["loss"])

    assert all(row.donated for row in explain_donation(trainer, state).rows if row.leaf.startswith(".opt_state"))
    if case.rates:
        assert {name: float(get_hyperparameters(restored)[name]) for name in case.rates}
        still, moved = (changed(restored, case.rates, rate) for rate in (0.0, 0.5))
        for _ in range(2):  # one may only accumulate
            still, moved = step(still, BATCH)[0], step(moved, BATCH)[0]
        assert get_hyperparameters(moved).items() >= dict.fromkeys(case.rates, 0.5).items()
        assert not np.array_equal(still.params["decoder"]["w"], moved.params["decoder"]["w"])
    assert step._cache_size() == 1
