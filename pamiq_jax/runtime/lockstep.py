"""A system without threads: one tick after the other, on a virtual clock, the same every time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pamiq_jax.arguments import checked_integer
from pamiq_jax.checkpoint import Retention, StateStore, latest_n
from pamiq_jax.conditions import Condition, Progress
from pamiq_jax.errors import InvalidValueError, WorkerError
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.clock import VirtualClock
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
from pamiq_jax.runtime.history import History, Moment, begin_at, checked_moment
from pamiq_jax.runtime.infer import infer_tick
from pamiq_jax.runtime.inferring import begin_interaction
from pamiq_jax.runtime.origin import Origin, begin, check_policies, check_revive, find_origin
from pamiq_jax.runtime.programs import Compiled
from pamiq_jax.runtime.renaming import Renames
from pamiq_jax.runtime.rollback import log_failure
from pamiq_jax.runtime.saved import Cut, collected
from pamiq_jax.runtime.saver import write_cut
from pamiq_jax.runtime.saving import system_progress
from pamiq_jax.runtime.signal_condition import parted
from pamiq_jax.runtime.state import ActorState, InferReport, LearnerState, only_actor
from pamiq_jax.runtime.status import BufferStatus, buffer_statuses
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.train import train_tick
from pamiq_jax.runtime.worlds import save_world
from pamiq_jax.types import Metrics

FREE_INTERVAL_SECONDS = 0.001
"""From one tick to the next of an interaction without an interval."""


class LockstepResult(NamedTuple):
    """How a lockstep run ended. All of it is values: keep it, compare it, look into it.

    Attributes:
        learner: the training side's last state.
        actors: the inference side's last states, by the names of the interactions.
        snapshot: the newest snapshot.
        metrics: `(trainer, metrics)` of each chunk, in order.
        buffers: what has been seen, dropped, inserted and sampled, by buffer name.
        history: the last moments after a publication, oldest first; as many as were asked for.
    """

    learner: LearnerState
    actors: dict[str, ActorState]
    snapshot: Snapshot
    metrics: tuple[tuple[str, Metrics], ...]
    buffers: dict[str, BufferStatus]
    history: tuple[Moment, ...] = ()

    @property
    def actor(self) -> ActorState:
        """The last state of the only interaction."""
        return only_actor(self.actors)


def run_lockstep(
    system: System,
    interactions: int,
    *,
    seed: int = 0,
    start: Moment | None = None,
    history: int = 0,
    train_every: int = 1,
    train_ticks: int = 1,
    check_donation: bool = False,
    faults: FaultPolicy = FAIL_FAST,
    on_interaction: Callable[[InferReport], Any] | None = None,
    directory: str | os.PathLike[str] | None = None,
    save: Condition | None = None,
    keep: Retention | None = None,
    resume: bool | int | str | os.PathLike[str] = False,
    partial: bool = False,
    rename: Renames | None = None,
    revive: bool | Collection[str] = False,
) -> LockstepResult:
    """Return what a system becomes after a number of interactions, each followed by training ticks.

    With an environment that is deterministic for its seed, two calls give the same result bit for bit. Of several
    interactions the one that is due first on the virtual clock ticks next; one without an interval is due every
    millisecond.

    Args:
        system: its environments are reset with `seed` first.
        interactions: inference ticks, of all interactions together. In a system without one nobody acts, and each
            moves the clock by a millisecond.
        seed: of all randomness.
        start: a moment of an earlier run to go on from, with empty buffers and a world that begins anew; None begins
            with the system's parameters.
        history: how many moments after a publication the result keeps. Nothing of a trainer's state is donated then.
        train_every: interactions between training ticks; `interactions` is a multiple of it.
        train_ticks: training ticks, that is chunks at the most, after each `train_every` interactions.
        check_donation: have each chunk prove that it deletes no published array.
        faults: what becomes of a trainer that fails, as in `launch`.
        on_interaction: called after each inference tick with its report.
        directory: where the state is saved in the end; None saves nothing.
        save: when states are saved besides, as in `launch`.
        keep: which states stay, as in `launch`.
        resume: where to begin from, as in `launch`. With an environment and an agent that can save their state, the
            run goes on bit for bit as if it had never stopped.
        partial: as in `launch`.
        rename: as in `launch`.
        revive: as in `launch`.

    Raises:
        InvalidValueError: a number is out of range, or `start` is no moment.
        WorkerError: a trainer failed, under `fail_fast`; its `__cause__` says why.
        DirectoryHasStatesError, StateMismatchError, CorruptStateError: as in `launch`.

    Example:
        >>> import numpy as np, optax, jax.numpy as jnp, pamiq_jax as pj
        >>> class Counting:
        ...     spec = pj.EnvironmentSpec(np.float32(0), np.float32(0), {})
        ...     def reset(self, seed): self.count = 0
        ...     def observe(self): return np.float32(self.count)
        ...     def affect(self, action): self.count += 1; return {}
        ...     def close(self): pass
        >>> def loss_fn(params, batch, rng_key):
        ...     return jnp.mean((params["mean"] - batch["observation"]) ** 2), {}
        >>> system = pj.System(
        ...     models={"mean": pj.Model(jnp.zeros(()))},
        ...     buffers={"seen": pj.ring_buffer(100)},
        ...     trainers={"fit": pj.Schedule(pj.gradient_trainer(loss_fn, optax.sgd(0.1)), data="seen", batch_size=8)},
        ...     interaction=pj.Interaction(
        ...         pj.Agent(lambda params, carry, observation, key: (carry, params["mean"], {})), Counting()
        ...     ),
        ... )
        >>> first, second = run_lockstep(system, 10), run_lockstep(system, 10)
        >>> first.snapshot.version, bool(first.snapshot.params["mean"] == second.snapshot.params["mean"])
        (10, True)
    """
    for name, value in (("interactions", interactions), ("train_ticks", train_ticks)):
        checked_integer(f"run_lockstep({name})", value, least=0)
    rounds = rounds_of("run_lockstep", interactions, train_every)
    place = None if directory is None else Path(directory).absolute()
    if place is None and (save is not None or keep is not None):
        raise InvalidValueError("run_lockstep(directory)", None, "a directory, for states to be saved in")
    check_policies("run_lockstep", system, save, keep, faults)
    check_revive("run_lockstep", system, revive)
    if parted("run_lockstep", save).signals:
        raise InvalidValueError("run_lockstep(save)", save, "a policy without signals", "no signal comes in lockstep")
    origin = find_origin(place, resume, partial=partial, rename=rename, revive=revive)
    if start is not None:
        checked_moment("run_lockstep(start)", start)
    if start is not None and origin is not None:
        raise InvalidValueError("run_lockstep(start)", start, "None, since `resume` says where to begin")
    kept = History(history)
    compiled = compile_system(system, seed=seed, check_donation=check_donation, donates=not kept.limit, faults=faults)
    run = _Lockstep(compiled, origin, seed, start, kept)
    saves = None if place is None else _Saves(StateStore(place), keep, save, run)
    for _ in range(rounds):
        for _ in range(train_every):
            inferred = run.infer()
            if on_interaction is not None and inferred is not None:
                on_interaction(inferred)
        for _ in range(train_ticks):
            run.train()
        if saves is not None:
            saves.save_if_due()
    if saves is not None:
        saves.save()
    buffers = buffer_statuses(system, run.cells, run.learner)
    return LockstepResult(run.learner, run.actors, run.cells.store.latest, tuple(run.rows), buffers, kept.moments)


def rounds_of(where: str, interactions: int, train_every: int) -> int:
    """Return how many rounds of `train_every` interactions there are.

    Args:
        where: whose arguments they are.
        interactions: in all.
        train_every: in a round.

    Raises:
        InvalidValueError: the last round would not be whole.

    Example:
        >>> rounds_of("run_lockstep", 100, 4)
        25
    """
    checked_integer(f"{where}(train_every)", train_every, least=1)
    if interactions % train_every:
        expected, whole = f"a multiple of train_every={train_every}", -(-interactions // train_every) * train_every
        raise InvalidValueError(f"{where}(interactions)", interactions, expected, f"for example {whole}")
    return interactions // train_every


class _Lockstep:
    """The values of a lockstep run, from tick to tick."""

    def __init__(
        self, compiled: Compiled, origin: Origin | None, seed: int, start: Moment | None, history: History
    ) -> None:
        self.clock = VirtualClock()
        self.kept = history
        begun = begin(compiled, origin, self.clock)
        ready = begun.ready
        self.cells, self.programs, self.learner = ready.cells, ready.compiled.programs, ready.compiled.learner
        if start is not None:
            self.learner = begin_at(compiled, self.cells, start)
            self.clock.set(start.seconds)
        self.due = dict.fromkeys(compiled.actors, self.clock.now()) if begun.cut is None else dict(begun.cut.due)
        self.actors = {
            name: begin_interaction(self.programs.system, name, seed, ready.compiled, ready.world(name))
            for name in self.programs.system.interactions
        }
        self.rows: list[tuple[str, Metrics]] = []
        self.metrics: dict[str, Metrics] = {}

    def infer(self) -> InferReport | None:
        if not self.due:
            self.clock.advance(FREE_INTERVAL_SECONDS)
            return None
        name = min(self.due, key=lambda name: self.due[name])
        self.clock.advance(self.due[name] - self.clock.now())
        interval = self.programs.system.interactions[name].interval_seconds
        self.due[name] += interval or FREE_INTERVAL_SECONDS
        self.actors[name], report = infer_tick(self.programs, self.actors[name], self.cells, self.clock, name)
        return report

    def train(self) -> None:
        self.learner, report = train_tick(self.programs, self.learner, self.cells, self.clock)
        if report.trainer is None and report.error is not None:
            raise report.error
        if report.trainer is not None and report.error is not None:
            if self.programs.faults.raises:
                raise WorkerError(f"trainer {report.trainer}", report.error) from report.error
            log_failure(report.trainer, self.learner.trainers[report.trainer], report.error)
        elif report.trainer is not None:
            self.rows.append((report.trainer, report.metrics))
            self.metrics[report.trainer] = report.metrics
            if report.version is not None:
                self.kept.add(self.clock.now(), self.cells, self.learner)

    def cut(self) -> Cut:
        interactions = self.programs.system.interactions
        return Cut(
            self.learner,
            self.actors,
            self.cells.store.latest,
            collected(self.cells.collectors),
            {name: save_world(interaction) for name, interaction in interactions.items()},
            self.due,
            self.clock.now(),
        )

    @property
    def progress(self) -> Progress:
        return system_progress(self.cells, self.learner, self.clock)


class _Saves:
    """Saves a lockstep run between two interactions; the run stands still meanwhile."""

    def __init__(self, store: StateStore, keep: Retention | None, policy: Condition | None, run: _Lockstep) -> None:
        self._store, self._keep, self._policy, self._run = store, keep, policy, run
        self._last = run.progress

    def save_if_due(self) -> None:
        now = self._run.progress
        if self._policy is not None and self._policy(now, self._last).go:
            self._last = self._policy.settle(now, self._last)
            self.save()

    def save(self) -> None:
        save_cut(self._store, self._run.cut(), self._run.metrics, self._keep)


def save_cut(store: StateStore, cut: Cut, metrics: Mapping[str, Metrics], keep: Retention | None) -> None:
    """Save a run that stands still, and remove the states that need not stay.

    Args:
        store: where to.
        cut: of the run.
        metrics: the newest of each trainer.
        keep: which states stay; None keeps the newest three.
    """
    write_cut(store, cut, metrics, created_at=time.time())
    store.prune(latest_n(3) if keep is None else keep)
