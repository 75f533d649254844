from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import pamiq_jax as pj
from examples.digits import load_digits
from examples.jepa import (
    FEATURES,
    effective_rank,
    embed,
    make_system,
    principal_components,
    probe,
    random_masks,
    whiten,
)


def test_a_linear_probe_reads_the_frozen_target_better_than_principal_components() -> None:
    train, test = load_digits()
    result = pj.run_lockstep(make_system(train.images), interactions=2_500)
    assert set(result.snapshot.params) == {"target"}
    embeddings = (partial(embed, result.snapshot.params["target"]), principal_components(train.images))
    for labels_per_digit, margin in ((10, 0.02), (100, 0.0)):
        learned, linear = (
            probe(embedding, train, test, labels_per_digit=labels_per_digit, draws=5) for embedding in embeddings
        )
        assert learned > linear + margin

    features = np.asarray(embed(result.snapshot.params["target"], test.images))
    assert features.std(axis=0).min() > 1  # it began at 0.1
    assert effective_rank(features) > 6


def test_a_collapse_would_be_seen() -> None:
    line = np.linspace(-1, 1, 50)[:, None] * np.ones((1, FEATURES))
    assert effective_rank(line) < 1.01
    assert effective_rank(np.random.default_rng(0).normal(size=(5_000, FEATURES))) > FEATURES - 0.1


def test_masks_hide_whole_quarters() -> None:
    masks = np.asarray(random_masks(jax.random.key(0), 500)).reshape(500, 2, 4, 2, 4)
    assert np.array_equal(masks.min(axis=(2, 4)), masks.max(axis=(2, 4)))
    assert 0.57 < masks.mean() < 0.63


def test_whitened_features_have_the_unit_matrix_as_covariance() -> None:
    features = jax.random.normal(jax.random.key(0), (64, FEATURES)) @ jax.random.normal(
        jax.random.key(1), (FEATURES, FEATURES)
    )
    white = whiten(features + 5.0)
    np.testing.assert_allclose(white.T @ white / 64, jnp.eye(FEATURES), atol=0.02)
