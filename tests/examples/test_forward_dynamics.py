"""The forward dynamics learn to imagine, and need their carry for it."""

from __future__ import annotations

import numpy as np
import pytest

from examples import forward_dynamics as example


@pytest.fixture(scope="module")
def errors(world: object) -> dict[str, np.ndarray]:
    life = example.live(example.explorer, {"dynamics": world}, 500, seed=1)
    return example.distances(world, life, steps=20)


def test_imagination_beats_persistence(errors: dict[str, np.ndarray]) -> None:
    assert np.all(errors["model"] < 0.8 * errors["persistence"]), errors
    assert errors["model"][9] < 0.4 * errors["persistence"][9], errors


def test_the_carry_knows_what_cannot_be_seen(errors: dict[str, np.ndarray]) -> None:
    assert errors["model"][9] < 0.5 * errors["model without its carry"][9], errors
