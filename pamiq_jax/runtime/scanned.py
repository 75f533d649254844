"""A system as one program: agent, environment, buffers and trainers in one `lax.scan`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.arguments import checked_integer
from pamiq_jax.checkpoint import Retention, StateStore
from pamiq_jax.data import CollectorCounts
from pamiq_jax.errors import InvalidValueError, NonFiniteError, TooManyBadUpdatesError, WorkerError
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.publishing import Snapshot, check_finite
from pamiq_jax.runtime.agent import Agent
from pamiq_jax.runtime.clock import VirtualClock
from pamiq_jax.runtime.compile import compile_system, handed_on, publish_function, published_params
from pamiq_jax.runtime.environment import PureEnvironment
from pamiq_jax.runtime.faults import FAIL_FAST
from pamiq_jax.runtime.inferring import begin_interaction
from pamiq_jax.runtime.lockstep import FREE_INTERVAL_SECONDS, rounds_of, save_cut
from pamiq_jax.runtime.origin import Begun, begin, check_policies, find_origin
from pamiq_jax.runtime.renaming import Renames
from pamiq_jax.runtime.rollback import check_updates
from pamiq_jax.runtime.saved import Cut, collected
from pamiq_jax.runtime.scan_state import (
    TOO_MANY_SKIPS,
    Moment,
    Scanned,
    ScannedActor,
    ScannedBuffer,
    ScannedLearner,
    actor_of,
    first_scanned,
    learner_of,
    snapshot_of,
)
from pamiq_jax.runtime.scan_tick import ScanPrograms, TrainTick, scanned_drain, scanned_infer
from pamiq_jax.runtime.scannable import check_scannable
from pamiq_jax.runtime.scheduling import decide, progress, waits_for_others
from pamiq_jax.runtime.state import ActorState, Cells, LearnerState, only_actor
from pamiq_jax.runtime.status import BufferStatus, buffer_statuses
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.train import drain
from pamiq_jax.runtime.worlds import save_world
from pamiq_jax.trainer.compile import own
from pamiq_jax.trainer.guarding import skip_reader
from pamiq_jax.types import Metrics


class ScannedResult(NamedTuple):
    """How a scanned run ended: what `LockstepResult` has, and the metrics as arrays.

    Attributes:
        learner: the training side's last state.
        actors: the inference side's last states, by the names of the interactions.
        snapshot: the newest snapshot.
        history: the metrics of each trainer's chunks, in order: numpy arrays `[chunks]`.
        chosen: which trainer did each chunk, in order.
        buffers: what has been seen, inserted and sampled, by buffer name.
        seconds: how long the program ran, without its compilation.
    """

    learner: LearnerState
    actors: dict[str, ActorState]
    snapshot: Snapshot
    history: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]
    chosen: tuple[str, ...]
    buffers: dict[str, BufferStatus]
    seconds: float

    @property
    def actor(self) -> ActorState:
        """The last state of the only interaction."""
        return only_actor(self.actors)

    @property
    def metrics(self) -> tuple[tuple[str, Metrics], ...]:
        """`(trainer, metrics)` of each chunk, in order, as `run_lockstep` returns them; made anew at each call."""
        done = dict.fromkeys(self.history, 0)
        rows: list[tuple[str, Metrics]] = []
        for name in self.chosen:
            number = done[name]
            rows.append((name, jax.tree.map(lambda values, number=number: values[number], dict(self.history[name]))))
            done[name] += 1
        return tuple(rows)


def run_scanned(
    system: System,
    interactions: int,
    *,
    seed: int = 0,
    train_every: int = 1,
    train_ticks: int = 1,
    directory: str | os.PathLike[str] | None = None,
    keep: Retention | None = None,
    resume: bool | int | str | os.PathLike[str] = False,
    partial: bool = False,
    rename: Renames | None = None,
) -> ScannedResult:
    """Return what `run_lockstep` returns, computed by one program: no Python between two ticks.

    The ticks are those of `run_lockstep`, with the same keys, the same batches and the same virtual clock; results
    differ at most by how XLA rounds when it fuses operations. Conditions are evaluated as arithmetic. What cannot be
    traced is refused before anything is compiled. While the program runs it cannot be interrupted and reports nothing:
    for a look in between run it in parts, with a `directory` and `resume=True`.

    Args:
        system: one with one interaction: a pure `Agent` in an environment of JAX functions, see
            `pamiq_jax.envs.JaxEnvironment`; buffers on the device, compiled trainers.
        interactions: inference ticks; with `num_envs` each is a step of all environments.
        seed: of all randomness.
        train_every: interactions between training ticks; `interactions` is a multiple of it.
        train_ticks: training ticks, that is chunks at the most, after each `train_every` interactions.
        directory: where the state is saved in the end; None saves nothing. `launch` and `run_lockstep` can go on
            from it.
        keep: which states stay, as in `launch`.
        resume: where to begin from, as in `launch`.
        partial: as in `launch`.
        rename: as in `launch`.

    Raises:
        InvalidValueError: the system cannot be traced: what, and what to do about it; or a number is out of range.
        WorkerError: a trainer's parameters were not finite at the end of a run, or its guard has skipped too many
            updates in a row; its `__cause__` says which. It trained no more from there on.
        DirectoryHasStatesError, StateMismatchError, CorruptStateError: as in `launch`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, pamiq_jax as pj
        >>> from pamiq_jax.envs import JaxEnvironment
        >>> def reset(rng_key, params):
        ...     return jax.random.normal(rng_key), ()
        >>> def step(rng_key, state, action, params):  # noise around what is to be learned
        ...     return params + jax.random.normal(rng_key), state, 0.0, False, {}
        >>> def loss_fn(params, batch, rng_key):
        ...     return jnp.mean((params["mean"] - batch["observation"]) ** 2), {}
        >>> system = pj.System(
        ...     models={"mean": pj.Model(jnp.zeros(()))},
        ...     buffers={"seen": pj.ring_buffer(1000)},
        ...     trainers={"fit": pj.Schedule(pj.gradient_trainer(loss_fn, optax.sgd(0.01)), data="seen", batch_size=8)},
        ...     interaction=pj.Interaction(
        ...         pj.Agent(lambda params, carry, observation, rng_key: (carry, params["mean"], {})),
        ...         JaxEnvironment(reset, step, 5.0, action=0.0),
        ...     ),
        ... )
        >>> result = run_scanned(system, 500)
        >>> result.snapshot.version, abs(float(result.snapshot.params["mean"]) - 5) < 0.3
        (500, True)
    """
    for name, number in (("interactions", interactions), ("train_ticks", train_ticks)):
        checked_integer(f"run_scanned({name})", number, least=0)
    rounds = rounds_of("run_scanned", interactions, train_every)
    check_scannable(system, train_every)
    place = None if directory is None else Path(directory).absolute()
    if place is None and keep is not None:
        raise InvalidValueError("run_scanned(directory)", None, "a directory, for states to be saved in")
    check_policies("run_scanned", system, None, keep, FAIL_FAST)
    origin = find_origin(place, resume, partial=partial, rename=rename)
    run = ScannedRun(begin(compile_system(system, seed=seed), origin, clock := VirtualClock()), clock, seed)
    result = run.end(run.compile(rounds, train_every, train_ticks)())
    if place is not None:
        save_cut(StateStore(place), run.cut(), run.newest_metrics, keep)
    return result


class Outcome(NamedTuple):
    """What the program returns.

    Attributes:
        last: the values at the end.
        chosen: which trainer did a chunk in each training tick, int32 `[rounds, train_ticks]`; their number for none.
        metrics: of each trainer there, `[rounds, train_ticks]`.
        seconds: how long it took.
    """

    last: Scanned
    chosen: jax.Array
    metrics: dict[str, Metrics]
    seconds: float


class ScannedRun:
    """A system's values before the program that is the run, and after it.

    Args:
        begun: the system where its run begins.
        clock: of the run.
        seed: of all randomness.
    """

    def __init__(self, begun: Begun, clock: VirtualClock, seed: int) -> None:
        self._ready, self._clock = begun.ready, clock
        compiled = begun.ready.compiled
        self._system = compiled.programs.system
        (self._name,) = self._system.interactions
        self._interaction = self._system.interactions[self._name]
        self._environment = cast(PureEnvironment, self._interaction.environment)
        self._due = 0.0 if begun.cut is None else begun.cut.due[self._name]
        self._actor = begin_interaction(self._system, self._name, seed, compiled, begun.ready.world(self._name))
        self._programs = ScanPrograms(
            self._system,
            self._name,
            self._environment.functions,
            cast(Agent[Any], self._interaction.agent),
            self._actor.rng_key,
            compiled.examples,
            FAIL_FAST.bad_updates,
        )
        # What a live run left on its way comes first.
        self._learner = drain(compiled.programs, compiled.learner, begun.ready.cells, clock)

    def compile(
        self, rounds: int, train_every: int, train_ticks: int, *, repeats: bool = False
    ) -> Callable[[], Outcome]:
        """Return what runs the compiled program from the beginning.

        Args:
            rounds: how many.
            train_every: inference ticks in a round.
            train_ticks: training ticks in a round.
            repeats: whether it is called more than once: the buffers, which are donated, are copied then.
        """
        self._times = self._add_up(rounds * train_every)[train_every - 1 :: train_every]
        first = first_scanned(self._ready, self._learner, self._actor, self._name, self._environment.world)
        milliseconds, days = (self._times * 1000).astype(np.int64), self._times.astype(np.int64) % 86_400
        moments = Moment(*(jnp.asarray(part, jnp.int32) for part in (np.arange(rounds), milliseconds, days)))
        scan = functools.partial(scan_rounds, self._programs, train_every, train_ticks)
        arguments = (first.actor, first.learner, moments)
        program = jax.jit(scan, donate_argnames="buffers").lower(*arguments, buffers=first.buffers).compile()

        def run() -> Outcome:
            buffers = jax.block_until_ready(own(first.buffers) if repeats else first.buffers)
            started = time.perf_counter()
            last, chosen, metrics = jax.block_until_ready(program(*arguments, buffers=buffers))
            return Outcome(last, chosen, metrics, time.perf_counter() - started)

        return run

    def end(self, outcome: Outcome) -> ScannedResult:
        """Return the result, and leave the environment as it is then.

        Args:
            outcome: of the program.

        Raises:
            WorkerError: a trainer has failed.
        """
        last = outcome.last
        self._environment.world = last.actor.world
        self._check_failures(last.learner)
        snapshot = snapshot_of(last, self._ready.cells.store.latest, self._times)
        self._cells = self._last_cells(last, snapshot)
        if len(self._times):
            self._clock.set(float(self._times[-1]))
        self._learner = self._with_reasons(learner_of(self._ready, last))
        names, places = list(self._system.trainers), np.asarray(outcome.chosen).reshape(-1)
        self.result = ScannedResult(
            self._learner,
            {self._name: actor_of(last, self._actor.rng_key)},
            snapshot,
            _history(names, places, outcome.metrics),
            tuple(names[place] for place in places.tolist() if place < len(names)),
            buffer_statuses(self._system, self._cells, self._learner),
            outcome.seconds,
        )
        return self.result

    @property
    def newest_metrics(self) -> dict[str, Metrics]:
        """The metrics of each trainer's last chunk."""
        history = self.result.history
        return {name: {key: values[-1] for key, values in history[name].items()} for name in set(self.result.chosen)}

    def cut(self) -> Cut:
        """Return the run as it ended, to be saved."""
        return Cut(
            self._learner,
            self.result.actors,
            self.result.snapshot,
            collected(self._cells.collectors),
            {self._name: save_world(self._interaction)},
            {self._name: self._due},
            self._clock.now(),
        )

    def _add_up(self, ticks: int) -> np.ndarray[Any, Any]:
        """Return the seconds on the clock at each tick, added up as lockstep does; float64 `[ticks]`."""
        interval = self._interaction.interval_seconds or FREE_INTERVAL_SECONDS
        due = np.add.accumulate(np.array([self._due] + [interval] * ticks, np.float64))
        self._due = float(due[-1])
        return due[:-1]

    def _check_failures(self, learner: ScannedLearner) -> None:
        for name in self._system.trainers:
            run = learner.trainers[name]
            if not (failure := int(run.failure)):
                continue
            try:
                if failure == TOO_MANY_SKIPS:
                    check_updates(FAIL_FAST, name, cast(Any, skip_reader(run.state))(run.state))
                given = publish_function(self._system, name)(run.state)
                published = published_params(self._system, name, given)
                check_finite({**published, **handed_on(self._system, name, run.state, given)})
            except (TooManyBadUpdatesError, NonFiniteError) as error:
                raise WorkerError(f"trainer {name}", error) from error

    def _last_cells(self, last: Scanned, snapshot: Snapshot) -> Cells:
        """Return cells as they would be had the records passed through them."""
        cells = self._ready.compiled.cells()
        cells.store.restore(snapshot)
        for name, collector in cells.collectors.items():
            before = self._ready.cells.collectors[name]
            pending = before.pending_records()
            if name in self._system.collects(self._name):
                pending = pending._replace(has_gap=np.asarray(last.actor.has_gap))
            seen = int(last.buffers[name].seen)
            collector.restore(pending, CollectorCounts(seen, before.counts.dropped, before.counts.pending))
        return cells

    def _with_reasons(self, learner: LearnerState) -> LearnerState:
        programs = self._ready.compiled.programs
        for name, run in learner.trainers.items():
            if run.phase is TrainerPhase.WAITING:
                blocked = waits_for_others(programs, learner, self._cells, name)
                now = progress(programs, learner, self._cells, self._clock, name)
                reason = blocked or decide(programs, learner, now, self._clock, name).reason
                learner = learner.with_trainer(name, run._replace(reason=reason))
        return learner


