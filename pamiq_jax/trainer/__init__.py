"""Trainers: pure functions over an immutable state, and the step that compiles them."""

from pamiq_jax.trainer.base import (
    ChangeFn,
    InitFn,
    PublishFn,
    StepFn,
    Trainer,
    TrainerState,
    custom_trainer,
    publish_params,
    unchanged,
)
from pamiq_jax.trainer.compile import ChunkFn, SampleFn, TrainerPrograms, check_step, compile_trainer, own, scan_chunk
from pamiq_jax.trainer.donation import (
    DonationPlan,
    DonationRow,
    buffer_pointers,
    check_alive,
    check_not_donated,
    explain_donation,
)
from pamiq_jax.trainer.forward import forwarded_leaves, jit_forwarding
from pamiq_jax.trainer.gradient import LossFn, gradient_trainer

__all__ = [
    "ChangeFn",
    "ChunkFn",
    "DonationPlan",
    "DonationRow",
    "InitFn",
    "LossFn",
    "PublishFn",
    "SampleFn",
    "StepFn",
    "Trainer",
    "TrainerPrograms",
    "TrainerState",
    "buffer_pointers",
    "check_alive",
    "check_not_donated",
    "check_step",
    "compile_trainer",
    "custom_trainer",
    "explain_donation",
    "forwarded_leaves",
    "gradient_trainer",
    "jit_forwarding",
    "own",
    "publish_params",
    "scan_chunk",
    "unchanged",
]
