"""Models of flax, as values: `flax.linen` with its collections, `flax.nnx` split and merged."""

from pamiq_jax.flax.linen import LinenLossFn, linen_trainer
from pamiq_jax.flax.nnx import ModuleParts, NnxLossFn, nnx_trainer, split_module

__all__ = ["LinenLossFn", "ModuleParts", "NnxLossFn", "linen_trainer", "nnx_trainer", "split_module"]
