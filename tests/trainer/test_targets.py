from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer import Trainer, compile_trainer, explain_donation, gradient_trainer, with_targets
from pamiq_jax.trainer.compile import own

KEY = jax.random.key(0)
PARAMS = {"online": jnp.float32(1), "head": jnp.float32(0)}


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    return (params["online"] - params["target"] - batch) ** 2 + params["head"] ** 2, {"target": params["target"]}


def inner(**options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.sgd(0.5), trains=("online", "head"), reads=("target",), **options)


def targeting(decay: Any = 0.5, **options: Any) -> Trainer[Any, Any]:
    return with_targets(inner(), {"target": "online"}, decay, **options)


def test_a_target_starts_as_its_source_and_follows_it() -> None:
    trainer = targeting()
    state = trainer.init(KEY, PARAMS)
    assert state.reads["target"] == 1
    state, metrics = trainer.step(state, jnp.float32(2))
    assert (float(state.params["online"]), float(state.reads["target"]), float(metrics["target"])) == (3, 2, 1)


def test_a_schedule_copies_now_and_then() -> None:
    trainer = targeting(lambda step: jnp.where(step % 2 == 0, 0.0, 1.0))
    state = trainer.init(KEY, PARAMS)
    after_one, _ = trainer.step(state, jnp.float32(2))
    after_two, _ = trainer.step(after_one, jnp.float32(2))
    assert after_one.reads["target"] == 1
    assert after_two.reads["target"] == after_two.params["online"] == 3


def test_a_target_is_nobody_elses_to_give() -> None:
    trainer = targeting(publishes=("target",))
    assert (trainer.trains, trainer.reads, trainer.publishes) == (("online", "head"), (), ("target",))
    assert trainer.publish(trainer.init(KEY, PARAMS)).keys() == {"target"}
    assert targeting().publishes == ("online", "head")


@pytest.mark.parametrize(("publishes", "is_donated"), [(("target",), False), (("online",), True)])
def test_a_target_is_donated_unless_it_is_published(publishes: tuple[str, ...], is_donated: bool) -> None:
    trainer = targeting(publishes=publishes)
    rows = {row.leaf: row.donated for row in explain_donation(trainer, trainer.init(KEY, PARAMS)).rows}
    assert rows[".reads['target']"] is is_donated


def test_a_published_target_outlives_the_next_chunk() -> None:
    trainer = targeting(publishes=("target",))
    state = own(trainer.init(KEY, PARAMS))
    programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, jnp.float32(2), steps=1)
    published = programs.publish(state)
    state, _ = programs.chunk(state, jnp.float32(2), 0, KEY)
    assert (float(published["target"]), float(programs.publish(state)["target"])) == (1, 2)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"with_targets\(targets\): no read model is named 'x'"):
        with_targets(inner(), {"x": "online"}, 0.5)
    with pytest.raises(UnknownNameError, match=r"with_targets\(targets\): no trained model is named 'x'"):
        with_targets(inner(), {"target": "x"}, 0.5)
    with pytest.raises(UnknownNameError, match=r"with_targets\(publishes\): no published model is named 'x'"):
        targeting(publishes=("x",))
    with pytest.raises(InvalidValueError, match=r"with_targets\(publishes\) is 'target', expected a tuple"):
        targeting(publishes="target")
    with pytest.raises(InvalidValueError, match=r"with_targets\(decay\) is 2, expected a number in \[0, 1\)"):
        targeting(2)
    with pytest.raises(UnknownNameError, match=r"trainer.init: no model is named 'online'"):
        targeting().init(KEY, {"head": jnp.float32(0)})
