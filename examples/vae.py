"""A variational autoencoder, learned from digits while an agent looks at them and tells their codes.

Encoder and decoder share one loss and one optimizer. Inference gets the encoder alone: nobody there ever needs to
decode. The agent's action is the code of what it sees, by the newest encoder.

Kingma and Welling 2014, arXiv:1312.6114. Run: `python -m examples.vae`
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
from examples.digits import PIXELS, Digits, DigitStream, load_digits, observation, one_of_each
from examples.drawings.vae import draw

LATENTS = 12
STEPS = 16
NOISE = 0.22  # what a pixel may differ by at little cost: smaller means sharper images and a wilder prior

encoder = nn.Sequential([nn.Dense(128), nn.gelu, nn.Dense(2 * LATENTS)])
decoder = nn.Sequential([nn.Dense(128), nn.gelu, nn.Dense(PIXELS), nn.sigmoid])


def encode(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and log variance of the codes, `[..., LATENTS]` each."""
    mean, log_variance = jnp.split(encoder.apply(params, images), 2, axis=-1)
    return mean, log_variance


def loss_fn(params: Any, images: jax.Array, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative evidence lower bound, up to a constant.

    Args:
        params: `{"encoder": ..., "decoder": ...}`.
        images: `[B, 64]`.
        rng_key: consumed.
    """
    mean, log_variance = encode(params["encoder"], images)
    code = mean + jnp.exp(log_variance / 2) * jax.random.normal(rng_key, mean.shape)
    error = jnp.mean((decoder.apply(params["decoder"], code) - images) ** 2)
    divergence = jnp.mean(jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1, axis=-1)) / 2
    return PIXELS * error / (2 * NOISE**2) + divergence, {"error": error, "divergence": divergence}


def act(params: Mapping[str, Any], carry: Any, image: jax.Array, rng_key: jax.Array) -> Any:
    """Tell the code of what is seen, `[LATENTS]`."""
    return carry, encode(params["encoder"], image)[0], {}


def make_system(images: np.ndarray, *, seed: int = 0) -> pj.System:
    """Return a system that learns to encode and decode the images it is shown.

    Args:
        images: `[N, 64]`.
        seed: of the first parameters.
    """
    encoder_key, decoder_key = jax.random.split(jax.random.key(seed))
    trainer = pj.gradient_trainer(loss_fn, optax.adam(2e-3), trains=("encoder", "decoder"), publishes=("encoder",))
    return pj.System(
        models={
            "encoder": pj.Model(encoder.init(encoder_key, images[0]), encode),
            "decoder": pj.Model(decoder.init(decoder_key, jnp.zeros(LATENTS)), infer=False),
        },
        buffers={"seen": pj.ring_buffer(2_000)},
        trainers={
            "vae": pj.Schedule(trainer, data="seen", batch_size=128, steps=STEPS, when=pj.min_size(128) & pj.min_new(8))
        },
        interaction=pj.Interaction(
            pj.Agent(act), DigitStream(images, action=np.zeros(LATENTS, np.float32)), collect={"seen": observation}
        ),
    )


def reconstruct(params: Mapping[str, Any], images: np.ndarray) -> jax.Array:
    """Return the images `[N, 64]` as they come back from their codes."""
    return decoder.apply(params["decoder"], encode(params["encoder"], images)[0])


def mean_image_error(train: Digits, test: Digits) -> float:
    """Return the squared error of the best answer that does not look: the mean image."""
    return float(np.mean((test.images - train.images.mean(axis=0, keepdims=True)) ** 2))


def sample(params: Mapping[str, Any], count: int) -> jax.Array:
    """Return images `[count, 64]` that nobody has drawn: random codes, decoded."""
    return decoder.apply(params["decoder"], jax.random.normal(jax.random.key(0), (count, LATENTS)))


def main(interactions: int = 4_000, directory: Path = figures.RUNS) -> None:
    """Look at some thousand digits, print how well they are reconstructed, and draw it."""
    train, test = load_digits()
    result = pj.run_lockstep(make_system(train.images), interactions)
    params = result.learner.trainers["vae"].state.params
    error = float(jnp.mean((reconstruct(params, test.images) - test.images) ** 2))
    blind = mean_image_error(train, test)
    print(f"held-out error {error:.4f}, the mean image's {blind:.4f}: {blind / error:.1f} times as much")
    print(f"inference has seen {result.snapshot.version} versions of: {', '.join(result.snapshot.params)}")
    originals = np.concatenate([one_of_each(test, nth) for nth in range(2)])
    errors = [float(metrics["error"]) for _, metrics in result.metrics]
    figure = draw(errors, (error, blind), originals, reconstruct(params, originals), sample(params, 40), STEPS)
    print(f"figure: {figures.save(figure, 'vae', directory)}")


if __name__ == "__main__":
    main()
