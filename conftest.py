"""Settings of every test and doctest: eight CPU devices, strict numerics, fixed seeds, no thread left behind.

It lies at the root, not in tests/, so that the doctests of the package run under the same rules.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

DEVICE_FLAG = "--xla_force_host_platform_device_count=8"

# XLA reads both when its backend starts, which the first array does.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICE_FLAG}".strip()

import hypothesis  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Many tests build the same small systems: each program is compiled once, then taken from here. `make clean` removes it.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent / ".pytest_cache" / "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

hypothesis.settings.register_profile("house", derandomize=True, deadline=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = sorted(thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("pamiq-"))
    assert not left, f"the test left these threads alive: {', '.join(left)}"
