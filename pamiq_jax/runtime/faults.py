"""What becomes of a trainer that fails: it ends and the owner is told, or it begins anew from its last good state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pamiq_jax.arguments import INT32_MAX, checked_integer, checked_number
from pamiq_jax.errors import InvalidValueError, UnknownNameError

type RepairFn = Callable[[Any], Any]
"""`(state) -> state` of the same form: makes of a trainer's last good state the one that it begins anew with."""

type Repair = RepairFn | Mapping[str, RepairFn]
"""One for all trainers, or some by the trainers' names."""

_MOST_SECONDS = 1e9
_BAD_UPDATES = 10


class FaultPolicy(NamedTuple):
    """What is done when a trainer fails. Get one from `fail_fast` or `keep_acting`.

    Attributes:
        raises: whether a failure is raised to whoever waits for the run.
        restarts: how often in a row a trainer begins anew; 0 never.
        backoff_seconds: how long it waits the first time, on the system's clock.
        backoff_factor: how many times as long it waits each further time in a row.
        max_backoff_seconds: the longest that it waits.
        repair: what makes of the last good state the one to begin anew with; None takes it as it is.
        bad_updates: so many updates in a row that its guard skipped are a failure; None: they never are.
    """

    raises: bool
    restarts: int = 0
    backoff_seconds: float = 0.0
    backoff_factor: float = 1.0
    max_backoff_seconds: float = 0.0
    repair: Repair | None = None
    bad_updates: int | None = _BAD_UPDATES

    def backoff(self, restart: int) -> float:
        """Return how many seconds a trainer waits before it begins anew.

        Args:
            restart: the number of restarts in a row, this one included.

        Example:
            >>> [keep_acting(backoff_seconds=1.0, max_backoff_seconds=5.0).backoff(number) for number in (1, 2, 3, 4)]
            [1.0, 2.0, 4.0, 5.0]
        """
        try:
            seconds = self.backoff_seconds * self.backoff_factor ** (restart - 1)
        except OverflowError:
            return self.max_backoff_seconds
        return min(seconds, self.max_backoff_seconds)

    def repair_of(self, trainer: str) -> RepairFn | None:
        """Return what repairs a trainer's state; None if nothing does."""
        return self.repair.get(trainer) if isinstance(self.repair, Mapping) else self.repair

    def describe(self) -> str:
        """Return the policy as a line of code, with the names of what is repaired in place of functions.

        Example:
            >>> fail_fast().describe()
            'fail_fast(bad_updates=10)'
        """
        if self.raises:
            return f"fail_fast(bad_updates={self.bad_updates})"
        names = ("restarts", "backoff_seconds", "backoff_factor", "max_backoff_seconds", "bad_updates")
        values = [f"{name}={getattr(self, name)}" for name in names]
        if self.repair is not None:
            repaired = sorted(self.repair) if isinstance(self.repair, Mapping) else "all"
            values.append(f"repair of {repaired}")
        return f"keep_acting({', '.join(values)})"

    def check(self, trainers: Iterable[str]) -> None:
        """Raise if a repair is for a trainer that does not exist.

        Args:
            trainers: the names of a system's trainers.

        Raises:
            UnknownNameError: naming those that do.
        """
        known = tuple(trainers)
        for name in self.repair if isinstance(self.repair, Mapping) else ():
            if name not in known:
                raise UnknownNameError("trainer", name, known, "keep_acting(repair)")


def fail_fast(*, bad_updates: int | None = _BAD_UPDATES) -> FaultPolicy:
    """Return the policy for experiments: a trainer that fails ends, and `run.wait()` raises why.

    The agent and the other trainers go on; in lockstep nothing does.

    Args:
        bad_updates: how many updates in a row that a trainer's `guard` has skipped are a failure; looked at after each
            chunk. None: they never are.

    Raises:
        InvalidValueError: less than one update.

    Example:
        >>> fail_fast().restarts, fail_fast(bad_updates=100).bad_updates
        (0, 100)
    """
    return FaultPolicy(raises=True, bad_updates=_checked_updates("fail_fast", bad_updates))


