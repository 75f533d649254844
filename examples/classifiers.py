"""A convolutional classifier with batch norm and dropout, in flax.linen, flax.nnx and equinox, used while it learns.

An agent is shown one of scikit-learn's digits after the other and says which it is, with running averages and
without dropout; what the digit was is told afterwards, and a trainer learns from that.

Run: `python -m examples.classifiers`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import pamiq_jax as pj
from examples.digits import SIDE, Digits, load_digits
from pamiq_jax import equinox as pj_equinox
from pamiq_jax.flax import linen_trainer, nnx_trainer, split_module

CLASSES = 10
STEPS = 16
RUNS = 30  # of 16 steps on 64 digits: about 22 times each
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(6e-3, STEPS * RUNS))


class LinenClassifier(nn.Module):
    """Two convolutions, and a layer on top."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits `[B, 10]` for images `[B, 64]`."""
        x = images.reshape(-1, SIDE, SIDE, 1)
        for features, stride in ((16, 2), (32, 1)):
            x = nn.Conv(features, (3, 3), strides=stride, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.3, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(CLASSES)(x)


class NnxClassifier(nnx.Module):
    """The same in flax.nnx."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convolutions = nnx.List(
            [
                nnx.Conv(1, 16, (3, 3), strides=2, use_bias=False, rngs=rngs),
                nnx.Conv(16, 32, (3, 3), use_bias=False, rngs=rngs),
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(features, momentum=0.9, rngs=rngs) for features in (16, 32)])
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(32 * (SIDE // 2) ** 2, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits `[B, 10]` for images `[B, 64]`."""
        x = images.reshape(-1, SIDE, SIDE, 1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nnx.relu(norm(convolution(x)))
        return self.head(self.dropout(x.reshape(len(x), -1)))


class EquinoxClassifier(eqx.Module):
    """The same in equinox, for one image."""

    convolutions: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.BatchNorm]
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, rng_key: jax.Array) -> None:
        first, second, third = jax.random.split(rng_key, 3)
        self.convolutions = [
            eqx.nn.Conv2d(1, 16, 3, stride=2, padding=1, use_bias=False, key=first),
            eqx.nn.Conv2d(16, 32, 3, padding=1, use_bias=False, key=second),
        ]
        self.norms = [eqx.nn.BatchNorm(features, "batch", momentum=0.9, mode="batch") for features in (16, 32)]
        self.dropout = eqx.nn.Dropout(0.3)
        self.head = eqx.nn.Linear(32 * (SIDE // 2) ** 2, CLASSES, key=third)

    def __call__(self, image: jax.Array, state: Any, rng_key: jax.Array | None = None) -> Any:
        """Return logits `[10]` for an image `[64]`, and the state."""
        x = image.reshape(1, SIDE, SIDE)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x, state = norm(convolution(x), state)
            x = jax.nn.relu(x)
        return self.head(self.dropout(x.reshape(-1), key=rng_key)), state


class Variant(NamedTuple):
    """A model in one library: how it is used, and how it is trained."""

    model: pj.Model
    trainer: pj.Trainer[Any, Any]


def entropy(logits: jax.Array, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the mean cross-entropy, and how many were right."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    return loss, {"right": jnp.mean((logits.argmax(-1) == batch["label"]).astype(jnp.float32))}


def linen_variant(*, seed: int = 0) -> Variant:
    """Return the classifier in flax.linen."""
    module = LinenClassifier()

    def loss_fn(variables: Any, batch: Any, rngs: Any) -> Any:
        logits, updates = module.apply(variables, batch["image"], train=True, mutable=["batch_stats"], rngs=rngs)
        loss, metrics = entropy(logits, batch)
        return loss, (updates, metrics)

    variables = module.init(jax.random.key(seed), np.zeros((1, SIDE * SIDE), np.float32))
    return Variant(pj.Model(variables, module.apply), linen_trainer(loss_fn, OPTIMIZER, model="classifier"))


def nnx_variant(*, seed: int = 0) -> Variant:
    """Return the classifier in flax.nnx."""
    parts = split_module(NnxClassifier(nnx.Rngs(seed)))

    def loss_fn(module: Any, batch: Any) -> Any:
        return entropy(module(batch["image"]), batch)

    return Variant(pj.Model(parts.params, parts.apply), nnx_trainer(parts, loss_fn, OPTIMIZER, model="classifier"))


def equinox_variant(*, seed: int = 0) -> Variant:
    """Return the classifier in equinox."""
    parts = pj_equinox.split_module(*eqx.nn.make_with_state(EquinoxClassifier)(jax.random.key(seed)))

    def batched(module: Any, images: jax.Array, state: Any, rng_keys: Any = None) -> Any:
        of_one = jax.vmap(module, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
        return of_one(images, state, rng_keys)

    def loss_fn(module: Any, state: Any, batch: Any, rng_key: jax.Array) -> Any:
        logits, state = batched(module, batch["image"], state, jax.random.split(rng_key, len(batch["image"])))
        loss, metrics = entropy(logits, batch)
        return loss, (state, metrics)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return parts.apply(params, images, method=batched)

    trainer = pj_equinox.equinox_trainer(parts, loss_fn, OPTIMIZER, model="classifier")
    return Variant(pj.Model(parts.params, apply), trainer)


VARIANTS: dict[str, Callable[[], Variant]] = {
    "flax.linen": linen_variant,
    "flax.nnx": nnx_variant,
    "equinox": equinox_variant,
}


class LabelledDigits:
    """An environment that shows a digit, is told a guess, and answers with the digit's name."""

    def __init__(self, digits: Digits) -> None:
        self.spec = pj.EnvironmentSpec(
            observation=digits.images[0], action=np.int32(0), feedback={"label": np.int32(0), "right": np.float32(0)}
        )
        self._digits = digits

    def reset(self, seed: int) -> None:
        """Begin in an order that the seed decides."""
        self._random = np.random.default_rng(seed)

    def observe(self) -> np.ndarray:
        """Return an image `[64]`."""
        self._number = int(self._random.integers(len(self._digits.images)))
        return self._digits.images[self._number]

    def affect(self, guess: Any) -> Mapping[str, Any]:
        """Return which digit it was, and whether the guess was right."""
        label = np.int32(self._digits.labels[self._number])
        return {"label": label, "right": np.float32(guess == label)}

    def save_state(self) -> Any:
        """Return what the next digits depend on."""
        return self._random.bit_generator.state

    def load_state(self, state: Any) -> None:
        """Go on from there."""
        self._random.bit_generator.state = state

    def close(self) -> None:
        """Hold nothing that would have to be released."""


def labelled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a record."""
    return {"image": record["observation"], "label": record["label"]}


def make_system(variant: Variant, digits: Digits) -> pj.System:
    """Return a system that learns to tell the digits that it is shown.

    Args:
        variant: the model and its trainer.
        digits: to learn from.
    """
    apply = variant.model.apply
    assert apply is not None

    def act(params: Mapping[str, Any], carry: Any, image: jax.Array, rng_key: jax.Array) -> Any:
        guess = apply(params["classifier"], image[None]).argmax(-1)[0]
        return carry, guess.astype(jnp.int32), {}

    schedule = pj.Schedule(variant.trainer, data="seen", batch_size=64, steps=STEPS, when=pj.min_size(1_000))
    return pj.System(
        models={"classifier": variant.model},
        buffers={"seen": pj.ring_buffer(4_000)},
        trainers={"classifier": schedule},
        interaction=pj.Interaction(pj.Agent(act), LabelledDigits(digits), 0.0005, collect={"seen": labelled}),
    )


def accuracy(variant: Variant, params: Any, digits: Digits) -> float:
    """Return how many of the digits the classifier tells, as inference uses it."""
    apply = variant.model.apply
    assert apply is not None
    logits = apply(params, digits.images)
    return float(np.mean(np.argmax(logits, -1) == digits.labels))


def learn_live(variant: Variant, *, runs: int = RUNS, timeout: float = 120.0) -> tuple[pj.Snapshot, int]:
    """Return what an agent acted with in the end, and how often it had acted by then.

    Args:
        variant: the model and its trainer.
        runs: of 16 steps.
        timeout: seconds that it may take.
    """
    with pj.launch(make_system(variant, load_digits()[0])) as run:
        snapshot = run.wait_for_version(runs, timeout=timeout)
        return snapshot, run.status.inference.ticks


def main() -> None:
    """Learn in each library, and say how well."""
    _, test = load_digits()
    for name, make in VARIANTS.items():
        variant = make()
        snapshot, ticks = learn_live(variant)
        right = accuracy(variant, snapshot.params["classifier"], test)
        print(f"{name}: {right:.1%} of held-out digits after {ticks:,} guesses and {snapshot.step:,} steps")


if __name__ == "__main__":
    main()
