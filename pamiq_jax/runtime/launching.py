"""A system for real: threads that act, a thread that learns."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

from pamiq_jax.arguments import checked_integer, checked_positive
from pamiq_jax.conditions import Condition
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime.clock import RealClock
from pamiq_jax.runtime.faults import FAIL_FAST, FaultPolicy
from pamiq_jax.runtime.limits import DEADLINES, Deadlines
from pamiq_jax.runtime.process import DirectoryLock
from pamiq_jax.runtime.system import System

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import Retention
    from pamiq_jax.runtime.events import OnTransition
    from pamiq_jax.runtime.renaming import Renames
    from pamiq_jax.runtime.rows import OnMetrics
    from pamiq_jax.runtime.run import Run
    from pamiq_jax.runtime.state import InferReport


def launch(
    system: System,
    *,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    strict: bool = False,
    on_metrics: OnMetrics | None = None,
    on_interaction: Callable[[InferReport], Any] | None = None,
    on_transition: OnTransition | None = None,
    time_scale: float = 1.0,
    deadlines: Deadlines = DEADLINES,
    faults: FaultPolicy = FAIL_FAST,
    save: Condition | None = None,
    keep: Retention | None = None,
    resume: bool | int | str | os.PathLike[str] = False,
    partial: bool = False,
    rename: Renames | None = None,
    revive: bool | Collection[str] = False,
    record: bool = False,
    history: int = 0,
    latency_budget_ms: float | None = None,
) -> Run:
    """Start a system in threads of its own and return a handle at once.

    Compiling begins in the background; the agent starts to act when all is compiled. What is compiled is kept in
    `~/.cache/pamiq_jax` for the next start, unless JAX's settings name another place or switch its cache off. Keep the
    handle: a system whose handle nobody holds is stopped. `with launch(...) as run:` keeps it, and stops the system in
    the end.

    Args:
        system: what to run.
        directory: where `metrics.jsonl` and saved states are written; it belongs to this run until it stops. None
            writes nothing.
        seed: of all keys, and of the environment.
        strict: make a compile after READY an error, and have each chunk prove that it deletes no published array.
        on_metrics: called with each chunk's metrics, on the metrics thread.
        on_interaction: called after each inference tick, on the inference thread; keep it short.
        on_transition: told of each transition of the system and of each trainer, on the thread that makes it.
        time_scale: seconds on the system's clock in one real second: 10 makes an interval of 1 s last 0.1 s.
        deadlines: after which a thread counts as stuck, in `run.status` and in the log.
        faults: what becomes of a trainer that fails: `fail_fast()` ends it and tells whoever waits, `keep_acting()`
            has it begin anew from its last good state.
        save: when states are saved, besides whenever `run.save()` is called: `every_seconds(60)`,
            `every_versions(100)`, any condition on steps, time and versions of all trainers, combinations, and
            `| on_signal(signal.SIGUSR1)` in a run that is launched from the main thread. In a run with a directory
            SIGTERM saves, stops and leaves with exit code 0, unless it has a handler.
        keep: which states stay; the newest three by default. The newest sound one always does.
        resume: True goes on from the newest state in the directory that can be read, if there is one; a number from
            that state; a path from the newest of another run. It is restored before the agent acts.
        partial: begin with what is stored where it fits, and anew elsewhere; else what does not fit is an error. Of a
            buffer, an optimizer and an agent's memory either all is taken or nothing; `run.restored.report` says it.
        rename: new names on resume: `{"trainers": {"old": "new"}}`, also "models", "buffers", "interactions".
        revive: trainers that were quarantined when the state was saved, and are to begin anew from their last good
            states: their names, or True for all. Else they stay quarantined, under any policy.
        record: write down what the training thread is told and does, for `replay`, and all records with it.
        history: how many moments after a publication `run.history` keeps: published parameters and the trainers' whole
            states. Nothing of a trainer's state is donated then.
        latency_budget_ms: how long an action may wait for a device that trains too, in milliseconds: before READY each
            trainer's chunk is tuned to it as by `tune_chunks`; `run.system` has the lengths, `run.status`'s
            `chunk_reason` says why. None leaves them as they are.

    Raises:
        InvalidValueError: a time scale or a latency budget of 0 or less, or saving or recording without a directory;
            `on_signal` outside the main thread, or joined with something else than `|`; a file where the directory
            should be.
        UnknownNameError: `faults` repairs, or `revive` names, a trainer that does not exist.
        DirectoryInUseError: another system runs there.
        CheckpointNotFoundError: `resume` is a path where no state is.
        DirectoryHasStatesError: an earlier run's states are there, and `resume` does not say to go on from them.

    Example:
        >>> import jax.numpy as jnp, optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
        >>> system = pj.System(
        ...     models={"m": pj.Model(jnp.zeros(()))},
        ...     buffers={"x": pj.ring_buffer(100, example=0.0)},
        ...     trainers={"t": pj.Schedule(trainer, data="x", batch_size=4, when=pj.min_new(2))},
        ... )
        >>> with pj.launch(system) as run:
        ...     kept = [run.collect("x", value) for value in (1.0, 3.0)]
        ...     version = run.wait_for_version(1, timeout=60).version
        >>> version, run.status.phase
        (1, <SystemPhase.STOPPED: 'stopped'>)
    """
    # All that runs is imported now, beside what takes a hundred times as long: nobody waits for it at the import.
    from pamiq_jax.runtime.engine import Engine
    from pamiq_jax.runtime.options import Observers, Watching
    from pamiq_jax.runtime.origin import check_policies, check_revive, find_origin
    from pamiq_jax.runtime.run import Run
    from pamiq_jax.runtime.saving import SavingOptions
    from pamiq_jax.runtime.signal_condition import parted

    if directory is None and (save is not None or keep is not None or record):
        raise InvalidValueError("launch(directory)", None, "a directory, for what is saved or recorded")
    checked_integer("launch(history)", history, least=0)
    checked_integer("launch(seed)", seed, least=0)
    if latency_budget_ms is not None:
        checked_positive("launch(latency_budget_ms)", latency_budget_ms, "5 is a good one on a CPU")
    if not isinstance(cast(Any, deadlines), Deadlines):
        raise InvalidValueError(
            "launch(deadlines)", deadlines, "a Deadlines", "write Deadlines(training=3.0), for example"
        )
    for name, told in (("metrics", on_metrics), ("interaction", on_interaction), ("transition", on_transition)):
        if told is not None and not callable(told):
            raise InvalidValueError(f"launch(on_{name})", told, "a function, or None")
    check_policies("launch", system, save, keep, faults)
    check_revive("launch", system, revive)
    policy = parted("launch", save)
    lock = None if directory is None else DirectoryLock(directory)
    try:
        origin = find_origin(
            None if lock is None else lock.directory, resume, partial=partial, rename=rename, revive=revive
        )
        saving = SavingOptions(origin, keep, policy.condition)
        observers = Observers(on_metrics, on_interaction, on_transition, record, history)
        watching = Watching(deadlines, policy.signals, faults)
        engine = Engine(
            system,
            RealClock(time_scale),
            lock=lock,
            seed=seed,
            strict=strict,
            observers=observers,
            saving=saving,
            watching=watching,
            latency_budget_ms=latency_budget_ms,
        )
        return Run(system, engine)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
