from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, WorkerError
from pamiq_jax.runtime.state import TrainerRun
from tests.runtime.fakes import PATIENCE, fed_system, learner, learning_system, nan_trainer


def test_a_handle_says_how_its_trainer_is() -> None:
    key = jax.random.key(0)
    workers: Any = SimpleNamespace(learner=None)
    handle = pj.TrainerHandle("fit", workers)
    assert repr(handle) == "TrainerHandle('fit', not compiled yet)"
    run = TrainerRun(state=(), data_key=key, last={}, after={}, steps=12)
    workers.learner = SimpleNamespace(trainers={"fit": run})
    assert repr(handle) == "TrainerHandle('fit', waiting, 12 steps)"


def test_in_a_notebook_it_shows_its_lifecycle_and_what_its_condition_waits_for() -> None:
    schedule = pj.Schedule(learner(), data="seen", batch_size=4, when=pj.min_size(3) & ~pj.min_new(10_000))
    with pj.launch(learning_system(trainers={"fit": schedule})) as run:
        assert "<" in run.trainers["fit"]._repr_html_()  # whatever it is at
        run.wait_for_version(1, PATIENCE)
        run.pause()
        html = run.trainers["fit"]._repr_html_()
        assert "paused" in run._repr_html_()
    assert "<svg" in html
    for term, truth in (("min_size(3)", "✓ holds"), ("~min_new(10000)", "✓ holds"), ("min_new(10000)", "✗ no")):
        assert f"{term}</td><td>{truth}</td>" in html
    assert "stopped" in run.trainers["fit"]._repr_html_()


def test_a_trainer_that_has_failed_has_no_hyperparameters_any_more() -> None:
    schedule = pj.Schedule(nan_trainer(1), data="x", batch_size=2, when=pj.min_size(2))
    with pj.launch(fed_system(schedule)) as run:
        for value in range(2):
            run.collect("x", float(value))
        with pytest.raises(WorkerError):
            run.wait(PATIENCE)
        for ask in (run.trainers["fit"].hyperparameters, lambda: run.trainers["fit"].set(learning_rate=1.0)):
            with pytest.raises(InvalidValueError, match=r"failed: .*expected a trainer that has not failed"):
                ask()
