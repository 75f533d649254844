"""A trainer of a launched system, to look at and to adjust while it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, override

from pamiq_jax import trainer as trainers
from pamiq_jax.errors import InvalidValueError, UnknownNameError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.outside import check_outside
from pamiq_jax.runtime.workers import TRAINING, Workers


class TrainerHandle:
    """One trainer of a `Run`. Get it as `run.trainers[name]`.

    What is asked for is done by the training thread between two chunks, also while the system is paused.

    Args:
        name: the trainer's name.
        workers: of the run.
    """

    def __init__(self, name: str, workers: Workers) -> None:
        self.name = name
        self._workers = workers

    @override
    def __repr__(self) -> str:
        learner = self._workers.learner
        if learner is None:
            return f"TrainerHandle({self.name!r}, not compiled yet)"
        run = learner.trainers[self.name]
        return f"TrainerHandle({self.name!r}, {run.phase.value}, {run.steps} steps)"

    def _repr_html_(self) -> str:
        from pamiq_jax.runtime.view import trainer_html  # only a notebook wants it

        return trainer_html(self.name, self._workers)

    def hyperparameters(self, timeout: float = 60.0) -> dict[str, Any]:
        """Return the hyper-parameters that can be changed, with their present values.

        Args:
            timeout: seconds.

        Raises:
            InvalidValueError: the run has ended.
            TimeoutError: the training thread did not come to it.
        """
        return self._call("hyperparameters", lambda: trainers.get_hyperparameters(self._state()), timeout)

    def set(self, *, timeout: float = 60.0, **values: Any) -> None:
        """Change hyper-parameters from the next chunk on. Nothing is compiled; the change goes to the metrics.

        Args:
            timeout: seconds.
            values: by name, for example `learning_rate=1e-4`.

        Raises:
            InvalidValueError: it is fixed in the optimizer, or does not exist; the message says what can be changed.
                Or the value is no number that is finite in the form it is stored in; nothing was changed. Or the run
                has ended.
            TimeoutError: the training thread did not come to it.
        """

        def change() -> None:
            state = trainers.set_hyperparameters(self._state(), **values)
            present = trainers.get_hyperparameters(state)
            self._workers.change_state(self.name, state, {name: present[name] for name in values})

        self._call("set", change, timeout)

    def _call[R](self, what: str, function: Callable[[], R], timeout: float) -> R:
        control = self._workers.control
        check_outside(f"run.trainers[{self.name!r}].{what}", control.heartbeats)
        return control.call(TRAINING, function, timeout)

    def _state(self) -> Any:
        learner = self._workers.learner
        assert learner is not None, "calls are answered once the system is ready"
        run = learner.trainers[self.name]
        if run.phase is TrainerPhase.FAILED:  # what a chunk was to write over may be gone
            expected = "a trainer that has not failed"
            raise InvalidValueError(f"run.trainers[{self.name!r}]", run.reason, expected, "resume with revive=True")
        return run.state


class TrainerHandles(Mapping[str, TrainerHandle]):
    """The trainers of a launched system by name: `run.trainers`.

    Args:
        workers: of the run.
        names: of its trainers.
    """

    def __init__(self, workers: Workers, names: Iterable[str]) -> None:
        self._handles = {name: TrainerHandle(name, workers) for name in names}

    @override
    def __getitem__(self, name: str) -> TrainerHandle:
        """Return a trainer's handle.

        Raises:
            UnknownNameError: there is no such trainer.
        """
        if name not in self._handles:
            raise UnknownNameError("trainer", name, self._handles, "run.trainers")
        return self._handles[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    @override
    def __len__(self) -> int:
        return len(self._handles)

    @override
    def __repr__(self) -> str:
        return repr(self._handles)
