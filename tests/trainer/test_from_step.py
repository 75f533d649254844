"""Steps in the shapes of research code, made into trainers without a change."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import pamiq_jax as pj
from pamiq_jax.errors import (
    DonationError,
    DonationWarning,
    InvalidValueError,
    StepSignatureError,
    UnknownNameError,
)
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import Trainer, donated_leaves, trainer_from_step
from pamiq_jax.trainer.compile import own

KEY = jax.random.key(0)
TX = optax.adam(0.1)
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.float32(0.5)}
BATCH = {"x": jnp.linspace(-1.0, 1.0, 8).reshape(4, 2), "y": jnp.linspace(0.0, 1.0, 4)}


@pytest.fixture(autouse=True)
def promotion_as_usual() -> Iterator[None]:
    """Research code is not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def error_of(params: Any, batch: Any, key: Any = None) -> jax.Array:
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, (4,))
    return jnp.mean((batch["x"] @ params["w"] + params["b"] + noise - batch["y"]) ** 2)


def descend(params: Any, opt_state: Any, gradients: Any) -> Any:
    updates, opt_state = TX.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


# 1. Everything loose, as in optax's own examples, and donated.
@functools.partial(jax.jit, donate_argnums=(0, 1))
def update(params: Any, opt_state: Any, batch: Any, key: jax.Array) -> Any:
    loss, gradients = jax.value_and_grad(error_of)(params, batch, key)
    return *descend(params, opt_state, gradients), loss


# 2. A flax TrainState, donated, and metrics.
@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, batch: Any) -> Any:
    loss, gradients = jax.value_and_grad(error_of)(state.params, batch)
    return state.apply_gradients(grads=gradients), {"loss": loss, "norms": {"gradient": optax.tree.norm(gradients)}}


# 3. Auxiliary state beside the parameters (statistics, a target), and the batch in pieces.
@jax.jit
def update_with_statistics(params: Any, statistics: Any, target: Any, opt_state: Any, x: Any, y: Any) -> Any:
    statistics = {"mean": 0.9 * statistics["mean"] + 0.1 * x.mean(0)}
    loss, gradients = jax.value_and_grad(error_of)(params, {"x": x - statistics["mean"], "y": y})
    params, opt_state = descend(params, opt_state, gradients)
    target = optax.incremental_update(params, target, 0.1)
    return params, statistics, target, opt_state, (loss, {"mean": statistics["mean"].mean()})


# 4. A whole run that scans inside, over a tuple with the key in it (as purejaxrl's runner_state).
class LossInfo(NamedTuple):
    total_loss: jax.Array


@jax.jit
def train(runner_state: Any, transitions: Any) -> Any:
    def _update_epoch(runner_state: Any, _: None) -> Any:
        train_state, rng = runner_state
        rng, key = jax.random.split(rng)
        loss, gradients = jax.value_and_grad(error_of)(train_state.params, transitions, key)
        return (train_state.apply_gradients(grads=gradients), rng), LossInfo(loss)

    runner_state, info = jax.lax.scan(_update_epoch, runner_state, None, 3)
    return {"runner_state": runner_state, "metrics": info}


# 5. One state of one's own, with names that say nothing.
class Learner(flax.struct.PyTreeNode):
    params: Any
    opt: Any


@jax.jit
def learn(rng: Any, l: Any, b: Any) -> Any:  # noqa: E741
    loss, gradients = jax.value_and_grad(error_of)(l.params, b, rng)
    params, opt = descend(l.params, l.opt, gradients)
    return loss, l.replace(params=params, opt=opt)


TRAIN_STATE = TrainState.create(apply_fn=error_of, params=PARAMS, tx=TX)


def begin_with_statistics(rng_key: jax.Array, params: Any) -> Any:
    statistics = {"mean": jnp.zeros(2)}
    return {"params": params, "statistics": statistics, "target": params, "opt_state": TX.init(params)}


def of_statistics(**options: Any) -> Trainer[Any, Any]:
    signature = "params, statistics, target, opt_state, x, y -> params, statistics, target, opt_state, loss"
    return trainer_from_step(update_with_statistics, begin_with_statistics, signature=signature, **options)


