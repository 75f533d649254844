from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax

import pamiq_jax as pj
from pamiq_jax.runtime.state import TrainerRun


def test_a_handle_says_how_its_trainer_is() -> None:
    key = jax.random.key(0)
    workers: Any = SimpleNamespace(learner=None)
    handle = pj.TrainerHandle("fit", workers)
    assert repr(handle) == "TrainerHandle('fit', not compiled yet)"
    run = TrainerRun(state=(), data_key=key, run_key=key, last={}, after={}, steps=12)
    workers.learner = SimpleNamespace(trainers={"fit": run})
    assert repr(handle) == "TrainerHandle('fit', waiting, 12 steps)"
