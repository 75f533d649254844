"""How a trainer that has failed is taken back to its last good state, or out of the system."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from pamiq_jax import trainer as trainers
from pamiq_jax import trees
from pamiq_jax.conditions import Decision, Wake
from pamiq_jax.errors import DonationError, StepStructureError, TooManyBadUpdatesError
from pamiq_jax.lifecycle import TrainerEvent, TrainerPhase
from pamiq_jax.runtime.failures import describe_error, worker_error
from pamiq_jax.runtime.faults import FaultPolicy
from pamiq_jax.runtime.state import Faults, Good, TrainerRun

_LOGGER = logging.getLogger("pamiq_jax")


class Failed(NamedTuple):
    """A trainer that has failed.

    Attributes:
        run: what it goes on with, if it does; the phase is still the old one.
        event: what happens to it: `ROLL_BACK`, or `FAIL`.
        error: why.
    """

    run: TrainerRun
    event: TrainerEvent
    error: Exception


def keep_good(policy: FaultPolicy, run: TrainerRun) -> TrainerRun:
    """Return a trainer with a state to go back to, if it is ever to: at first the one that it begins with.

    Args:
        policy: of the system.
        run: between two chunks.
    """
    if bool(policy.restarts) == (run.faults.good is not None):
        return run
    good = Good(run.state, run.last, run.after) if policy.restarts else None
    return run._replace(faults=run.faults._replace(good=good))


def end_of_run(policy: FaultPolicy, run: TrainerRun, skips: int) -> TrainerRun:
    """Return a trainer whose run has ended: if it was good, this is what it goes back to from now on.

    Args:
        policy: of the system.
        run: torn down.
        skips: how many updates in a row its guards have skipped until the end.
    """
    if not policy.restarts or skips:
        return run
    good = Good(run.state, run.last, run.after)
    return run._replace(faults=Faults(rollbacks=run.faults.rollbacks, good=good))


def check_updates(policy: FaultPolicy, name: str, skips: int) -> int:
    """Return how many updates in a row a trainer's guards have skipped until now, if the policy has patience for it.

    Args:
        policy: of the system.
        name: the trainer's.
        skips: how many.

    Raises:
        TooManyBadUpdatesError: it has not.
    """
    if policy.bad_updates is not None and skips >= policy.bad_updates:
        remedy = "lower its learning rate, look at the data, or have it begin anew: launch(faults=pj.keep_acting())"
        if policy.restarts:
            remedy = "look at the data, or give keep_acting a `repair` that lowers its learning rate"
        raise TooManyBadUpdatesError(name, skips, policy.bad_updates, remedy)
    return skips


def after_failure(policy: FaultPolicy, name: str, run: TrainerRun, error: Exception, now: float) -> Failed:
    """Return what becomes of a trainer that has failed within a run.

    Args:
        policy: of the system.
        name: the trainer's.
        run: as it was when it failed.
        error: why it failed.
        now: seconds on the clock.
    """
    faults, good = run.faults, run.faults.good
    if good is not None:
        run = run._replace(state=good.state, last=good.last, after=good.after, chunk=0)
        if faults.restarts < policy.restarts:
            try:
                good = good._replace(state=_repaired(policy, name, good.state))
            except Exception as problem:  # `repair` is the user's code
                error = problem
            else:
                return Failed(
                    _rolled_back(policy, run, good, describe_error(error), now), TrainerEvent.ROLL_BACK, error
                )
    kind = "failed"
    if not policy.raises:
        kind = f"quarantined after {_counted(faults.restarts, 'restart')}"
    reason = f"{kind}: {describe_error(error)}"
    faults = faults._replace(error=describe_error(error), is_quarantined=not policy.raises)
    run = run._replace(faults=faults, reason=reason, prefetched=None)
    return Failed(run, TrainerEvent.FAIL, error)


def _rolled_back(policy: FaultPolicy, run: TrainerRun, good: Good, error: str, now: float) -> TrainerRun:
    restarts = run.faults.restarts + 1
    faults = Faults(restarts, run.faults.rollbacks + 1, now + policy.backoff(restarts), error, good)
    return run._replace(state=good.state, prefetched=None, faults=faults, reason=_reason(faults, now))


def _repaired(policy: FaultPolicy, name: str, state: Any) -> Any:
    """Return the state to begin anew with, in the form for which everything is compiled."""
    leaves = zip(trees.leaf_names(state), jax.tree.leaves(state), strict=True)
    if deleted := [leaf for leaf, array in leaves if isinstance(array, jax.Array) and array.is_deleted()]:
        raise DonationError(
            f"the last good state of trainer {name!r} has been deleted by its own step: {', '.join(deleted)}; "
            "take the state out of the step's donate_argnums"
        )
    repair = policy.repair_of(name)
    if repair is None:
        return state
    try:
        repaired = repair(state)
        if (problem := trees.difference(state, repaired)) is not None:
            remedy = "return every leaf with the shape and dtype it came with"
            raise StepStructureError(f"repair returned a state of another form: {problem}; {remedy}")
        return jax.tree.map(_like, state, repaired)
    except Exception as problem:
        raise worker_error(f"repair of trainer {name!r}", problem) from problem


def _like(old: Any, new: Any) -> Any:
    """Return a leaf with the old one's placement, and strongly typed: a compiled chunk takes no other."""
    if new is old or not isinstance(old, jax.Array):
        return new
    # By way of numpy: a jax operation here would be compiled while the agent acts.
    value = new if isinstance(new, jax.Array) and not new.weak_type else np.asarray(new, old.dtype)
    return jax.device_put(value, old.sharding if old.committed else None)


def backing_off(run: TrainerRun, now: float) -> Decision | None:
    """Return that a trainer must wait before it begins anew, how long and why; None if it need not.

    Args:
        run: a trainer that waits.
        now: seconds on the clock.
    """
    remaining = run.faults.retry_at - now
    if remaining <= 0:
        return None
    return Decision(False, _reason(run.faults, now), Wake(milliseconds=math.ceil(remaining * 1000)))


def _reason(faults: Faults, now: float) -> str:
    failures = _counted(faults.restarts, "failure") + (" in a row" if faults.restarts > 1 else "")
    return f"restarts in {max(0.0, faults.retry_at - now):.1f} s after {failures}: {faults.error}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def log_failure(name: str, run: TrainerRun, error: Exception) -> None:
    """Log that a trainer has failed while nobody is told by an exception.

    Args:
        name: the trainer's.
        run: after the failure.
        error: why.
    """
    if run.phase is TrainerPhase.FAILED:
        _LOGGER.error("trainer %r is %s; the agent and the other trainers go on", name, run.reason, exc_info=error)
    else:
        _LOGGER.warning("trainer %r has failed and %s", name, run.reason, exc_info=error)


def with_changed_good(run: TrainerRun, state: Any, values: Mapping[str, Any]) -> TrainerRun:
    """Return a trainer with a state whose hyper-parameters were changed; it goes back to one that has them too.

    Args:
        run: before the change.
        state: after it.
        values: what was changed, by the names that `set_hyperparameters` takes.
    """
    good = run.faults.good
    if good is not None:
        changed = state if good.state is run.state else trainers.set_hyperparameters(good.state, **values)
        run = run._replace(faults=run.faults._replace(good=good._replace(state=changed)))
    return run._replace(state=state)
