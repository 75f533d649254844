from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.trainer import TrainerState, custom_trainer, ema, explain_donation

KEY = jax.random.key(0)


def counting(**options: Any) -> Any:
    """Return a trainer whose parameters are the number of its step."""

    def init(rng_key: jax.Array, params: Any) -> TrainerState[Any]:
        return TrainerState(params, (), jnp.int32(0), rng_key)

    def step(state: TrainerState[Any], batch: Any) -> Any:
        params = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), state.params)
        return state.replace(params=params, step=state.step + 1), {}

    return custom_trainer(init, step, **options)


def published(trainer: Any, params: Any, steps: int = 3) -> Any:
    state = trainer.init(KEY, params)
    for _ in range(steps):
        state, _ = trainer.step(state, None)
    return trainer.publish(state)


def test_a_debiased_average_is_that_of_the_steps_so_far() -> None:
    assert published(ema(counting(), 0.5), jnp.zeros(()), 0) == 0
    assert published(ema(counting(), 0.5), jnp.zeros(()), 1) == 1
    expected = (0.25 * 1 + 0.5 * 2 + 1 * 3) / 1.75
    assert float(published(ema(counting(), 0.5), jnp.zeros(()))) == pytest.approx(expected)


def test_without_it_the_first_parameters_fade() -> None:
    expected = 0.125 * 0 + 0.125 * 1 + 0.25 * 2 + 0.5 * 3
    assert float(published(ema(counting(), 0.5, debias=False), jnp.zeros(()))) == pytest.approx(expected)


def test_a_decay_of_one_on_a_schedule_waits_with_averaging() -> None:
    trainer = ema(counting(), lambda step: jnp.where(step < 2, 1.0, 0.5))
    assert [float(published(trainer, jnp.zeros(()), steps)) for steps in (1, 2)] == [0, 2]


def test_half_precision_is_averaged_in_single_and_published_in_half() -> None:
    trainer = ema(counting(), 0.999, debias=False)
    params = {"w": jnp.zeros((), jnp.bfloat16), "count": jnp.int32(0)}
    state = trainer.init(KEY, params)
    assert state.average["w"].dtype == jnp.float32
    assert published(trainer, params)["w"].dtype == jnp.bfloat16
    assert int(published(trainer, params)["count"]) == 3


def test_named_models_are_averaged_and_others_published_as_they_are() -> None:
    trainer = ema(counting(trains=("a", "b")), 0.5, models=("a",), debias=False)
    models = published(trainer, {"a": jnp.zeros(()), "b": jnp.zeros(())}, 1)
    assert (float(models["a"]), float(models["b"])) == (0.5, 1)


def test_the_average_is_published_uncopied_and_kept() -> None:
    trainer = ema(counting(), 0.5)
    state = trainer.init(KEY, {"w": jnp.zeros(3)})
    assert trainer.publish(state)["w"] is state.average["w"]
    rows = {row.leaf: row.reason for row in explain_donation(trainer, state).rows if not row.donated}
    assert rows == {".inner.params['w']": "a parameter, in a snapshot", ".average['w']": "published as it is"}


def test_two_averages_nest() -> None:
    trainer = ema(ema(counting(), 0.5, debias=False), 0.0)
    assert float(published(trainer, jnp.zeros(()))) == pytest.approx(2.125)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(InvalidValueError, match=r"ema\(decay\) is .*expected a number in \[0, 1\)"):
        ema(counting(), decay)


def test_a_model_that_is_not_trained_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"ema\(models\): no trained model is named 'c'; .*'a'"):
        ema(counting(trains=("a",)), 0.5, models=("c",))
