"""Small multilayer perceptrons: parameters as a list of layers."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

type Layers = list[dict[str, jax.Array]]
"""One `{"kernel": [in, out], "bias": [out]}` per layer."""


def init_network(sizes: tuple[int, ...], output_scale: float, generator: np.random.Generator) -> Layers:
    """Return orthogonal kernels and zero biases, float32.

    Drawn by numpy: compiling the draws for every shape would hold up the start by more than a second.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        output_scale: of the last kernel; the others are scaled by the square root of 2.
        generator: advanced.

    Example:
        >>> layers = init_network((4, 8, 2), 0.01, np.random.default_rng(0))
        >>> [layer["kernel"].shape for layer in layers]
        [(4, 8), (8, 2)]
    """
    scales = [2.0**0.5] * (len(sizes) - 2) + [output_scale]
    return [
        {
            "kernel": jnp.asarray(scale * _orthogonal(shape, generator), jnp.float32),
            "bias": jnp.asarray(np.zeros(shape[1], np.float32)),
        }
        for scale, shape in zip(scales, pairwise(sizes), strict=True)
    ]


def _orthogonal(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    rows, columns = shape
    kernel, triangle = np.linalg.qr(generator.normal(size=(max(shape), min(shape))))
    kernel = kernel * np.sign(np.diag(triangle))  # without it QR prefers some of the orthogonal matrices
    return kernel if rows >= columns else kernel.T


def apply_network(layers: Layers, inputs: jax.typing.ArrayLike) -> jax.Array:
    """Return the network's output `[..., out]`, with tanh between the layers.

    Args:
        layers: from `init_network`.
        inputs: `[..., in]`.

    Example:
        >>> layers = init_network((4, 8, 2), 0.01, np.random.default_rng(0))
        >>> apply_network(layers, jnp.zeros((5, 4))).shape
        (5, 2)
    """
    outputs = jnp.asarray(inputs)
    for index, layer in enumerate(layers):
        if index:
            outputs = jnp.tanh(outputs)
        bias = layer["bias"].reshape((1,) * (outputs.ndim - 1) + (-1,))
        outputs = outputs @ layer["kernel"] + bias
    return outputs