def _history(
    names: list[str], places: np.ndarray[Any, Any], metrics: Mapping[str, Metrics]
) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    return {
        name: {key: np.asarray(values).reshape(-1)[places == number] for key, values in metrics[name].items()}
        for number, name in enumerate(names)
    }


def scan_rounds(
    programs: ScanPrograms,
    train_every: int,
    train_ticks: int,
    actor: ScannedActor,
    learner: ScannedLearner,
    moments: Moment,
    *,
    buffers: Mapping[str, ScannedBuffer],
) -> tuple[Scanned, jax.Array, dict[str, Metrics]]:
    """Return what a system becomes, a pure function to be compiled.

    Args:
        programs: the system.
        train_every: inference ticks in a round.
        train_ticks: training ticks in a round.
        actor: the inference side as it begins.
        learner: the training side.
        moments: of the rounds, int32 `[rounds]`.
        buffers: as they begin.

    Returns:
        The values at the end; which trainer did a chunk in each training tick, int32 `[rounds, train_ticks]`; and
        the metrics of each trainer there, `[rounds, train_ticks]`.
    """

    def tick(scanned: Scanned, now: Moment) -> tuple[Scanned, tuple[jax.Array, dict[str, Metrics]]]:
        trained = TrainTick(programs, scanned, now).run()
        states = {name: scanned.buffers[name]._replace(state=state) for name, state in trained.updated.items()}
        scanned = scanned._replace(learner=trained.learner, buffers={**scanned.buffers, **states})
        return scanned, (trained.chosen, trained.metrics)

    def one_round(scanned: Scanned, now: Moment) -> tuple[Scanned, tuple[jax.Array, dict[str, Metrics]]]:
        learner = scanned.learner
        actor, records = jax.lax.scan(
            lambda actor, _: scanned_infer(programs, actor, learner.params, learner.version),
            scanned.actor,
            length=train_every,
        )
        scanned = scanned._replace(actor=actor, buffers=scanned_drain(programs, scanned.buffers, records, now))
        if not programs.system.trainers:
            return scanned, (jnp.zeros((0,), jnp.int32), {})
        return jax.lax.scan(lambda scanned, _: tick(scanned, now), scanned, length=train_ticks)

    last, (chosen, metrics) = jax.lax.scan(one_round, Scanned(actor, buffers, learner), moments)
    return last, chosen, metrics
