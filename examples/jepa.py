"""A joint-embedding predictive architecture: it predicts what it cannot see, but not a single pixel of it.

Of each digit the context encoder sees some quarters. From its features, and from which quarters these were, the
predictor guesses the features that the target encoder has of the whole digit. The target is a moving average of the
context encoder, gets no gradient, and is all that inference ever sees. That everything becomes the same would be an
easy way out: so what is to be guessed is whitened, which leaves no direction out.

Assran et al. 2023, arXiv:2301.08243; the moving average: Grill et al. 2020, arXiv:2006.07733; whitening: Ermolov et al.
2021, arXiv:2007.06346. Run: `python -m examples.jepa`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

import pamiq_jax as pj
from examples import figures
from examples.digits import PIXELS, Digits, DigitStream, load_digits, observation
from examples.drawings.jepa import draw
from pamiq_jax.trainer import with_targets

FEATURES, WIDTH = 8, 128
STEPS = 16
HIDDEN = 0.4  # of the quarters of an image

type Embedding = Callable[[np.ndarray], Any]
"""`(images [N, 64]) -> features [N, FEATURES]`."""


def network(layers: int) -> nn.Sequential:
    """Return a network of so many hidden layers, that gives `FEATURES` numbers."""
    hidden = [part for _ in range(layers) for part in (nn.Dense(WIDTH), nn.LayerNorm(), nn.gelu)]
    return nn.Sequential([*hidden, nn.Dense(FEATURES)])


encoder, predictor = network(2), network(1)


def embed(params: Any, images: jax.Array, visible: jax.Array | None = None) -> jax.Array:
    """Return the features `[..., FEATURES]` of images `[..., 64]`, of which `visible` is 1 where it can be seen."""
    visible = jnp.ones_like(images) if visible is None else visible
    return encoder.apply(params, jnp.concatenate([images * visible, visible], axis=-1))


def random_masks(rng_key: jax.Array, count: int) -> jax.Array:
    """Return masks `[count, 64]` that are 0 on random quarters of an image, and 1 on the others."""
    quarters = jax.random.bernoulli(rng_key, 1 - HIDDEN, (count, 2, 2)).astype(jnp.float32)
    return jnp.kron(quarters, jnp.ones((1, 4, 4))).reshape(count, PIXELS)


def whiten(features: jax.Array) -> jax.Array:
    """Return features `[B, FEATURES]` of mean 0 and variance 1, none of which follows from the others: Gram-Schmidt."""
    rest, white = features - jnp.mean(features, axis=0, keepdims=True), []
    for number in range(FEATURES):
        white.append(rest[:, number] / jnp.sqrt(jnp.mean(rest[:, number] ** 2) + 1e-4))
        rest -= jnp.outer(white[-1], white[-1] @ rest / len(rest))
    return jnp.stack(white, axis=1)


def loss_fn(params: Any, images: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return how far the predictor's guesses are from the target's features; 1 is what not looking would get.

    Args:
        params: `{"context": ..., "predictor": ..., "target": ...}`, the target being constant.
        images: `[B, 64]`.
        rng_key: consumed.
    """
    visible = random_masks(rng_key, len(images))
    goal = embed(params["target"], images)
    seen = embed(params["context"], images, visible)
    guess = predictor.apply(params["predictor"], jnp.concatenate([seen, visible], axis=-1))
    return jnp.mean((guess - whiten(goal)) ** 2), {"least_deviation": jnp.min(jnp.std(goal, axis=0))}


def act(params: Mapping[str, Any], carry: Any, image: jax.Array, rng_key: jax.Array) -> Any:
    """Tell the features of what is seen, `[FEATURES]`."""
    return carry, embed(params["target"], image), {}


