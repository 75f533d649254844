"""Models of flax, as values: `flax.linen` with its collections, `flax.nnx` split and merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.flax.linen import LinenLossFn, linen_trainer
    from pamiq_jax.flax.nnx import ModuleParts, NnxLossFn, nnx_trainer, split_module
    from pamiq_jax.flax.train_state import from_train_state, to_train_state
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "linen": "LinenLossFn linen_trainer",
            "nnx": "ModuleParts NnxLossFn nnx_trainer split_module",
            "train_state": "from_train_state to_train_state",
        },
    )

__all__ = [
    "LinenLossFn",
    "ModuleParts",
    "NnxLossFn",
    "from_train_state",
    "linen_trainer",
    "nnx_trainer",
    "split_module",
    "to_train_state",
]
