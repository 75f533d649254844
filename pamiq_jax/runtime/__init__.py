"""Running a system: in lockstep by hand, or live in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.runtime.agent import Agent, FeedbackAgent, PythonAgent
    from pamiq_jax.runtime.clock import Clock, RealClock, VirtualClock
    from pamiq_jax.runtime.compile import compile_system
    from pamiq_jax.runtime.describe import Description
    from pamiq_jax.runtime.environment import Environment, EnvironmentSpec, PureEnvironment, WorldFunctions
    from pamiq_jax.runtime.events import OnTransition, Transition
    from pamiq_jax.runtime.faults import FaultPolicy, Repair, RepairFn, fail_fast, keep_acting
    from pamiq_jax.runtime.handle import TrainerHandle
    from pamiq_jax.runtime.history import Moment
    from pamiq_jax.runtime.infer import infer_tick
    from pamiq_jax.runtime.interaction import Interaction
    from pamiq_jax.runtime.launching import launch
    from pamiq_jax.runtime.limits import Deadlines
    from pamiq_jax.runtime.lockstep import LockstepResult, run_lockstep
    from pamiq_jax.runtime.programs import Compiled, Programs
    from pamiq_jax.runtime.recorder import RecordingStatus
    from pamiq_jax.runtime.replaying import Difference, ReplayResult, replay
    from pamiq_jax.runtime.rows import MetricRow
    from pamiq_jax.runtime.run import Run
    from pamiq_jax.runtime.scanned import ScannedResult, run_scanned
    from pamiq_jax.runtime.signal_condition import on_signal
    from pamiq_jax.runtime.signals import TerminationSignals
    from pamiq_jax.runtime.state import (
        ActorState,
        Cells,
        Faults,
        Good,
        InferReport,
        LearnerState,
        TrainerRun,
        TrainReport,
    )
    from pamiq_jax.runtime.status import BufferStatus, InferenceStatus, Meanwhile, Status, TrainerStatus, WaitResult
    from pamiq_jax.runtime.system import Model, Queue, Schedule, System
    from pamiq_jax.runtime.train import train_tick
    from pamiq_jax.runtime.tuning import tune_chunks
    from pamiq_jax.runtime.watchdog import Stuck
    from pamiq_jax.runtime.worlds import Stateful
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "agent": "Agent FeedbackAgent PythonAgent",
            "clock": "Clock RealClock VirtualClock",
            "compile": "compile_system",
            "describe": "Description",
            "environment": "Environment EnvironmentSpec PureEnvironment WorldFunctions",
            "events": "OnTransition Transition",
            "faults": "FaultPolicy Repair RepairFn fail_fast keep_acting",
            "handle": "TrainerHandle",
            "history": "Moment",
            "infer": "infer_tick",
            "interaction": "Interaction",
            "launching": "launch",
            "limits": "Deadlines",
            "lockstep": "LockstepResult run_lockstep",
            "signal_condition": "on_signal",
            "programs": "Compiled Programs",
            "recorder": "RecordingStatus",
            "replaying": "Difference ReplayResult replay",
            "rows": "MetricRow",
            "run": "Run",
            "scanned": "ScannedResult run_scanned",
            "signals": "TerminationSignals",
            "state": "ActorState Cells Faults Good InferReport LearnerState TrainerRun TrainReport",
            "status": "BufferStatus InferenceStatus Meanwhile Status TrainerStatus WaitResult",
            "system": "Model Queue Schedule System",
            "train": "train_tick",
            "tuning": "tune_chunks",
            "watchdog": "Stuck",
            "worlds": "Stateful",
        },
    )

__all__ = [
    "ActorState",
    "Agent",
    "BufferStatus",
    "Cells",
    "Clock",
    "Compiled",
    "Deadlines",
    "Description",
    "Difference",
    "Environment",
    "EnvironmentSpec",
    "FaultPolicy",
    "Faults",
    "FeedbackAgent",
    "Good",
    "InferReport",
    "InferenceStatus",
    "Interaction",
    "LearnerState",
    "LockstepResult",
    "Meanwhile",
    "MetricRow",
    "Model",
    "Moment",
    "OnTransition",
    "Programs",
    "PureEnvironment",
    "PythonAgent",
    "Queue",
    "RealClock",
    "RecordingStatus",
    "Repair",
    "RepairFn",
    "ReplayResult",
    "Run",
    "ScannedResult",
    "Schedule",
    "Stateful",
    "Status",
    "Stuck",
    "System",
    "TerminationSignals",
    "TrainReport",
    "TrainerHandle",
    "TrainerRun",
    "TrainerStatus",
    "Transition",
    "VirtualClock",
    "WaitResult",
    "WorldFunctions",
    "compile_system",
    "fail_fast",
    "infer_tick",
    "keep_acting",
    "launch",
    "on_signal",
    "replay",
    "run_lockstep",
    "run_scanned",
    "train_tick",
    "tune_chunks",
]