def make_system(images: np.ndarray, *, seed: int = 0) -> pj.System:
    """Return a system that learns features of the images it is shown, without labels.

    Args:
        images: `[N, 64]`.
        seed: of the first parameters.
    """
    context_key, predictor_key = jax.random.split(jax.random.key(seed))
    context = encoder.init(context_key, jnp.zeros(2 * PIXELS))
    trainer = with_targets(
        pj.gradient_trainer(loss_fn, optax.adam(2e-3), trains=("context", "predictor"), reads=("target",)),
        {"target": "context"},
        decay=0.99,
        publishes=("target",),
    )
    return pj.System(
        models={
            "context": pj.Model(context, infer=False),
            "predictor": pj.Model(predictor.init(predictor_key, jnp.zeros(FEATURES + PIXELS)), infer=False),
            "target": pj.Model(context, embed),
        },
        buffers={"seen": pj.ring_buffer(2_000)},
        trainers={
            "jepa": pj.Schedule(
                trainer, data="seen", batch_size=256, steps=STEPS, when=pj.min_size(512) & pj.min_new(32)
            )
        },
        interaction=pj.Interaction(
            pj.Agent(act), DigitStream(images, action=np.zeros(FEATURES, np.float32)), collect={"seen": observation}
        ),
    )


def principal_components(images: np.ndarray) -> Embedding:
    """Return the linear counterpart of what is learned: a function from images to as many principal components."""
    return PCA(FEATURES).fit(images).transform


def probe(embedding: Embedding, train: Digits, test: Digits, *, labels_per_digit: int, draws: int = 10) -> float:
    """Return what share of the test digits a linear classifier reads right from frozen features.

    Args:
        embedding: `(images [N, 64]) -> features [N, FEATURES]`.
        train: where the labels come from.
        test: digits that neither the embedding nor the classifier has seen.
        labels_per_digit: how many labeled examples of each digit the classifier gets.
        draws: over how many random choices of these the result is averaged.
    """
    features, unseen = np.asarray(embedding(train.images)), np.asarray(embedding(test.images))
    mean, deviation = features.mean(axis=0, keepdims=True), features.std(axis=0, keepdims=True)
    features, unseen = (features - mean) / deviation, (unseen - mean) / deviation
    scores: list[float] = []
    for random in map(np.random.default_rng, range(draws)):
        places = [random.permutation(np.flatnonzero(train.labels == label))[:labels_per_digit] for label in range(10)]
        chosen = np.concatenate(places)
        classifier = LogisticRegression(max_iter=1_000).fit(features[chosen], train.labels[chosen])
        scores.append(float(classifier.score(unseen, test.labels)))
    return float(np.mean(scores))


def effective_rank(features: np.ndarray) -> float:
    """Return how many directions `[N, FEATURES]` spread into: from 1, if all lie on a line, to `FEATURES`.

    The exponential of the entropy of the covariance's spectrum: Roy and Vetterli 2007.
    """
    spectrum = np.linalg.eigvalsh(np.cov(features.T))
    shares = np.maximum(spectrum / spectrum.sum(), 1e-12)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def main(interactions: int = 5_000, directory: Path = figures.RUNS) -> None:
    """Learn features without labels, print how well digits are read from them, and draw it."""
    train, test = load_digits()
    system = make_system(train.images)
    result = pj.run_lockstep(system, interactions)
    embeddings = {
        "JEPA": partial(embed, result.snapshot.params["target"]),
        "PCA": principal_components(train.images),
        "untrained": partial(embed, system.models["target"].params),
    }
    counts = (1, 2, 5, 10, 20, 50, 100)
    scores = {
        name: [probe(embedding, train, test, labels_per_digit=count) for count in counts]
        for name, embedding in embeddings.items()
    }
    features = {name: np.asarray(embedding(test.images)) for name, embedding in embeddings.items()}
    for name, accuracy in scores.items():
        print(f"{name}: {accuracy[3]:.1%} right with 10 labels of each digit, {accuracy[-1]:.1%} with 100")
    print(f"JEPA's features have an effective rank of {effective_rank(features['JEPA']):.1f} out of {FEATURES}")
    deviations = [float(metrics["least_deviation"]) for _, metrics in result.metrics]
    table = dict(zip(counts, zip(*scores.values(), strict=True), strict=True))
    figure = draw(table, features, test, deviations, STEPS)
    print(f"figure: {figures.save(figure, 'jepa', directory)}")


if __name__ == "__main__":
    main()
