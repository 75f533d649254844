"""A generative adversarial network with two critics: one judges images as a whole, the other their corners.

Three trainers take turns in one step. Each trains one model and reads the others, as constants. Only the generator is
published: the agent draws with it what it thinks digits look like, while it is shown real ones.

Goodfellow et al. 2014, arXiv:1406.2661; several discriminators: Durugkar et al. 2017, arXiv:1611.01673; their gradient
penalty: Mescheder et al. 2018, arXiv:1801.04406. Run: `python -m examples.gan`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures
from examples.digits import PIXELS, SIDE, DigitStream, load_digits, observation
from examples.drawings.gan import draw
from pamiq_jax.runtime import InferReport
from pamiq_jax.trainer import Trainer, alternate

LATENTS, DRAWINGS = 16, 10
PENALTY = 0.3

PIXEL_NUMBERS = np.arange(PIXELS).reshape(SIDE, SIDE)
VIEWS = {  # what each critic sees of an image, as pixel numbers `[K, pixels]`
    "whole": PIXEL_NUMBERS.reshape(1, PIXELS),
    "corners": np.lib.stride_tricks.sliding_window_view(PIXEL_NUMBERS, (5, 5))[::3, ::3].reshape(4, 25),
}

generator = nn.Sequential([nn.Dense(128), nn.gelu, nn.Dense(128), nn.gelu, nn.Dense(PIXELS), nn.sigmoid])
critic_network = nn.Sequential([nn.Dense(128), nn.gelu, nn.Dense(128), nn.gelu, nn.Dense(1)])


def judge(critic: str, params: Any, images: jax.Array) -> jax.Array:
    """Return how genuine a critic thinks each view of the images `[B, 64]` is, as logits `[B, K]`."""
    return critic_network.apply(params, images[:, VIEWS[critic]])[..., 0]


def draw_images(params: Any, rng_key: jax.Array, count: int) -> jax.Array:
    """Return `count` images of the generator `[count, 64]`."""
    return generator.apply(params, jax.random.normal(rng_key, (count, LATENTS)))


def critic_trainer(critic: str) -> Trainer[Any, Any]:
    """Return a trainer of one critic, which learns to tell real images from the generator's."""

    def loss_fn(params: Any, images: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        fakes = draw_images(params["generator"], rng_key, len(images))
        real, pull_back = jax.vjp(lambda images: judge(critic, params[critic], images), images)
        steepness = jnp.mean(jnp.sum(pull_back(jnp.ones_like(real))[0] ** 2, axis=-1))
        fake = judge(critic, params[critic], fakes)
        loss = jnp.mean(nn.softplus(-real) + nn.softplus(fake)) + PENALTY / 2 * steepness
        return loss, {"right": (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2}

    tx = optax.adam(1e-3, b1=0.5)
    return pj.gradient_trainer(loss_fn, tx, trains=(critic,), reads=("generator",), publishes=())


def generator_trainer() -> Trainer[Any, Any]:
    """Return a trainer of the generator, which learns to please both critics."""

    def loss_fn(params: Any, images: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        fakes = draw_images(params["generator"], rng_key, len(images))
        return sum(jnp.mean(nn.softplus(-judge(critic, params[critic], fakes))) for critic in VIEWS), {}

    return pj.gradient_trainer(loss_fn, optax.adam(1e-3, b1=0.5), trains=("generator",), reads=tuple(VIEWS))


def act(params: Mapping[str, Any], ideas: jax.Array, image: jax.Array, rng_key: jax.Array) -> Any:
    """Draw one's standing ideas `[DRAWINGS, LATENTS]` with the newest generator; what is seen is for the critics."""
    return ideas, (), {"drawings": generator.apply(params["generator"], ideas)}


def make_system(images: np.ndarray, *, seed: int = 0) -> pj.System:
    """Return a system that learns to draw images like those it is shown.

    Args:
        images: `[N, 64]`.
        seed: of the first parameters.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    judges = {
        critic: pj.Model(critic_network.init(key, jnp.zeros(view.shape)), infer=False)
        for key, (critic, view) in zip(keys[1:], VIEWS.items(), strict=True)
    }
    trainer = alternate(*map(critic_trainer, VIEWS), generator_trainer())
    return pj.System(
        models={"generator": pj.Model(generator.init(keys[0], jnp.zeros(LATENTS)), draw_images), **judges},
        buffers={"seen": pj.ring_buffer(2_000)},
        trainers={
            "gan": pj.Schedule(trainer, data="seen", batch_size=64, steps=16, when=pj.min_size(256) & pj.min_new(4))
        },
        interaction=pj.Interaction(
            pj.Agent(act, init=lambda rng_key: jax.random.normal(rng_key, (DRAWINGS, LATENTS))),
            DigitStream(images, action=()),
            collect={"seen": observation},
        ),
    )


def precision_and_recall(real: np.ndarray, fake: np.ndarray, neighbors: int = 3) -> tuple[float, float]:
    """Return what share of the fakes lies among the real ones, and of the real ones among the fakes.

    To lie among others is to be nearer to one of them than its third neighbor is (Kynkäänniemi et al. 2019,
    arXiv:1904.06991). Low precision: what is drawn is no digit. Low recall: it is always the same few.

    Args:
        real: `[N, 64]`.
        fake: `[M, 64]`.
        neighbors: which neighbor, 3 being the third.
    """

    def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.linalg.norm(one[:, None] - other[None], axis=-1)

    def share_among(points: np.ndarray, others: np.ndarray) -> float:
        radius = np.sort(distances(others, others), axis=1)[:, neighbors]
        return float(np.mean(np.any(distances(points, others) <= radius[None], axis=1)))

    return share_among(fake, real), share_among(real, fake)


def main(interactions: int = 3_000, directory: Path = figures.RUNS) -> None:
    """Learn to draw digits, print how real they are, and show how drawing was learned."""
    train, test = load_digits()
    gallery: dict[int, np.ndarray] = {}  # by version

    def hang_up(report: InferReport) -> None:
        gallery.setdefault(report.version, np.asarray(report.extras["drawings"]))

    result = pj.run_lockstep(make_system(train.images), interactions, on_interaction=hang_up)
    drawings = np.asarray(draw_images(result.snapshot.params["generator"], jax.random.key(1), len(test.labels)))
    reached = precision_and_recall(test.images, drawings)
    possible = precision_and_recall(test.images, train.images[: len(test.labels)])
    print(f"{reached[0]:.0%} of what is drawn lies among held-out digits, of real digits {possible[0]:.0%} do")
    print(f"{reached[1]:.0%} of the held-out digits lie among drawings, among real digits {possible[1]:.0%} do")
    figure = draw(gallery, drawings, result.metrics, reached, possible)
    print(f"figure: {figures.save(figure, 'gan', directory)}")


if __name__ == "__main__":
    main()