def keep_acting(
    restarts: int = 5,
    backoff_seconds: float = 1.0,
    backoff_factor: float = 2.0,
    max_backoff_seconds: float = 60.0,
    repair: Repair | None = None,
    *,
    bad_updates: int | None = _BAD_UPDATES,
) -> FaultPolicy:
    """Return the policy for a robot: a trainer that fails begins anew from its last good state, and nothing is raised.

    The last good state is that of the end of the last good run: one that came to its end, whose parameters were finite,
    and whose last update was not one that a guard skipped. Until then it is the first state. Nothing is copied for it,
    but no part of a trainer's state is donated any more, so that old and new are there together during a chunk.

    A trainer that fails once more after `restarts` in a row is quarantined: it ends, and the agent and the other
    trainers go on. Each failure is logged with its cause and told as a transition; `run.status` has the trainer's
    reason, its last error, and how often it was rolled back.

    Args:
        restarts: how often in a row a trainer begins anew; a good run counts from 0 again. 0: it ends at once.
        backoff_seconds: how long it waits the first time, on the system's clock.
        backoff_factor: how many times as long it waits each further time in a row, at least 1.
        max_backoff_seconds: the longest that it waits.
        repair: `(state) -> state`, or some by the trainers' names, for example to lower a learning rate. Called on the
            training thread at each failure; what it returns is the last good state from then on, so that halving a
            number twice makes a quarter of it. It should compile nothing: use numpy, or `set_hyperparameters`.
        bad_updates: as in `fail_fast`.

    Raises:
        InvalidValueError: a number out of range, or a `repair` that is neither a function nor functions by name.

    Example:
        A trainer whose learning rate is too high, and is halved until it is not:

        >>> import jax, jax.numpy as jnp, optax, pamiq_jax as pj
        >>> from pamiq_jax.trainer import guard
        >>> def loss_fn(params, batch, rng_key):  # not a number above 3
        ...     return jnp.sqrt(3.0 - params["m"]) + jnp.mean(batch), {}
        >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=20.0)
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(10, example=0.0)},
        ...     trainers={
        ...         "t": pj.Schedule(guard(pj.gradient_trainer(loss_fn, optimizer)), data="x", batch_size=1, steps=4),
        ...     },
        ... )
        >>> def halve(state):
        ...     return pj.set_hyperparameters(state, learning_rate=pj.get_hyperparameters(state)["learning_rate"] / 2)
        >>> policy = pj.keep_acting(backoff_seconds=0.01, repair=halve, bad_updates=3)
        >>> with pj.launch(system, faults=policy) as run:
        ...     kept = run.collect("x", 0.0)
        ...     version = run.wait_for_version(1, timeout=60).version
        ...     rate = run.trainers["t"].hyperparameters()["learning_rate"]
        ...     rollbacks = run.status.trainers["t"].rollbacks
        >>> rate < 20, rollbacks > 0
        (True, True)
    """
    checked_integer("keep_acting(restarts)", restarts, least=0)
    checked_number("keep_acting(backoff_seconds)", backoff_seconds, 0, _MOST_SECONDS)
    checked_number("keep_acting(backoff_factor)", backoff_factor, 1, _MOST_SECONDS)
    checked_number("keep_acting(max_backoff_seconds)", max_backoff_seconds, backoff_seconds, _MOST_SECONDS)
    functions = tuple(repair.values()) if isinstance(repair, Mapping) else () if repair is None else (repair,)
    if not all(map(callable, functions)):
        remedy = "halve the learning rate with get_hyperparameters and set_hyperparameters, or leave it out"
        raise InvalidValueError("keep_acting(repair)", repair, "(state) -> state, or such functions by name", remedy)
    bad_updates = _checked_updates("keep_acting", bad_updates)
    return FaultPolicy(
        False, restarts, backoff_seconds, backoff_factor, max_backoff_seconds, repair, bad_updates=bad_updates
    )


def _checked_updates(factory: str, bad_updates: int | None) -> int | None:
    if bad_updates is None:
        return None
    return checked_integer(f"{factory}(bad_updates)", bad_updates, least=1, most=INT32_MAX)


FAIL_FAST = fail_fast()