TRAINERS = {
    "loose": lambda **options: trainer_from_step(update, TX, **options),
    "TrainState": lambda **options: trainer_from_step(train_step, TRAIN_STATE, **options),
    "auxiliary state": of_statistics,
    "whole run": lambda **options: trainer_from_step(
        train, lambda key, params: (TRAIN_STATE.replace(params=params), key), **options
    ),
    "own state": lambda **options: trainer_from_step(
        learn, lambda key, params: Learner(params, TX.init(params)), **options
    ),
}


@pytest.mark.parametrize("make", TRAINERS.values(), ids=TRAINERS)
def test_a_step_as_it_is_keeps_the_contract(make: Any) -> None:
    check_trainer(make(model="line"), {"line": PARAMS}, BATCH)


def learn_in_a_system(trainer: Trainer[Any, Any], runs: int) -> tuple[list[float], Any]:
    """Return the loss of each run, and the last snapshot; what was published before must still be there."""
    system = pj.System(
        models={"line": pj.Model(PARAMS, lambda params, x: x @ params["w"] + params["b"])},
        buffers={"points": pj.ring_buffer(64, example={"x": np.zeros(2, np.float32), "y": np.float32(0)})},
        trainers={"fit": pj.Schedule(trainer, data="points", batch_size=4, steps=8)},
    )
    compiled = pj.compile_system(system, check_donation=trainer.compiled)
    cells, learner, clock = compiled.cells(), compiled.learner, pj.VirtualClock()
    for x in np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32):
        cells.collectors["points"].collect({"x": x, "y": x[0] - x[1] + 3}, version=0)
    losses: list[float] = []
    snapshots = [cells.store.latest]
    while len(snapshots) <= runs:
        learner, report = pj.train_tick(compiled.programs, learner, cells, clock)
        losses += [float(value) for name, value in (report.metrics or {}).items() if "loss" in name]
        if cells.store.latest is not snapshots[-1]:
            snapshots.append(cells.store.latest)
    assert not any(leaf.is_deleted() for snapshot in snapshots for leaf in jax.tree.leaves(dict(snapshot.params)))
    return losses, snapshots[-1]


@pytest.mark.parametrize("name", ["loose", "TrainState", "whole run"])
def test_it_learns_in_a_system_that_proves_that_nothing_published_is_deleted(name: str) -> None:
    losses, snapshot = learn_in_a_system(TRAINERS[name](model="line"), runs=8)
    assert losses[-1] < losses[0]
    assert set(snapshot.params["line"]) == {"w", "b"}


def test_in_a_system_a_step_in_python_that_donates_deletes_nothing_published() -> None:
    trainer = trainer_from_step(in_python, TX, model="line", compiled=False)
    with pytest.warns(DonationWarning, match="donates 7 of its arrays") as warned:
        losses, _ = learn_in_a_system(trainer, runs=3)
    assert losses[-1] < losses[0]
    assert len(warned) == 1


def test_what_a_step_donates_is_found_in_it() -> None:
    arguments = (PARAMS, TX.init(PARAMS), BATCH, KEY)
    names = donated_leaves(update, *arguments)
    assert {"[0]['w']", "[1][0].mu['w']"} < set(names)
    assert not any(name.startswith(("[2]", "[3]")) for name in names)
    assert donated_leaves(lambda *rest: update(*rest), *arguments) == names  # also in a function around it
    assert donated_leaves(jax.jit(lambda *rest: update(*rest)), *arguments) == ()  # where it counts for nothing


def in_python(params: Any, opt_state: Any, batch: Any, key: jax.Array) -> Any:
    """Decide in Python, so that it cannot be traced."""
    if float(batch["y"].sum()) > 1e6:
        return params, opt_state, jnp.float32(0)
    return update(params, opt_state, batch, key)


def test_what_a_step_in_python_donates_is_found_by_trial() -> None:
    arguments = (PARAMS, TX.init(PARAMS), BATCH, KEY)
    assert donated_leaves(in_python, *arguments) == donated_leaves(update, *arguments)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(arguments))


