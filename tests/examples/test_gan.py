from __future__ import annotations

import jax
import numpy as np
import pytest

import pamiq_jax as pj
from examples.digits import load_digits
from examples.gan import DRAWINGS, VIEWS, draw_images, make_system, precision_and_recall
from pamiq_jax.runtime import InferReport


def test_two_critics_teach_a_generator_to_draw_many_kinds_of_digits() -> None:
    train, test = load_digits()
    drawings: list[np.ndarray] = []

    def look(report: InferReport) -> None:
        drawings.append(np.asarray(report.extras["drawings"]))

    system = make_system(train.images)
    result = pj.run_lockstep(system, interactions=560, on_interaction=look)
    assert set(result.snapshot.params) == {"generator"}
    assert {name for name, model in system.models.items() if not model.infer} == set(VIEWS)

    scores = {
        name: precision_and_recall(test.images, np.asarray(draw_images(params, jax.random.key(1), len(test.labels))))
        for name, params in (
            ("before", system.models["generator"].params),
            ("after", result.snapshot.params["generator"]),
        )
    }
    assert scores["before"] == (0, 0)
    assert min(scores["after"]) > 0.25
    # The agent keeps its ideas, but not how it draws them.
    assert drawings[0].shape == (DRAWINGS, 64)
    np.testing.assert_array_equal(drawings[0], drawings[100])
    assert np.abs(drawings[-1] - drawings[0]).mean() > 0.2


def test_precision_and_recall_tell_two_failures_apart() -> None:
    random = np.random.default_rng(0)
    real = random.normal(size=(200, 2))
    precision, recall = precision_and_recall(real, random.normal(size=(200, 2)))
    assert min(precision, recall) > 0.85
    precision, recall = precision_and_recall(real, 0.01 * random.normal(size=(200, 2)))  # always the same
    assert (precision, recall) == pytest.approx((1.0, 0.0), abs=0.02)
    precision, recall = precision_and_recall(real, 30.0 * random.normal(size=(200, 2)))  # nothing like it
    assert precision < 0.1
