from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer import Trainer, alternate, compile_trainer, custom_trainer, explain_donation, gradient_trainer
from pamiq_jax.trainer.compile import own

KEY = jax.random.key(0)
PARAMS = {"cat": jnp.float32(0), "mouse": jnp.float32(4), "wall": jnp.float32(1)}
BATCH = jnp.ones(4)


def chase(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    return (params["cat"] - params["mouse"]) ** 2, {"wall": params["wall"], "rows": jnp.float32(batch.shape[0])}


def flee(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    return -((params["cat"] - params["mouse"]) ** 2), {"noise": jax.random.normal(rng_key)}


def cat(**options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(chase, optax.sgd(0.25), trains=("cat",), reads=("mouse", "wall"), **options)


def mouse(**options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(flee, optax.sgd(0.25), trains=("mouse",), reads=("cat",), **options)


def test_each_sees_what_the_one_before_has_made() -> None:
    trainer = alternate(cat(), mouse())
    state, metrics = jax.jit(trainer.step)(trainer.init(KEY, PARAMS), BATCH)
    assert (float(state.params["cat"]), float(state.params["mouse"])) == (2, 5)
    assert (float(metrics["cat/loss"]), float(metrics["mouse/loss"])) == (16, -4)
    assert int(state.step) == 1


def test_turns_share_the_batch() -> None:
    trainer = alternate(cat(), mouse(), turns=(2, 1))
    state, metrics = trainer.step(trainer.init(KEY, PARAMS), BATCH)
    assert float(state.params["cat"]) == 3
    assert float(metrics["cat/rows"]) == 2
    assert int(state.parts["cat"].step) == 2
    with pytest.raises(InvalidValueError, match="batch size is 3, expected a multiple of 2"):
        trainer.step(state, jnp.ones(3))


def test_no_model_is_held_twice() -> None:
    trainer = alternate(cat(), mouse())
    state = trainer.init(KEY, PARAMS)
    names = [row.leaf for row in explain_donation(trainer, state).rows]
    assert [name for name in names if "['mouse']" in name and "params" in name] == [".parts['mouse'].params['mouse']"]
    assert not any("reads['mouse']" in name or "reads['cat']" in name for name in names)


def test_what_nobody_trains_is_read_from_outside() -> None:
    trainer = alternate(cat(), mouse())
    assert (trainer.trains, trainer.reads, trainer.publishes) == (("cat", "mouse"), ("wall",), ("cat", "mouse"))
    state = trainer.receive(trainer.init(KEY, PARAMS), {"wall": jnp.float32(7), "mouse": jnp.float32(2)})
    assert float(state.reads["wall"]) == 7
    assert float(state.params["mouse"]) == 2
    _, metrics = trainer.step(state, BATCH)
    assert (float(metrics["cat/wall"]), float(metrics["cat/loss"])) == (7, 4)
    with pytest.raises(UnknownNameError, match=r"trainer.receive: no model is named 'dog'"):
        trainer.receive(state, {"dog": jnp.float32(0)})


def test_parts_draw_from_keys_of_their_own() -> None:
    trainer = alternate(mouse(), cat())
    _, metrics = trainer.step(trainer.init(KEY, PARAMS), BATCH)
    its_key = jax.random.fold_in(KEY, 0)
    assert metrics["mouse/noise"] == jax.random.normal(jax.random.fold_in(its_key, 0))


def test_only_what_the_parts_publish_is_published() -> None:
    trainer = alternate(cat(publishes=()), mouse())
    state = trainer.init(KEY, PARAMS)
    assert trainer.publishes == ("mouse",)
    assert trainer.publish(state)["mouse"] is state.params["mouse"]


def test_setup_and_teardown_reach_every_part() -> None:
    def reset(state: Any) -> Any:
        return state.replace(params={"cat": state.reads["mouse"] + 1})

    trainer = alternate(cat()._replace(setup=reset, teardown=reset), mouse())
    state = trainer.init(KEY, PARAMS)
    assert float(trainer.setup(state).params["cat"]) == float(trainer.teardown(state).params["cat"]) == 5


def test_a_model_read_from_outside_is_handed_through_a_chunk_uncopied() -> None:
    trainer = alternate(cat(), mouse())
    state = own(trainer.init(KEY, PARAMS))
    programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, BATCH, steps=2)
    after, _ = programs.chunk(state, BATCH, 0, KEY)
    assert after.reads["wall"] is state.reads["wall"]
    assert after.params["cat"] is not state.params["cat"]


def test_what_cannot_alternate_is_refused() -> None:
    untraced = custom_trainer(lambda key, params: None, lambda state, batch: (state, {}), trains=("a",), compiled=False)
    with pytest.raises(InvalidValueError, match="'1 trainers', expected two or more"):
        alternate(cat())
    with pytest.raises(InvalidValueError, match=r"models of several trainers is \['cat'\]"):
        alternate(cat(), cat())
    with pytest.raises(InvalidValueError, match=r"alternate\(trainer.trains\) is None, expected names"):
        alternate(cat(), gradient_trainer(flee, optax.sgd(0.1)))
    with pytest.raises(InvalidValueError, match=r"alternate\(turns\) is \(1,\), expected 2 integers"):
        alternate(cat(), mouse(), turns=(1,))
    with pytest.raises(InvalidValueError, match=r"alternate\(turns\) is 0, expected an integer from 1"):
        alternate(cat(), mouse(), turns=(0, 1))
    with pytest.raises(InvalidValueError, match=r"alternate\(trainer.compiled\) is False"):
        alternate(cat(), untraced)
