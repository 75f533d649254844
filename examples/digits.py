"""Scikit-learn's handwritten digits, real images of 8 x 8 pixels: as arrays, and as something to look at.

Alpaydin and Kaynak 1998, doi:10.24432/C50P49. They are shipped in scikit-learn; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import sklearn.datasets

import pamiq_jax as pj

SIDE = 8
PIXELS = SIDE * SIDE


class Digits(NamedTuple):
    """Some of the images.

    Attributes:
        images: float32 `[N, 64]` in [0, 1], 1 being ink.
        labels: `[N]`, which digit it is.
    """

    images: np.ndarray
    labels: np.ndarray


def load_digits(*, held_out: int = 397, seed: int = 0) -> tuple[Digits, Digits]:
    """Return the images to learn from and those held out, in random order.

    Args:
        held_out: how many of the 1,797 are held out.
        seed: of the order.
    """
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = np.float32(images[order] / 16), labels[order]
    return Digits(images[held_out:], labels[held_out:]), Digits(images[:held_out], labels[:held_out])


class DigitStream:
    """An environment that shows one digit after the other, for ever, and is indifferent to what is done.

    Args:
        images: `[N, 64]`; all are shown, in random order, before any is shown again.
        action: example of what an agent does.
    """

    def __init__(self, images: np.ndarray, action: Any) -> None:
        self.spec = pj.EnvironmentSpec(observation=images[0], action=action, feedback={})
        self._images = images

    def reset(self, seed: int) -> None:
        """Begin in an order that the seed decides."""
        self._random = np.random.default_rng(seed)
        self._order = np.zeros(0, np.int64)  # of the images that have not been shown in this round

    def observe(self) -> np.ndarray:
        """Return the next image `[64]`."""
        if not self._order.size:
            self._order = self._random.permutation(len(self._images))
        number, self._order = self._order[0], self._order[1:]
        return self._images[number]

    def affect(self, action: Any) -> Mapping[str, Any]:
        """Take no notice."""
        return {}

    def save_state(self) -> Mapping[str, Any]:
        """Return which images are still to come, and how the next rounds will be shuffled."""
        return {"order": self._order, "random": self._random.bit_generator.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the image that would have come next."""
        self._order, self._random.bit_generator.state = state["order"], state["random"]

    def close(self) -> None:
        """Hold nothing that would have to be released."""


def observation(record: Mapping[str, Any]) -> np.ndarray:
    """Return what is stored of a record: the image alone."""
    return record["observation"]


def one_of_each(digits: Digits, nth: int = 0) -> np.ndarray:
    """Return ten images `[10, 64]`, of a 0 to a 9.

    Args:
        digits: where to take them from.
        nth: which one of each, from 0 on.
    """
    return digits.images[[np.flatnonzero(digits.labels == label)[nth] for label in range(10)]]


def tile(images: Any, columns: int) -> np.ndarray:
    """Return images `[N, 64]` as one picture, side by side and row by row, with a pixel of margin between them.

    Args:
        images: a multiple of `columns`.
        columns: how many there are in a row.
    """
    margin = np.pad(np.asarray(images).reshape(-1, columns, SIDE, SIDE), ((0, 0), (0, 0), (0, 1), (0, 1)))
    return margin.transpose(0, 2, 1, 3).reshape(-1, columns * (SIDE + 1))[:-1, :-1]
