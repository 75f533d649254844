"""The contract of trainers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from pamiq_jax.errors import ContractError
from pamiq_jax.testing.comparing import bit_difference, form_difference, frozen
from pamiq_jax.testing.functions import check_kept, check_pure, check_traced, promised, require
from pamiq_jax.testing.rounding import difference_beyond_rounding, spread_of
from pamiq_jax.trainer import Trainer, TrainerState, compile_trainer, unchanged
from pamiq_jax.trainer.compile import own
from pamiq_jax.trainer.priorities import PRIORITIES, Drawn
from pamiq_jax.types import Params, PyTree


def check_trainer(
    trainer: Trainer[Any, Any],
    params: Params,
    batch: PyTree,
    *,
    rng_key: jax.Array | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Raise if a trainer breaks the contract that the library builds on.

    Its functions are pure, mean the same under `jit`, `vmap`, `lax.scan` and `eval_shape`, are traced once and
    keep the form of the state. A step counts one up, keeps the key and draws from `fold_in(rng_key, step)`, and
    repeats bit for bit from a restored state. `publish` gives the models it declares, always in one form.
    What `explain_donation` calls donated really is. A trainer with `compiled=False` is spared what traces.

    Args:
        trainer: the trainer.
        params: parameters to start from.
        batch: one batch `[B, ...]`.
        rng_key: `key[]`, for `init`; `jax.random.key(0)` by default.
        tolerance: relative and absolute, for what is compiled against what is not. A step may be further off where
            rounding moves it as far: optimizers that divide by the size of a gradient make a step of one that is zero
            but for rounding. That is found out by changing parameters and batch in their last digits.

    Raises:
        ContractError: naming the function, the promise and the leaf.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.adam(0.1))
        >>> check_trainer(trainer, params=jnp.zeros(()), batch=jnp.arange(4.0))
    """
    rng_key = jax.random.key(0) if rng_key is None else rng_key
    first = check_pure("init", trainer.init, (rng_key, params))
    _check_first_state(first, rng_key)
    state = own(first)  # as a system does; parameters that are handed through are not the trainer's
    before, after, metrics = _check_changes(trainer, state, batch)
    _check_publish(trainer, state, after)
    _check_randomness(trainer, state, batch)
    further = _check_resume(trainer, after, batch)
    if not trainer.compiled:
        return
    publish = trainer.publish
    check_traced("init", trainer.init, (rng_key, params), first, tolerance=tolerance)
    if trainer.setup is not unchanged:
        check_traced("setup", trainer.setup, (state,), before, later=(after,), tolerance=tolerance)
    check_traced(
        "step",
        trainer.step,
        (state, batch),
        (after, metrics),
        later=(after, batch),
        tolerance=tolerance,
        get_spread=spread_of(trainer.step, (state, batch)),
    )
    if trainer.teardown is not unchanged:
        check_traced("teardown", trainer.teardown, (after,), trainer.teardown(after), tolerance=tolerance)
    check_traced("publish", publish, (state,), publish(state), later=(after,), tolerance=tolerance)
    _check_scan(trainer, state, batch, further, tolerance)
    _check_donation(trainer, state, _drawn(batch, metrics))


def _check_first_state(state: Any, rng_key: jax.Array) -> None:
    if not isinstance(state, TrainerState):  # a state of the user's own need have neither counter nor key
        return
    step = cast(TrainerState[Any], state).step
    is_zero = jnp.shape(step) == () and jnp.result_type(step) == jnp.int32 and int(step) == 0
    require("init", "the step counter starts as an int32 0", None if is_zero else f"leaf .step is {step!r}")
    require("init", "the key is kept in the state", bit_difference(frozen(rng_key), frozen(state.rng_key)))


