"""One tick of the inference side, as a plain function."""

from __future__ import annotations

from typing import Any

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.state import ActorState, Cells, InferReport


def infer_tick(programs: Programs, actor: ActorState, cells: Cells, clock: Clock) -> tuple[ActorState, InferReport]:
    """Observe, take the newest snapshot, act, affect, collect. Called from the inference thread.

    Args:
        programs: the compiled system; it must have an interaction.
        actor: the state before the tick.
        cells: the snapshot is read from here, the record is collected here.
        clock: for latency and staleness.

    Returns:
        The state after the tick, and what was done.

    Raises:
        InvalidValueError: the system has no interaction.
        RecordMismatchError: environment or agent gave something else than they said they would.

    Example:
        See `run_lockstep`, which is this and `train_tick` by turns.
    """
    acting = programs.acting
    if acting is None:
        raise InvalidValueError("System(interaction)", None, "an Interaction, for there to be an inference tick")
    environment = acting.interaction.environment
    observation = environment.observe()
    started = clock.now()
    observation = acting.copy(observation)
    snapshot = cells.store.latest
    carry, action, extras = acting.act(snapshot.params, actor, observation)
    acted = clock.now()
    feedback = environment.affect(action)
    record: dict[str, Any] = {"observation": observation, "action": action, **feedback, **extras}
    for name, select in acting.collects.items():
        cells.collectors[name].collect(select(record), snapshot.version)
    report = InferReport(
        snapshot.version, acted - started, acted - snapshot.published_at, observation, action, feedback, extras
    )
    return actor._replace(carry=carry, tick=actor.tick + 1), report
