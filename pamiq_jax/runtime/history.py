"""The last moments of a run as values: what was published, and where each trainer was."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, override

import jax
import numpy as np

from pamiq_jax import trees
from pamiq_jax.arguments import checked_integer
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.cards import moment_html
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.state import Cells, LearnerState, TrainerRun
from pamiq_jax.trainer.compile import own
from pamiq_jax.types import Params, PyTree


class Moment(NamedTuple):
    """A system right after a publication. It stays what it is, whatever the system does: nothing of it is donated.

    Attributes:
        seconds: on the system's clock.
        snapshot: what was published.
        trainers: where each trainer was in its lifecycle, with its whole state.
        models: newest parameters of the models that trainers hand on to each other.
    """

    seconds: float
    snapshot: Snapshot
    trainers: Mapping[str, TrainerRun]
    models: Mapping[str, Params]

    _repr_html_ = moment_html

    @override
    def __repr__(self) -> str:
        trainers = ", ".join(f"{name}: {run.phase.value}, {run.steps:,} steps" for name, run in self.trainers.items())
        return f"Moment({self.seconds:.3f} s, version {self.snapshot.version}, {trainers})"

    def distance(self, other: Moment) -> dict[str, float]:
        """Return how far each published model has moved between two moments: the norm of the difference.

        Args:
            other: an earlier or later one of the same system.

        Raises:
            InvalidValueError: it is no moment, or one of another system.

        Example:
            >>> first, second = (Moment(0.0, Snapshot.of({"m": np.float32(m)}), {}, {}) for m in (1.0, 4.0))
            >>> first.distance(second)
            {'m': 3.0}
        """
        checked_moment("Moment.distance(other)", other)
        if (names := sorted(other.snapshot.params)) != (known := sorted(self.snapshot.params)):
            raise InvalidValueError("Moment.distance(other)", names, f"a moment of a system with the models {known}")
        return {name: _norm(model, other.snapshot.params[name]) for name, model in self.snapshot.params.items()}


def checked_moment(argument: str, value: Any) -> Moment:
    """Return `value`, or raise InvalidValueError unless it is a moment.

    Args:
        argument: whose it is, for the error.
        value: what was given.

    Example:
        >>> checked_moment("start", Snapshot.of({}))
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.InvalidValueError: start is 'Snapshot', expected a Moment; a snapshot has no trainers' ...
    """
    if isinstance(value, Moment):
        return value
    remedy = "take one of `history=`, for example result.history[-1]"
    if isinstance(value, Snapshot):
        remedy = f"a snapshot has no trainers' states to go on from: {remedy}"
    raise InvalidValueError(argument, type(value).__name__, "a Moment", remedy)


def _norm(first: PyTree, second: PyTree) -> float:
    squares = jax.tree.map(lambda a, b: np.sum(np.abs(np.asarray(a, float) - np.asarray(b, float)) ** 2), first, second)
    return float(np.sqrt(sum(jax.tree.leaves(squares))))


class History:
    """The last moments, newest last. Written by the training thread; reading takes no lock.

    Args:
        limit: how many are kept; 0 keeps none.

    Raises:
        InvalidValueError: a negative number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = checked_integer("history", limit, least=0)
        self._moments: deque[Moment] = deque(maxlen=limit)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """What is kept, oldest first."""
        return tuple(self._moments)

    def add(self, seconds: float, cells: Cells, learner: LearnerState) -> None:
        """Keep the present moment.

        Args:
            seconds: on the system's clock.
            cells: for the snapshot.
            learner: the training side's state.
        """
        if self.limit:
            self._moments.append(Moment(seconds, cells.store.latest, learner.trainers, learner.models))


def begin_at(compiled: Compiled, cells: Cells, moment: Moment) -> LearnerState:
    """Return the training side's state as of a moment, with empty buffers, and publish what was published then.

    The moment's arrays are copied, so that it can be gone back to again.

    Args:
        compiled: the system, compiled anew.
        cells: its cells.
        moment: of a run of the same system.

    Raises:
        InvalidValueError: the system has other trainers, or their states another form.
    """
    learner = compiled.learner
    if learner.trainers.keys() != moment.trainers.keys():
        raise InvalidValueError(
            "start", sorted(moment.trainers), f"a moment of the trainers {sorted(learner.trainers)}"
        )
    runs: dict[str, TrainerRun] = {}
    for name, run in moment.trainers.items():
        fresh = learner.trainers[name]
        if (problem := trees.difference(fresh.state, run.state)) is not None:
            raise InvalidValueError(f"start: the state of trainer {name!r}", problem, "one of the same form")
        # Its cursors counted records of buffers that are empty now.
        runs[name] = fresh._replace(
            state=own(run.state),
            data_key=run.data_key,
            phase=run.phase if run.phase is TrainerPhase.FAILED else TrainerPhase.WAITING,
            runs=run.runs,
            finished=run.finished,
            steps=run.steps,
        )
    cells.store.restore(moment.snapshot)
    return learner._replace(trainers=runs, models={name: own(model) for name, model in moment.models.items()})
