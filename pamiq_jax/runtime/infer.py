"""One tick of the inference side, as a plain function."""

from __future__ import annotations

from typing import Any

from pamiq_jax.errors import UnknownNameError
from pamiq_jax.runtime.clock import Clock
from pamiq_jax.runtime.interaction import AGENT
from pamiq_jax.runtime.programs import Programs
from pamiq_jax.runtime.state import ActorState, Cells, InferReport


def infer_tick(
    programs: Programs, actor: ActorState, cells: Cells, clock: Clock, interaction: str = AGENT
) -> tuple[ActorState, InferReport]:
    """Observe, take the newest snapshot, act, affect, collect. Called from the interaction's inference thread.

    Args:
        programs: the compiled system.
        actor: the interaction's state before the tick.
        cells: the snapshot is read from here, the record is collected here.
        clock: for latency and staleness.
        interaction: its name, where a system has several.

    Returns:
        The state after the tick, and what was done.

    Raises:
        UnknownNameError: the system has no such interaction.
        RecordMismatchError: environment or agent gave something else than they said they would.

    Example:
        See `run_lockstep`, which is this and `train_tick` by turns.
    """
    acting = programs.acting.get(interaction)
    if acting is None:
        raise UnknownNameError("interaction", interaction, programs.acting, "infer_tick")
    environment = acting.interaction.environment
    observation = environment.observe()
    started = clock.now()
    observation = acting.copy(observation)
    snapshot = cells.store.latest
    carry, action, extras = acting.act(snapshot.params, actor, observation)
    acted = clock.now()
    feedback = environment.affect(action)
    if acting.tell is not None:
        acting.tell(feedback)
    if extras is not None:
        record: dict[str, Any] = {"observation": observation, "action": action, **feedback, **extras}
        for name, select in acting.collects.items():
            cells.collectors[name].collect(select(record), snapshot.version, interaction)
    report = InferReport(
        snapshot.version,
        acted - started,
        acted - snapshot.published_at,
        observation,
        action,
        feedback,
        {} if extras is None else extras,
        interaction,
        is_fallback=extras is None,
    )
    return ActorState(carry, actor.rng_key, actor.tick + 1, acting.resets(feedback)), report
