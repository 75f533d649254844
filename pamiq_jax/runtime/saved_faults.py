"""How trainers have failed so far, as a part of a saved state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pamiq_jax.checkpoint import match, named_leaves
from pamiq_jax.conditions import Progress
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.state import Faults, Good, TrainerRun


def stored_faults(runs: Mapping[str, TrainerRun]) -> dict[str, dict[str, Any]]:
    """Return how trainers have failed as a value that can be stored. Nothing is copied.

    One that has ended and is not quarantined begins anew once it is restored, so that only what it went back to is kept
    of it.

    Args:
        runs: by the names of the trainers.
    """
    stored: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        is_over = run.phase is TrainerPhase.FAILED and not run.faults.is_quarantined
        faults = Faults(rollbacks=run.faults.rollbacks) if is_over else run.faults
        stored[name] = {**faults._asdict(), "retry_at": float(faults.retry_at), "good": _stored_good(name, run)}
    return stored


def _stored_good(name: str, run: TrainerRun) -> dict[str, Any] | None:
    """Return the leaves of what a trainer goes back to, by the names that they have in a trainer; {} if it is there."""
    good = run.faults.good
    if good is None:
        return None
    if good.state is run.state and (good.last, good.after) == (run.last, run.after):
        return {}
    return named_leaves(_document(name, good))


def still_quarantined(run: TrainerRun, revive: bool | Collection[str], name: str) -> TrainerRun:
    """Return a restored trainer that has ended if it had before, unless it is to begin anew.

    Args:
        run: restored, with its faults.
        revive: True for all, or the names of those that begin anew.
        name: the trainer's.
    """
    if not run.faults.is_quarantined:
        return run
    if revive is True or (revive is not False and name in revive):
        return run._replace(faults=Faults(rollbacks=run.faults.rollbacks), reason="restored; it was quarantined")
    return run._replace(phase=TrainerPhase.FAILED, chunk=0, reason=f"quarantined before the resume: {run.faults.error}")


def _document(name: str, good: Good) -> dict[str, Any]:
    return {"trainers": {name: {"state": good.state, "last": dict(good.last), "after": dict(good.after)}}}


def restored_faults(
    name: str, run: TrainerRun, stored: Mapping[str, Any] | None, renamed: Callable[[str], str]
) -> Faults:
    """Return how a restored trainer has failed so far. Without a good state that fits, the restored one is to be it.

    Args:
        name: the trainer's, now.
        run: restored, but for this.
        stored: what `stored_faults` returned for it; None if nothing is stored.
        renamed: gives the name that a stored leaf has now.
    """
    if stored is None:
        return Faults()
    good = None if stored["good"] is None else _restored_good(name, run, stored["good"], renamed)
    return Faults(**stored)._replace(good=good)


def _restored_good(name: str, run: TrainerRun, stored: Mapping[str, Any], renamed: Callable[[str], str]) -> Good:
    present = Good(run.state, run.last, run.after)
    if not stored:
        return present
    leaves = {renamed(leaf): value for leaf, value in stored.items()}
    document, report = match(_document(name, present), leaves, partial=True)
    if report.differences:
        return present
    fields = document["trainers"][name]
    last = {key: Progress(*progress) for key, progress in fields["last"].items()}
    return Good(fields["state"], last, fields["after"])
