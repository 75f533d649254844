"""A system without threads: one tick after the other, on a virtual clock, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pamiq_jax.errors import InvalidValueError, WorkerError
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.clock import VirtualClock
from pamiq_jax.runtime.compile import compile_system
from pamiq_jax.runtime.infer import infer_tick
from pamiq_jax.runtime.inferring import reset_interaction
from pamiq_jax.runtime.state import ActorState, InferReport, LearnerState, TrainReport, only_actor
from pamiq_jax.runtime.status import BufferStatus, buffer_statuses
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.train import train_tick
from pamiq_jax.types import Metrics

_FREE_INTERVAL_SECONDS = 0.001


class LockstepResult(NamedTuple):
    """How a lockstep run ended. All of it is values: keep it, compare it, look into it.

    Attributes:
        learner: the training side's last state.
        actors: the inference side's last states, by the names of the interactions.
        snapshot: the newest snapshot.
        metrics: `(trainer, metrics)` of each chunk, in order.
        buffers: what has been seen, dropped, inserted and sampled, by buffer name.
    """

    learner: LearnerState
    actors: dict[str, ActorState]
    snapshot: Snapshot
    metrics: tuple[tuple[str, Metrics], ...]
    buffers: dict[str, BufferStatus]

    @property
    def actor(self) -> ActorState:
        """The last state of the only interaction."""
        return only_actor(self.actors)


def run_lockstep(
    system: System,
    interactions: int,
    *,
    seed: int = 0,
    train_ticks: int = 1,
    check_donation: bool = False,
    on_interaction: Callable[[InferReport], Any] | None = None,
) -> LockstepResult:
    """Return what a system becomes after a number of interactions, each followed by training ticks.

    With an environment that is deterministic for its seed, two calls give the same result bit for bit. Of several
    interactions the one that is due first on the virtual clock ticks next; one without an interval is due every
    millisecond.

    Args:
        system: one with an interaction. Its environment is reset with `seed` first.
        interactions: inference ticks, of all interactions together.
        seed: of all randomness.
        train_ticks: training ticks, that is chunks at the most, after each interaction.
        check_donation: have each chunk prove that it deletes no published array.
        on_interaction: called after each inference tick with its report.

    Raises:
        InvalidValueError: the system has no interaction, or a number is out of range.
        WorkerError: a trainer failed; its `__cause__` says why.

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
    if not system.interactions:
        raise InvalidValueError("System(interaction)", None, "an Interaction", "step `train_tick` by hand without one")
    if interactions < 0 or train_ticks < 0:
        raise InvalidValueError("run_lockstep(interactions, train_ticks)", (interactions, train_ticks), "at least 0")
    clock = VirtualClock()
    compiled = compile_system(system, seed=seed, check_donation=check_donation)
    programs, learner, actors, cells = compiled.programs, compiled.learner, dict(compiled.actors), compiled.cells()
    for name in system.interactions:
        reset_interaction(system, name, seed)
    history: list[tuple[str, Metrics]] = []
    due = dict.fromkeys(system.interactions, 0.0)
    for _ in range(interactions):
        name = min(due, key=lambda name: due[name])
        clock.advance(due[name] - clock.now())
        due[name] += system.interactions[name].interval_seconds or _FREE_INTERVAL_SECONDS
        actors[name], inferred = infer_tick(programs, actors[name], cells, clock, name)
        if on_interaction is not None:
            on_interaction(inferred)
        for _ in range(train_ticks):
            learner, report = train_tick(programs, learner, cells, clock)
            _note(report, history)
    buffers = buffer_statuses(system, cells, learner)
    return LockstepResult(learner, actors, cells.store.latest, tuple(history), buffers)


def _note(report: TrainReport, history: list[tuple[str, Metrics]]) -> None:
    if report.error is not None:
        raise WorkerError(f"trainer {report.trainer}", report.error) from report.error
    if report.trainer is not None:
        history.append((report.trainer, report.metrics))
