from __future__ import annotations

import numpy as np

import pamiq_jax as pj
from examples.digits import load_digits
from examples.vae import make_system, mean_image_error, reconstruct


def test_digits_never_seen_come_back_with_a_third_of_the_mean_images_error() -> None:
    train, test = load_digits()
    result = pj.run_lockstep(make_system(train.images), interactions=400)
    params = result.learner.trainers["vae"].state.params
    error = float(np.mean((np.asarray(reconstruct(params, test.images)) - test.images) ** 2))
    assert mean_image_error(train, test) > 3 * error
    assert set(result.snapshot.params) == {"encoder"}
    assert result.snapshot.version == 35
    np.testing.assert_array_equal(
        result.snapshot.params["encoder"]["params"]["layers_0"]["kernel"],
        params["encoder"]["params"]["layers_0"]["kernel"],
    )
