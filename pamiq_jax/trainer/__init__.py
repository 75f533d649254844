"""Trainers: pure functions over an immutable state, and the step that compiles them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.trainer.accumulate import accumulate_gradients
    from pamiq_jax.trainer.addresses import buffer_pointers, check_not_donated
    from pamiq_jax.trainer.alternating import AlternatingState, alternate
    from pamiq_jax.trainer.averaging import AveragedState, Decay, ema
    from pamiq_jax.trainer.base import (
        ChangeFn,
        InitFn,
        PublishFn,
        ReadingState,
        ReceiveFn,
        StepFn,
        Trainer,
        TrainerState,
        custom_trainer,
        publish_params,
        receive_models,
        unchanged,
    )
    from pamiq_jax.trainer.clip import clip_gradients
    from pamiq_jax.trainer.compile import ChunkFn, TrainerPrograms, compile_trainer
    from pamiq_jax.trainer.donation import DonationPlan, DonationRow, explain_donation
    from pamiq_jax.trainer.drawing import SampleFn
    from pamiq_jax.trainer.evaluated import EvaluateFn, publish_evaluated
    from pamiq_jax.trainer.from_step import trainer_from_step
    from pamiq_jax.trainer.gradient import LossFn, gradient_trainer
    from pamiq_jax.trainer.guarding import GuardedState, guard, needs_rollback
    from pamiq_jax.trainer.hyperparameters import (
        HyperparameterState,
        get_hyperparameters,
        set_hyperparameters,
        with_hyperparameters,
    )
    from pamiq_jax.trainer.optimization import Optimization
    from pamiq_jax.trainer.optimizers import Labels, with_optimizers
    from pamiq_jax.trainer.skip import SkippingState, skip_first
    from pamiq_jax.trainer.step_donation import donated_leaves
    from pamiq_jax.trainer.step_state import StepState
    from pamiq_jax.trainer.targets import with_targets
    from pamiq_jax.trainer.wrapped import WrappedState
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "accumulate": "accumulate_gradients",
            "addresses": "buffer_pointers check_not_donated",
            "alternating": "AlternatingState alternate",
            "base": (
                "ChangeFn InitFn PublishFn ReadingState ReceiveFn StepFn Trainer TrainerState custom_trainer "
                "publish_params receive_models unchanged"
            ),
            "clip": "clip_gradients",
            "compile": "ChunkFn TrainerPrograms compile_trainer",
            "donation": "DonationPlan DonationRow explain_donation",
            "drawing": "SampleFn",
            "averaging": "AveragedState Decay ema",
            "evaluated": "EvaluateFn publish_evaluated",
            "from_step": "trainer_from_step",
            "gradient": "LossFn gradient_trainer",
            "guarding": "GuardedState guard needs_rollback",
            "hyperparameters": "HyperparameterState get_hyperparameters set_hyperparameters with_hyperparameters",
            "optimization": "Optimization",
            "optimizers": "Labels with_optimizers",
            "skip": "SkippingState skip_first",
            "step_donation": "donated_leaves",
            "step_state": "StepState",
            "targets": "with_targets",
            "wrapped": "WrappedState",
        },
    )

__all__ = [
    "AlternatingState",
    "AveragedState",
    "ChangeFn",
    "ChunkFn",
    "Decay",
    "DonationPlan",
    "DonationRow",
    "EvaluateFn",
    "GuardedState",
    "HyperparameterState",
    "InitFn",
    "Labels",
    "LossFn",
    "Optimization",
    "PublishFn",
    "ReadingState",
    "ReceiveFn",
    "SampleFn",
    "SkippingState",
    "StepFn",
    "StepState",
    "Trainer",
    "TrainerPrograms",
    "TrainerState",
    "WrappedState",
    "accumulate_gradients",
    "alternate",
    "buffer_pointers",
    "check_not_donated",
    "clip_gradients",
    "compile_trainer",
    "custom_trainer",
    "donated_leaves",
    "ema",
    "explain_donation",
    "get_hyperparameters",
    "gradient_trainer",
    "guard",
    "needs_rollback",
    "publish_evaluated",
    "publish_params",
    "receive_models",
    "set_hyperparameters",
    "skip_first",
    "trainer_from_step",
    "unchanged",
    "with_hyperparameters",
    "with_optimizers",
    "with_targets",
]