def _check_changes(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> tuple[Any, Any, Any]:
    """Return the state after `setup`, and the state after a step with its metrics."""
    before = check_pure("setup", trainer.setup, (state,))
    check_kept("setup", state, before)
    after, metrics = check_pure("step", trainer.step, (state, batch))
    check_kept("step", state, after)
    by_name = cast(Mapping[str, Any], metrics) if isinstance(metrics, Mapping) else {"": metrics}
    scalars, given = ([by_name[name] for name in by_name if (name == PRIORITIES) is which] for which in (False, True))
    are_scalars = isinstance(metrics, Mapping) and all(jnp.shape(leaf) == () for leaf in jax.tree.leaves(scalars))
    require("step", "its metrics are a dict of scalars", None if are_scalars else f"got {metrics!r:.200}")
    are_rows = all(jnp.ndim(leaf) == 1 and jnp.result_type(leaf) == jnp.float32 for leaf in jax.tree.leaves(given))
    require("step", "its priorities are float32 [B]", None if are_rows else f"got {given[0]!r:.200}")
    if isinstance(state, TrainerState):
        old, new = int(state.step), int(after.step)
        require("step", "the step counter grows by one", None if new == old + 1 else f"leaf .step: {old} became {new}")
        difference = bit_difference(frozen(state.rng_key), frozen(after.rng_key))
        require("step", "the key is not consumed", difference and f"leaf .rng_key: {difference}")
    check_kept("teardown", after, check_pure("teardown", trainer.teardown, (after,)))
    return before, after, metrics


def _check_publish(trainer: Trainer[Any, Any], state: Any, after: Any) -> None:
    published = check_pure("publish", trainer.publish, (state,))
    names = trainer.publishes or trainer.trains
    if names is not None:
        got: Any = list(cast(Mapping[str, Any], published)) if isinstance(published, Mapping) else type(published)
        problem = None if isinstance(got, list) and set(cast(list[str], got)) == set(names) else f"got {got}"
        require("publish", f"it returns a dict with the models {list(names)}", problem)
    require("publish", "its form stays the same", form_difference(published, trainer.publish(after)))


def _check_randomness(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> None:
    """Other keys and other steps are tried, four of each: by chance one of them may draw the same."""
    if not isinstance(state, TrainerState):
        return
    known = cast(TrainerState[Any], state)
    run = jax.jit(trainer.step) if trainer.compiled else trainer.step

    def is_changed_by(**fields: jax.Array) -> bool:
        after, metrics = run(known.replace(**fields), batch)
        same_counters = after.replace(step=known.step, rng_key=known.rng_key)
        return bit_difference(usual, frozen((same_counters, metrics))) is not None

    with promised("step", "it works under jax.jit" if trainer.compiled else "it can be called"):
        usual_after, usual_metrics = run(known, batch)
        usual = frozen((usual_after.replace(step=known.step), usual_metrics))
        needs_key = any(is_changed_by(rng_key=jax.random.fold_in(known.rng_key, salt)) for salt in range(4))
        needs_step = any(is_changed_by(step=known.step + jnp.int32(more)) for more in range(1, 5))
    if needs_key and not needs_step:
        remedy = "use jax.random.fold_in(state.rng_key, state.step)"
        raise ContractError("step", "another step draws other numbers", f"steps 0 to 4 give the same; {remedy}")
    if trainer.compiled and not needs_key and "random_bits" in str(jax.make_jaxpr(trainer.step)(known, batch)):
        raise ContractError("step", "what it draws comes from `state.rng_key`", "another key gives the same result")


def _check_resume(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> Any:
    """Return the state one step further."""
    went_on = trainer.step(state, batch)
    restored = own(state)  # equal, and no array of it is the same object
    repeated = trainer.step(restored, batch)
    difference = bit_difference(frozen(went_on), frozen(repeated))
    require("step", "a restored state goes on bit for bit", difference)
    return went_on[0]


def _check_scan(trainer: Trainer[Any, Any], state: Any, batch: PyTree, further: Any, tolerance: float) -> None:
    with promised("step", "it works under jax.lax.scan"):
        scanned, _ = jax.lax.scan(lambda state, _: trainer.step(state, batch), state, length=2)
    get_spread = spread_of(lambda state, batch: trainer.step(trainer.step(state, batch)[0], batch)[0], (state, batch))
    require("step", "lax.scan(f) == f, f", difference_beyond_rounding(further, scanned, tolerance, get_spread))


def _drawn(batch: PyTree, metrics: Mapping[str, Any]) -> PyTree:
    """Return the batch as it comes of buffers that take the priorities of the step, if it returns any."""
    if PRIORITIES not in metrics:
        return batch
    given = metrics[PRIORITIES]
    by_source = given if isinstance(given, Mapping) else {"": given}
    return Drawn(batch, jax.tree.map(lambda new: jnp.arange(len(new), dtype=jnp.int32), by_source))


def _check_donation(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> None:
    mine = own(state)
    published = trainer.publish(mine)
    before = frozen(published)
    with warnings.catch_warnings(), promised("step", "a chunk of it compiles and donates"):
        warnings.simplefilter("error")  # "Some donated buffers were not usable" is only a warning
        programs = compile_trainer(trainer, lambda data, position, rng_key: data, mine, batch, steps=2)
        programs.chunk(mine, batch, 0, jax.random.key(0))
    require("publish", "what was published outlives the next step", bit_difference(before, frozen(published)))
    donated = programs.plan.donated_part(mine)
    left = [name for name, leaf in donated.items() if leaf.size and not leaf.is_deleted()]
    require("step", "what is donated is written over", f"leaf {', '.join(left)} is still there" if left else None)
