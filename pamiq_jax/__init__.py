"""Agents that learn while they act: trainers as pure JAX functions over immutable state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.conditions import (
        Condition,
        Decision,
        Progress,
        Wake,
        always,
        every_seconds,
        every_versions,
        fresh,
        max_duty,
        migrated,
        min_new,
        min_size,
        samples_per_insert,
        time_of_day,
        when,
    )
    from pamiq_jax.data import (
        Buffer,
        Collector,
        Record,
        array_source,
        describe_buffer,
        mix_samples,
        mixed_buffer,
        prioritized_buffer,
        reservoir_buffer,
        ring_buffer,
        rollout_buffer,
        sequence_buffer,
    )
    from pamiq_jax.lifecycle import (
        SYSTEM_TRANSITIONS,
        TRAINER_TRANSITIONS,
        SystemEvent,
        SystemPhase,
        TrainerEvent,
        TrainerPhase,
        mermaid,
        transition,
    )
    from pamiq_jax.metrics import LatencyHistogram
    from pamiq_jax.publishing import Snapshot, SnapshotStore
    from pamiq_jax.recording import Recording
    from pamiq_jax.runtime import (
        Agent,
        Deadlines,
        Environment,
        EnvironmentSpec,
        FaultPolicy,
        FeedbackAgent,
        Interaction,
        LockstepResult,
        Model,
        PythonAgent,
        Queue,
        ReplayResult,
        Run,
        ScannedResult,
        Schedule,
        Status,
        Stuck,
        System,
        TrainerHandle,
        Transition,
        VirtualClock,
        WaitResult,
        compile_system,
        fail_fast,
        infer_tick,
        keep_acting,
        launch,
        on_signal,
        replay,
        run_lockstep,
        run_scanned,
        train_tick,
        tune_chunks,
    )
    from pamiq_jax.trainer import (
        Trainer,
        TrainerState,
        accumulate_gradients,
        alternate,
        clip_gradients,
        compile_trainer,
        custom_trainer,
        ema,
        explain_donation,
        get_hyperparameters,
        gradient_trainer,
        publish_evaluated,
        set_hyperparameters,
        skip_first,
        trainer_from_step,
        with_hyperparameters,
        with_optimizers,
        with_targets,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "conditions": (
                "Condition Decision Progress Wake always every_seconds every_versions fresh max_duty migrated min_new "
                "min_size samples_per_insert time_of_day when"
            ),
            "data": (
                "Buffer Collector Record array_source describe_buffer mix_samples mixed_buffer prioritized_buffer "
                "reservoir_buffer ring_buffer rollout_buffer sequence_buffer"
            ),
            "lifecycle": (
                "SYSTEM_TRANSITIONS TRAINER_TRANSITIONS SystemEvent SystemPhase TrainerEvent TrainerPhase mermaid "
                "transition"
            ),
            "metrics": "LatencyHistogram",
            "publishing": "Snapshot SnapshotStore",
            "recording": "Recording",
            "runtime": (
                "Agent Deadlines Environment EnvironmentSpec FaultPolicy FeedbackAgent Interaction LockstepResult "
                "Model PythonAgent Queue ReplayResult Run ScannedResult Schedule Status Stuck System TrainerHandle "
                "Transition VirtualClock WaitResult compile_system fail_fast infer_tick keep_acting launch on_signal "
                "replay run_lockstep run_scanned train_tick tune_chunks"
            ),
            "trainer": (
                "Trainer TrainerState accumulate_gradients alternate clip_gradients compile_trainer custom_trainer "
                "ema explain_donation get_hyperparameters gradient_trainer publish_evaluated set_hyperparameters "
                "skip_first trainer_from_step with_hyperparameters with_optimizers with_targets"
            ),
        },
    )

__version__ = "0.1.0"

__all__ = [
    "SYSTEM_TRANSITIONS",
    "TRAINER_TRANSITIONS",
    "Agent",
    "Buffer",
    "Collector",
    "Condition",
    "Deadlines",
    "Decision",
    "Environment",
    "EnvironmentSpec",
    "FaultPolicy",
    "FeedbackAgent",
    "Interaction",
    "LatencyHistogram",
    "LockstepResult",
    "Model",
    "Progress",
    "PythonAgent",
    "Queue",
    "Record",
    "Recording",
    "ReplayResult",
    "Run",
    "ScannedResult",
    "Schedule",
    "Snapshot",
    "SnapshotStore",
    "Status",
    "Stuck",
    "System",
    "SystemEvent",
    "SystemPhase",
    "Trainer",
    "TrainerEvent",
    "TrainerHandle",
    "TrainerPhase",
    "TrainerState",
    "Transition",
    "VirtualClock",
    "WaitResult",
    "Wake",
    "accumulate_gradients",
    "alternate",
    "always",
    "array_source",
    "clip_gradients",
    "compile_system",
    "compile_trainer",
    "custom_trainer",
    "describe_buffer",
    "ema",
    "every_seconds",
    "every_versions",
    "explain_donation",
    "fail_fast",
    "fresh",
    "get_hyperparameters",
    "gradient_trainer",
    "infer_tick",
    "keep_acting",
    "launch",
    "max_duty",
    "mermaid",
    "migrated",
    "min_new",
    "min_size",
    "mix_samples",
    "mixed_buffer",
    "on_signal",
    "prioritized_buffer",
    "publish_evaluated",
    "replay",
    "reservoir_buffer",
    "ring_buffer",
    "rollout_buffer",
    "run_lockstep",
    "run_scanned",
    "samples_per_insert",
    "sequence_buffer",
    "set_hyperparameters",
    "skip_first",
    "time_of_day",
    "train_tick",
    "trainer_from_step",
    "transition",
    "tune_chunks",
    "when",
    "with_hyperparameters",
    "with_optimizers",
    "with_targets",
]