def test_a_step_in_python_that_donates_is_made_safe_and_said_once(recwarn: pytest.WarningsRecorder) -> None:
    trainer = trainer_from_step(in_python, TX, compiled=False)
    first = own(trainer.init(KEY, PARAMS))
    with pytest.warns(
        DonationWarning, match=r"donates 7 of its arrays \(.*mu.* and 4 more\).*confirm with donates=True"
    ):
        state, _ = trainer.step(first, BATCH)
    state, _ = trainer.step(state, BATCH)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((first, state, BATCH)))
    expected = trainer_from_step(update, TX)
    again = expected.init(KEY, PARAMS)
    for _ in range(2):
        again, _ = expected.step(again, BATCH)
    np.testing.assert_allclose(state.params["w"], again.params["w"], rtol=1e-5)
    assert not recwarn


def test_declared_donation_is_made_safe_silently() -> None:
    check_trainer(trainer_from_step(in_python, TX, compiled=False, donates=True), PARAMS, BATCH)


def test_a_donation_that_comes_later_is_refused() -> None:
    calls: list[int] = []

    def later(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        calls.append(0)
        return (update.__wrapped__ if len(calls) == 1 else update)(params, opt_state, batch, key)

    trainer = trainer_from_step(later, TX, compiled=False)
    state, _ = trainer.step(own(trainer.init(KEY, PARAMS)), BATCH)
    with pytest.raises(DonationError, match="had not at its first call; say so with donates=True"):
        trainer.step(state, BATCH)


def test_a_step_that_cannot_be_traced_says_what_to_do() -> None:
    trainer = trainer_from_step(in_python, TX)
    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        trainer.step(trainer.init(KEY, PARAMS), BATCH)
    assert any("compiled=False" in note for note in caught.value.__notes__)


def test_metrics_are_scalars_by_name() -> None:
    step = TRAINERS["TrainState"]()
    _, metrics = step.step(step.init(KEY, PARAMS), BATCH)
    assert set(metrics) == {"loss", "norms.gradient"}
    whole = TRAINERS["whole run"]()
    state, metrics = whole.step(whole.init(KEY, PARAMS), BATCH)
    assert metrics["total_loss"].shape == ()
    assert state.value[0].step == 3  # three updates in one step
    auxiliary = of_statistics()
    _, metrics = auxiliary.step(auxiliary.init(KEY, PARAMS), BATCH)
    assert set(metrics) == {"loss", "mean"}


def test_a_train_state_goes_in_with_its_optimizer_and_comes_out() -> None:
    ahead, _ = jax.jit(train_step.__wrapped__)(TRAIN_STATE, BATCH)
    trainer = trainer_from_step(train_step, ahead)
    state, _ = trainer.step(trainer.init(KEY, ahead.params), BATCH)
    out = state.value
    assert isinstance(out, TrainState)
    assert (int(out.step), out.tx, out.apply_fn) == (2, TX, error_of)


def test_what_is_published_can_be_picked() -> None:
    def pick(values: Any) -> Any:
        return {"params": values["params"], "statistics": values["statistics"]}

    def begin(rng_key: jax.Array, variables: Any) -> Any:
        return begin_with_statistics(rng_key, variables["params"])

    signature = "params, statistics, target, opt_state, x, y -> params, statistics, target, opt_state, loss"
    trainer = trainer_from_step(update_with_statistics, begin, signature=signature, model="line", params=pick)
    state = trainer.init(KEY, {"line": {"params": PARAMS}})
    state, _ = trainer.step(state, BATCH)
    published = trainer.publish(state)["line"]
    assert set(published) == {"params", "statistics"}
    assert published["statistics"]["mean"] is state.values["statistics"]["mean"]
    received = trainer.receive(state, {"line": {"params": PARAMS, "statistics": {"mean": jnp.ones(2)}}})
    assert received.values["params"]["w"] is PARAMS["w"]
    with pytest.raises(UnknownNameError, match="no model is named 'other'; known: 'line'"):
        trainer.receive(state, {"other": PARAMS})


SHORT = 'declare it: signature="params, opt_state, batch -> params, opt_state, loss"'


def unnamed(p: Any, o: Any, b: Any) -> Any:
    return update.__wrapped__(p, o, b, KEY)


def test_unknown_arguments_are_said_and_can_be_declared() -> None:
    with pytest.raises(
        StepSignatureError, match=r"unnamed\(p, o, b\): tried .* a dict with params, opt_state"
    ) as caught:
        trainer_from_step(unnamed, TX).init(KEY, PARAMS)
    assert SHORT in str(caught.value)
    declared = trainer_from_step(unnamed, TX, signature="params, opt_state, batch -> params, opt_state, loss")
    _, metrics = declared.step(declared.init(KEY, PARAMS), BATCH)
    assert set(metrics) == {"loss"}


@pytest.mark.parametrize(
    ("step", "init", "batch", "problem"),
    [
        (lambda *rest: rest, TX, BATCH, r"its parameter \*rest may be anything"),
        (lambda params, opt_state, batch: (params, 0.0), TX, BATCH, "opt_state did not come back: tried output 0 as"),
        (lambda params, opt_state, x, z: 0, TX, BATCH, "arguments z are no part of .* the batch, which has x, y"),
        (lambda params, opt_state, x, y: 0, TX, jnp.ones(3), "which has no names, being a"),
        (
            update_with_statistics,
            begin_with_statistics,
            BATCH,
            "params and target have one form, so it cannot be seen which of them output 0 is",
        ),
    ],
)
def test_a_step_of_unknown_signature_is_refused(step: Any, init: Any, batch: Any, problem: str) -> None:
    with pytest.raises(StepSignatureError, match=problem):
        (trainer := trainer_from_step(step, init)).step(trainer.init(KEY, PARAMS), batch)


@pytest.mark.parametrize("declared", ["params, batch", "params ->", "a, a -> a", "a b -> c"])
def test_a_declaration_that_is_none_is_refused(declared: str) -> None:
    with pytest.raises(StepSignatureError, match="declare it: signature="):
        trainer_from_step(update, TX, signature=declared)


def test_a_declaration_that_does_not_fit_is_refused() -> None:
    trainer = trainer_from_step(update, TX, signature="params, opt_state, batch, key -> params, opt_state")
    with pytest.raises(StepSignatureError, match="it returned 3 values, declared are params, opt_state"):
        trainer.step(trainer.init(KEY, PARAMS), BATCH)


def test_modules_and_other_things_that_are_no_arrays_are_refused() -> None:
    step = trainer_from_step(update, lambda key, params: {"params": params, "opt_state": ()})
    with pytest.raises(InvalidValueError, match=r"init's params is <class '.*Dense'>.* a module object is no state"):
        step.init(KEY, flax.linen.Dense(2))
    with pytest.raises(InvalidValueError, match=r"pamiq_jax.flax.nnx_trainer\(split_module"):
        step.init(KEY, {"layer": nnx.Linear(2, 2, rngs=nnx.Rngs(0))})
    with pytest.raises(InvalidValueError, match=r"init's params\['name'\] is 'line', expected an array"):
        step.init(KEY, {"name": "line"})
    with pytest.raises(
        UnknownNameError, match=r"trainer_from_step\(model\): no model is named 'line'; known: 'b', 'w'"
    ):
        trainer_from_step(update, TX, model="line").init(KEY, PARAMS)
    with pytest.raises(InvalidValueError, match=r"trainer_from_step\(init\) is 3, expected a function"):
        trainer_from_step(update, 3)


def test_parameters_that_are_not_found_are_to_be_picked() -> None:
    trainer = trainer_from_step(lambda state, batch: (state, 0.0), lambda key, params: (params["w"], params["b"]))
    with pytest.raises(InvalidValueError, match="picks the parameters: 0 were found in state"):
        trainer.init(KEY, PARAMS)
    half = trainer_from_step(update, TX, params=lambda values: {"w": values["params"]["w"] * 2.0})
    with pytest.raises(InvalidValueError, match="leaves of the values as they are"):
        half.init(KEY, PARAMS)
