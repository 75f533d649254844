from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import InvalidValueError, StepStructureError
from pamiq_jax.trainer import (
    Trainer,
    TrainerState,
    accumulate_gradients,
    alternate,
    clip_gradients,
    compile_trainer,
    custom_trainer,
    ema,
    explain_donation,
    get_hyperparameters,
    gradient_trainer,
    guard,
    needs_rollback,
    set_hyperparameters,
    skip_first,
    with_hyperparameters,
    with_optimizers,
    with_targets,
)
from pamiq_jax.trainer.compile import own
from pamiq_jax.trainer.guarding import skip_reader

KEY = jax.random.key(0)
GOOD, BAD = jnp.ones(4), jnp.array([1.0, jnp.nan, 1.0, 1.0])


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
    return jnp.mean((total - batch) ** 2), {"draw": jax.random.uniform(rng_key)}


def sgd(*trains: str, **options: Any) -> Trainer[Any, Any]:
    return gradient_trainer(loss_fn, optax.sgd(0.25), trains=trains or None, **options)


def without_step(state: Any) -> list[Any]:
    """Return the bits of a state but for its step."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    data = [
        jax.random.key_data(leaf) if leaf.dtype == KEY.dtype else leaf for name, leaf in named if "step" not in name
    ]
    return [np.asarray(leaf).tobytes() for leaf in data]


def run(trainer: Trainer[Any, Any], params: Any, *batches: Any) -> tuple[list[Any], list[Any]]:
    """Return the states, the first included, and the metrics of the steps."""
    step = jax.jit(trainer.step)
    states, metrics = [trainer.setup(trainer.init(KEY, params))], []
    for batch in batches:
        state, its_metrics = step(states[-1], batch)
        states.append(state)
        metrics.append(its_metrics)
    return states, metrics


def counters(state: Any) -> tuple[int, int, int]:
    return int(state.step), int(state.skipped), int(state.consecutive)


def test_a_bad_batch_changes_nothing_but_the_step_and_the_counters() -> None:
    trainer = guard(gradient_trainer(loss_fn, optax.adam(0.1)))
    states, metrics = run(trainer, jnp.zeros(()), GOOD, BAD, BAD, GOOD, BAD)
    assert [counters(state) for state in states] == [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 2, 0), (5, 3, 1)]
    assert without_step(states[1].inner) == without_step(states[2].inner) == without_step(states[3].inner)
    assert [float(row["skipped"]) for row in metrics] == [0, 1, 1, 0, 1]
    assert [int(row["consecutive_skips"]) for row in metrics] == [0, 1, 2, 0, 1]
    assert [bool(jnp.isnan(row["loss"])) for row in metrics] == [False, True, True, False, True]
    assert len({float(row["draw"]) for row in metrics}) == 5  # the same batch meets another key
    alone, _ = run(gradient_trainer(loss_fn, optax.adam(0.1)), jnp.zeros(()), GOOD, GOOD)
    assert float(states[-1].params) == pytest.approx(float(alone[-1].params), rel=1e-6)


class Kinds(TrainerState[Any]):
    best: jax.Array
    other: Any


def adding() -> Trainer[Any, Any]:
    """Return a trainer that adds what it is given to the leaf of that name."""

    def init(rng_key: jax.Array, params: Any) -> Kinds:
        other = {"half": jnp.zeros(2, jnp.bfloat16), "small": jnp.zeros((), jnp.float16), "none": jnp.zeros((0, 3))}
        opt_state = {
            "mean": jnp.zeros((2, 1, 3)),
            "complex": jnp.zeros(2, jnp.complex64),
            "unused": jnp.array([jnp.inf]),
        }
        zero = jnp.zeros((), jnp.int32)
        return Kinds(params, opt_state, zero, rng_key, best=jnp.float32(jnp.inf), other=other)

    def step(state: Kinds, batch: Any) -> Any:
        loss = batch["loss"]

        def moved(tree: dict[str, Any]) -> dict[str, Any]:
            return {name: leaf + batch.get(name, jnp.ones(())).astype(leaf.dtype) for name, leaf in tree.items()}

        state = state.replace(
            params=moved(state.params),
            opt_state={**moved(state.opt_state), "unused": state.opt_state["unused"]},
            step=state.step + 1,
            rng_key=jax.random.split(state.rng_key)[0],
            best=jnp.minimum(state.best, batch["best"]),
            other=moved(state.other),
        )
        return state, {"loss": loss, "whatever": jnp.float32(jnp.nan)}

    return custom_trainer(init, step)


ADDED = guard(adding())
ADDED_PARAMS = {"w": jnp.zeros((3, 2)), "count": jnp.int32(0)}
ADD = jax.jit(ADDED.step)
NAMES = ("loss", "best", "w", "mean", "complex", "half", "small")


def add(**batch: float) -> tuple[Any, Any, Any]:
    state = ADDED.init(KEY, ADDED_PARAMS)
    after, metrics = ADD(state, {name: jnp.float32(batch.get(name, 1.0)) for name in NAMES})
    return state, after, metrics


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "best"])
def test_it_finds_what_is_not_finite_in_every_kind_of_leaf(name: str, value: float) -> None:
    before, after, metrics = add(**{name: value})
    assert counters(after) == (1, 1, 1)
    assert float(metrics["skipped"]) == 1
    kept, now = before.inner, after.inner
    assert without_step(kept.replace(rng_key=KEY)) == without_step(now.replace(rng_key=KEY))
    assert not jnp.array_equal(jax.random.key_data(kept.rng_key), jax.random.key_data(now.rng_key))


@pytest.mark.parametrize(
    "batch", [{}, {"best": float("inf")}, {"w": 3.4e38, "mean": -3.4e38, "half": 3e38, "small": 65504}]
)
def test_large_numbers_and_what_was_infinite_before_are_no_fault(batch: dict[str, float]) -> None:
    before, after, _ = add(**batch)
    assert counters(after) == (1, 0, 0)
    assert int(after.params["count"]) == int(before.params["count"]) + 1


def test_double_precision() -> None:
    with jax.enable_x64(True):
        params = jnp.float64(1e300)
        trainer = guard(gradient_trainer(lambda w, batch, key: (jnp.sum(w * batch), {}), optax.sgd(1.0)))
        states, _ = run(trainer, params, jnp.float64(1e5), jnp.float64(-jnp.inf), jnp.float64(1.0))
        assert [counters(state) for state in states[1:]] == [(1, 0, 0), (2, 1, 1), (3, 1, 0)]
        assert (states[-1].params.dtype, states[-1].skipped.dtype) == (jnp.float64, jnp.int32)


def test_a_gradient_that_is_infinite_while_the_loss_is_not() -> None:
    trainer = guard(gradient_trainer(lambda w, batch, key: (jnp.sqrt(w - batch), {}), optax.adam(0.1)))
    states, metrics = run(trainer, jnp.ones(()), jnp.ones(()), jnp.zeros(()))
    assert bool(jnp.isfinite(metrics[0]["loss"]))
    assert [counters(state) for state in states[1:]] == [(1, 1, 1), (2, 1, 0)]


def test_a_chunk_reports_the_share_and_donates_as_without_it() -> None:
    inner = gradient_trainer(loss_fn, optax.adam(0.1), trains=("a",), reads=("b",))
    trainer, models = guard(inner), {"a": jnp.zeros(3), "b": jnp.ones(3)}
    state = own(trainer.init(KEY, models))
    rows = {row.leaf: row for row in explain_donation(trainer, state).rows}
    for row in explain_donation(inner, state.inner).rows:
        assert rows[f".inner{row.leaf}"][1:] == row[1:]
    assert rows[".skipped"].donated
    assert rows[".consecutive"].donated
    data = jnp.stack([GOOD, BAD, BAD, GOOD])
    programs = compile_trainer(trainer, lambda data, position, rng_key: data[position], state, data, steps=4)
    after, metrics = programs.chunk(state, data, 0, KEY)
    assert (float(metrics["skipped"]), float(metrics["consecutive_skips"])) == (0.5, 0.75)
    assert counters(after) == (4, 2, 0)
    assert after.reads["b"] is state.reads["b"]  # what is only read is not copied
    assert bool(jnp.all(jnp.isfinite(programs.publish(after)["a"])))


def test_members_of_a_population_are_guarded_each_for_itself() -> None:
    trainer = guard(sgd())
    states = jax.vmap(trainer.init)(jax.random.split(KEY, 2), jnp.zeros(2))
    after, metrics = jax.vmap(trainer.step)(states, jnp.stack([BAD, GOOD]))
    assert after.params.tolist() == [0, 0.5]
    assert (after.step.tolist(), after.consecutive.tolist(), metrics["skipped"].tolist()) == ([1, 1], [1, 0], [1, 0])
    assert needs_rollback(after, 1).tolist() == [True, False]
    read = skip_reader(states)
    assert read is not None
    assert (read(states), read(after)) == (0, 1)  # of the worst of all members


def test_around_all_that_take_turns_or_around_one() -> None:
    models = {"a": jnp.zeros(()), "b": jnp.zeros(())}

    def poisoned(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        return params["a"] * jnp.nan, {}

    bad = gradient_trainer(poisoned, optax.sgd(1.0), trains=("a",))
    states, metrics = run(guard(alternate(bad, sgd("b"))), models, GOOD)
    assert (states[1].params, int(states[1].step)) == (models, 1)
    assert [int(part.step) for part in states[1].inner.parts.values()] == [1, 1]
    assert float(metrics[0]["skipped"]) == 1
    # The outer guard leaves what has a guard of its own to it, also a loss that is NaN.
    states, metrics = run(guard(alternate(guard(bad), sgd("b"))), models, GOOD, GOOD)
    assert (float(states[1].params["a"]), float(states[1].params["b"])) == (0, 0.5)
    assert (float(metrics[0]["skipped"]), float(metrics[0]["a/skipped"])) == (0, 1)
    assert [bool(needs_rollback(state, 2)) for state in states] == [False, False, True]


def test_a_loss_of_one_that_takes_turns_counts_unless_it_sits_out() -> None:
    def blind(params: Any, batch: Any, rng_key: jax.Array) -> Any:  # its gradient is finite
        return params["a"] + jax.lax.stop_gradient(jnp.sum(batch)), {}

    models = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    game = alternate(gradient_trainer(blind, optax.sgd(1.0), trains=("a",)), skip_first(sgd("b"), 1))
    states, metrics = run(guard(game), models, GOOD, jnp.full(4, jnp.inf))
    assert bool(jnp.isnan(metrics[0]["b/loss"]))  # no value: it sits out
    assert [int(state.skipped) for state in states] == [0, 0, 1]
    states, _ = run(guard(skip_first(sgd(), 1)), jnp.zeros(()), GOOD)
    assert counters(states[1]) == (0, 0, 0)


def test_averages_and_targets_within_are_undone_and_around_stay_finite() -> None:
    models = {"a": jnp.zeros(())}
    inner = sgd("a", reads=("target",))
    within = guard(ema(with_targets(inner, {"target": "a"}, 0.5), 0.5))
    states, _ = run(within, models, GOOD, BAD)
    assert without_step(states[1].inner) == without_step(states[2].inner)
    around = ema(with_targets(guard(inner), {"target": "a"}, 0.5), 0.5)
    states, _ = run(around, models, GOOD, BAD)
    assert (int(states[2].inner.skipped), int(states[2].step)) == (1, 2)
    assert bool(jnp.isfinite(around.publish(states[2])["a"]))
    assert float(states[2].reads["target"]) == pytest.approx(0.75 * float(states[2].params["a"]))


def test_accumulated_gradients_and_several_optimizers_are_undone_together() -> None:
    inner = gradient_trainer(loss_fn, optax.adam(0.1), trains=("a", "b"))
    inner = with_optimizers(inner, {"b": optax.sgd(optax.linear_schedule(0.1, 0.0, 9))})
    trainer = guard(accumulate_gradients(clip_gradients(inner, 1.0), 2))
    states, metrics = run(trainer, {"a": jnp.zeros(()), "b": jnp.zeros(())}, GOOD, BAD, GOOD)
    assert without_step(states[1].inner) == without_step(states[2].inner)
    assert bool(jnp.isnan(metrics[1]["gradient_norm"]))
    assert states[2].params == states[0].params
    assert float(states[3].params["a"]) > 0  # the second good one of the two completes the update


@pytest.mark.parametrize("is_outside", [True, False])
def test_hyperparameters_are_found_through_it(is_outside: bool) -> None:
    def make(learning_rate: Any) -> Trainer[Any, Any]:
        inner = gradient_trainer(loss_fn, optax.sgd(learning_rate))
        return inner if is_outside else guard(inner)

    trainer = with_hyperparameters(make, learning_rate=0.25)
    trainer = guard(trainer) if is_outside else trainer
    state = set_hyperparameters(trainer.init(KEY, jnp.zeros(())), learning_rate=0.5)
    state, _ = trainer.step(state, GOOD)
    assert float(state.params) == 1
    assert get_hyperparameters(state) == {"learning_rate": 0.5}
    assert not needs_rollback(state, 1)


def test_without_a_guard_no_rollback_is_needed() -> None:
    assert not needs_rollback(sgd().init(KEY, jnp.zeros(())), 1)
    assert needs_rollback({"mine": (guard(sgd()).init(KEY, jnp.zeros(())).replace(consecutive=jnp.int32(3)),)}, 3)
    with pytest.raises(InvalidValueError, match=r"needs_rollback\(limit\) is 0, expected an integer from 1"):
        needs_rollback((), 0)
    with pytest.raises(InvalidValueError, match=r"needs_rollback\(limit\) is 1.5, expected an integer from 1"):
        needs_rollback((), 1.5)  # type: ignore[arg-type]


def test_what_cannot_be_guarded_is_refused() -> None:
    inner = sgd()
    with pytest.raises(InvalidValueError, match=r"guard\(trainer.compiled\) is False, .* can be traced"):
        guard(custom_trainer(inner.init, inner.step, compiled=False))

    def widened(state: Any, batch: Any) -> Any:
        return state.replace(params=state.params[None]), {}

    trainer = guard(inner._replace(step=widened))
    with pytest.raises(StepStructureError, match=r"leaf .params: expected float32\[\], got float32\[1\]"):
        trainer.step(trainer.init(KEY, jnp.zeros(())), GOOD)
