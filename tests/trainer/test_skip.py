from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer import alternate, custom_trainer, ema, gradient_trainer, skip_first
from pamiq_jax.trainer.forward import forwarded_leaves

KEY = jax.random.key(0)


def loss_fn(w: jax.Array, batch: jax.Array, rng_key: jax.Array) -> Any:
    return jnp.mean((w - batch) ** 2), {"rows": jnp.int32(3)}


INNER = gradient_trainer(loss_fn, optax.adam(0.1))


def bits(tree: Any) -> Any:
    return [jax.random.key_data(leaf) if leaf.dtype == KEY.dtype else leaf for leaf in jax.tree.leaves(tree)]


def test_the_first_runs_change_nothing_and_the_next_is_the_inner_ones_first() -> None:
    trainer = skip_first(INNER, 2)
    first = state = trainer.init(KEY, jnp.zeros(2))
    for _ in range(2):
        state = trainer.setup(state)
        state, metrics = trainer.step(state, jnp.ones(2))
        state = trainer.teardown(state)
        assert jnp.isnan(metrics["loss"])
        assert int(metrics["rows"]) == 0
        assert all(jnp.array_equal(old, new) for old, new in zip(bits(first.inner), bits(state.inner), strict=True))
    state, metrics = trainer.step(trainer.setup(state), jnp.ones(2))
    alone, own_metrics = INNER.step(INNER.init(KEY, jnp.zeros(2)), jnp.ones(2))
    assert float(metrics["loss"]) == float(own_metrics["loss"])
    assert jnp.allclose(state.params, alone.params)
    assert int(state.step) == 1


def test_setup_and_teardown_are_skipped_too() -> None:
    def more(state: Any) -> Any:
        return state.replace(params=state.params + 1)

    trainer = skip_first(INNER._replace(setup=more, teardown=more), 1)
    state = trainer.teardown(trainer.setup(trainer.init(KEY, jnp.zeros(2))))
    assert state.params.tolist() == [0, 0]
    assert trainer.teardown(trainer.setup(state)).params.tolist() == [2, 2]


@pytest.mark.parametrize("debias", [True, False])
def test_an_average_is_the_same_on_either_side_and_skipped_steps_do_not_move_it(debias: bool) -> None:
    inside, outside = skip_first(ema(INNER, 0.9, debias=debias), 2), ema(skip_first(INNER, 2), 0.9, debias=debias)
    alone = ema(INNER, 0.9, debias=debias)
    published: list[Any] = []
    for trainer, runs in ((alone, 3), (inside, 5), (outside, 5)):
        state = trainer.init(KEY, jnp.full(2, 100.0))
        for _ in range(runs):
            state = trainer.setup(state)
            for _ in range(2):
                state, _ = trainer.step(state, jnp.ones(2))
            state = trainer.teardown(state)
        published.append(trainer.publish(state))
    assert jnp.array_equal(published[0], published[1])
    assert jnp.array_equal(published[0], published[2])


def test_until_the_first_step_the_average_is_what_others_make_of_the_model() -> None:
    trainer = ema(skip_first(gradient_trainer(lambda p, b, k: (p["m"] * b, {}), optax.sgd(0.1), trains=("m",)), 1), 0.9)
    state = trainer.setup(trainer.init(KEY, {"m": jnp.float32(100)}))
    state, _ = trainer.step(trainer.receive(state, {"m": jnp.float32(5)}), jnp.float32(1))
    assert float(trainer.publish(state)["m"]) == 5


def test_an_average_around_several_of_which_one_skips_is_refused() -> None:
    def of(name: str) -> Any:
        return gradient_trainer(lambda p, b, k: (p[name] * b, {}), optax.sgd(0.1), trains=(name,))

    params = {"a": jnp.float32(0), "b": jnp.float32(0)}
    with pytest.raises(
        InvalidValueError, match=r"ema\(trainer\), an `alternate`, .*; put ema around the trainers that"
    ):
        ema(alternate(skip_first(of("a"), 1), of("b")), 0.9).init(KEY, params)
    state = alternate(ema(skip_first(of("a"), 1), 0.9), of("b")).init(KEY, params)
    assert int(state.step) == 0


def test_it_compiles_once_for_both() -> None:
    traces: list[int] = []

    def step(state: Any, batch: Any) -> Any:
        traces.append(0)
        return INNER.step(state, batch)

    trainer = skip_first(INNER._replace(step=step), 1)
    state, compiled = trainer.init(KEY, jnp.zeros(2)), jax.jit(trainer.step)
    state, _ = compiled(trainer.setup(state), jnp.ones(2))
    before = len(traces)
    state, _ = compiled(trainer.setup(state), jnp.ones(2))
    assert len(traces) == before
    assert int(state.step) == 1


def test_an_inner_trainer_without_setup_costs_no_copy() -> None:
    trainer = skip_first(INNER, 1)
    state = trainer.init(KEY, jnp.zeros(2))
    assert set(range(len(jax.tree.leaves(state.inner)))) <= set(forwarded_leaves(trainer.setup, state))


def test_what_cannot_be_skipped_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"skip_first\(runs\) is -1, expected an integer from 0"):
        skip_first(INNER, -1)
    with pytest.raises(InvalidValueError, match=r"skip_first\(runs\) is 1.5, expected an integer from 0"):
        skip_first(INNER, 1.5)  # type: ignore[arg-type]
    untraced = custom_trainer(INNER.init, INNER.step, compiled=False)
    with pytest.raises(InvalidValueError, match=r"skip_first\(trainer.compiled\) is False, .* can be traced"):
        skip_first(untraced, 1)
