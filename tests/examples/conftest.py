"""What several examples' tests need."""

from __future__ import annotations

import pytest

import pamiq_jax as pj
from examples import forward_dynamics


@pytest.fixture(scope="session")
def world() -> object:
    """Forward dynamics of the pendulum, learned from 1,000 steps."""
    system = forward_dynamics.make_system()
    return pj.run_lockstep(system, 1_000, check_donation=True).snapshot.params["dynamics"]
