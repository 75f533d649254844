"""Trainers whose step runs as plain Python, and donates as it likes: nothing that others read is deleted by it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import DonationError, StepSignatureError
from pamiq_jax.trainer import Trainer, trainer_from_step

TX = optax.sgd(0.1, momentum=0.9)
PATIENCE = 60


@functools.partial(jax.jit, donate_argnums=(0, 1))
def update(params: Any, opt_state: Any, batch: Any) -> Any:
    loss, gradients = jax.value_and_grad(lambda w: jnp.mean((w - jnp.mean(batch)) ** 2))(params)
    updates, opt_state = TX.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss


def custom(run: Callable[..., Any] = update) -> Trainer[Any, Any]:
    """Return a trainer that says nothing of the donation within."""

    def init(rng_key: jax.Array, params: Any) -> Any:
        return pj.TrainerState(params, TX.init(params["policy"]), jnp.zeros((), jnp.int32), rng_key)

    def step(state: Any, batch: Any) -> Any:
        params, opt_state, loss = run(state.params["policy"], state.opt_state, batch)
        return state.replace(params={"policy": params}, opt_state=opt_state, step=state.step + 1), {"loss": loss}

    teardown = jax.jit(lambda state: state.replace(step=state.step + 0), donate_argnums=0)
    return pj.custom_trainer(init, step, teardown=teardown, trains=("policy",), compiled=False)


def late() -> Trainer[Any, Any]:
    """Return a trainer that begins to donate in its third step."""
    calls: list[int] = []

    def run(*arguments: Any) -> Any:
        calls.append(0)
        return (update if len(calls) > 2 else inspect.unwrap(update))(*arguments)

    return custom(run)


def from_step(**options: Any) -> Trainer[Any, Any]:
    return trainer_from_step(update, TX, model="policy", compiled=False, **options)


def two_on_one_model() -> dict[str, pj.Schedule]:
    """Return two trainers that hand a model to each other."""
    parts: dict[str, Any] = {"data": "x", "batch_size": 4, "steps": 2}
    return {name: pj.Schedule(custom(), after=after, **parts) for name, after in (("one", ()), ("two", ("one",)))}


def system_of(trainer: Trainer[Any, Any] | None = None, **changes: Any) -> pj.System:
    return pj.System(
        models={"policy": pj.Model(jnp.zeros(3), jnp.vdot)},
        buffers={"x": pj.ring_buffer(64, example=0.0)},
        trainers={"fit": pj.Schedule(trainer, data="x", batch_size=4, steps=2)} if trainer else two_on_one_model(),
        **changes,
    )


def published_by(compiled: Any, ticks: int) -> tuple[list[Any], Any]:
    """Return all snapshots and models that anybody could still hold, and the learner."""
    learner, cells, clock = compiled.learner, compiled.cells(), pj.VirtualClock()
    for value in range(8):
        cells.collectors["x"].collect(float(value), version=0)
    held = [dict(cells.store.latest.params)]
    for _ in range(ticks):
        learner, report = pj.train_tick(compiled.programs, learner, cells, clock)
        assert report.error is None, report.error
        held += [dict(cells.store.latest.params), dict(learner.models)]
    return held, learner


def is_whole(tree: Any) -> bool:
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("make", [custom, late, None], ids=["its own", "late", "shared model"])
def test_what_is_published_outlives_a_step_that_deletes_its_state(make: Callable[[], Any] | None) -> None:
    held, learner = published_by(pj.compile_system(system_of(make and make())), ticks=6)
    assert is_whole(held)
    values = [float(params["policy"][0]) for params in held if params]
    assert values[0] == 0
    assert values[-1] > 1  # on the way to the mean of what was collected
    assert all(run.runs >= 1 for run in learner.trainers.values())


@pytest.mark.filterwarnings("ignore::pamiq_jax.errors.DonationWarning")
def test_states_that_are_kept_outlive_it_too() -> None:
    compiled = pj.compile_system(system_of(custom()), donates=False)
    first = compiled.learner
    held, _ = published_by(compiled, ticks=4)
    assert is_whole((held, first.trainers["fit"].state))


def test_a_wrong_word_on_donation_is_refused_before_anything_is_gone() -> None:
    trainer = from_step(donates=False)
    with pytest.raises(DonationError, match=r"donates .*expected nothing, as donates=False says; nothing is lost"):
        pj.compile_system(system_of(trainer))
    state = trainer.init(jax.random.key(0), {"policy": jnp.zeros(3)})
    with pytest.raises(DonationError, match="leave donates= out"):
        trainer.step(state, jnp.zeros(4))
    assert is_whole(state)


@pytest.mark.filterwarnings("ignore::pamiq_jax.errors.DonationWarning")
@pytest.mark.parametrize("trainer", [from_step(), custom()._replace(warm_up=True)], ids=["from_step", "custom"])
def test_nothing_is_compiled_while_it_runs_live_and_readers_go_on(trainer: Trainer[Any, Any]) -> None:
    jax.clear_caches()  # or other tests would have compiled it
    with pj.launch(system_of(trainer), strict=True) as run:
        for value in range(8):
            run.collect("x", float(value))
        snapshots = [run.snapshot]
        for _ in range(3):
            snapshots.append(run.wait_for_version(snapshots[-1].version + 1, PATIENCE))
    assert is_whole([dict(snapshot.params) for snapshot in snapshots])
    assert float(snapshots[-1].params["policy"][0]) > 0


def test_a_step_is_tried_once_while_a_system_is_compiled() -> None:
    seen: list[Any] = []

    def step(params: Any, opt_state: Any, batch: Any) -> Any:
        seen.append(batch.shape)
        return update(params, opt_state, batch)

    for is_tried in (True, False):
        trainer = trainer_from_step(step, TX, model="policy", compiled=False, donates=True, warm_up=is_tried)
        pj.compile_system(system_of(trainer))
        assert seen == [(4,)]


def test_a_step_that_fails_when_tried_may_still_run() -> None:
    def step(params: Any, opt_state: Any, batch: Any) -> Any:
        if float(batch.sum()) == 0:
            raise ZeroDivisionError("nothing in it")
        return update(params, opt_state, batch)

    trainer = trainer_from_step(step, TX, model="policy", compiled=False, donates=True)
    with pytest.warns(RuntimeWarning, match="could not be called before the system runs.*nothing in it.*warm_up=False"):
        compiled = pj.compile_system(system_of(trainer))
    assert is_whole(published_by(compiled, ticks=2)[0])


def test_a_mistake_in_what_it_returns_is_found_when_it_is_tried() -> None:
    trainer = trainer_from_step(
        lambda params, opt_state, batch: (params, 0.0), TX, model="policy", compiled=False, donates=True
    )
    with pytest.raises(StepSignatureError, match="opt_state did not come back"):
        pj.compile_system(system_of(trainer))
