"""The contracts of trainers, buffers and conditions, as suites that run on yours.

Call one in a test of your own. It returns nothing, or raises a `ContractError` that names the
function, the promise it breaks and the leaf.
"""

from pamiq_jax.errors import ContractError
from pamiq_jax.testing.buffer import check_buffer
from pamiq_jax.testing.condition import check_condition
from pamiq_jax.testing.trainer import check_trainer

__all__ = ["ContractError", "check_buffer", "check_condition", "check_trainer"]
