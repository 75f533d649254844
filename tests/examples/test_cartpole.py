"""Poles are balanced by a system that is one program."""

from __future__ import annotations

import numpy as np

import pamiq_jax as pj
from examples import cartpole as example


def test_poles_fall_less_often() -> None:
    result = pj.run_scanned(example.make_system(poles=32), 300 * example.ROLLOUT, train_every=example.ROLLOUT)
    falls = np.asarray(result.history["a2c"]["falls"])
    assert result.snapshot.version == 300
    assert falls[-50:].mean() < 0.5 * falls[:10].mean(), falls
