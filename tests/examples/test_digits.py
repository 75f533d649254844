from __future__ import annotations

import numpy as np
import pytest

from examples.digits import DigitStream, load_digits, one_of_each, tile


def test_no_digit_is_held_out_and_learned_from() -> None:
    train, test = load_digits()
    assert (train.images.shape, test.images.shape) == ((1400, 64), (397, 64))
    assert (train.images.min(), train.images.max()) == (0, 1)
    everything = np.concatenate([train.images, test.images])
    assert len(np.unique(everything, axis=0)) == 1797


def test_the_stream_shows_the_same_digits_for_the_same_seed() -> None:
    stream = DigitStream(load_digits()[0].images, action=np.float32(0))
    shown = []
    for seed in (1, 1, 2):
        stream.reset(seed)
        shown.append(np.stack([stream.observe() for _ in range(5)]))
    np.testing.assert_array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])


def test_one_of_each_is_a_0_to_a_9() -> None:
    _, test = load_digits()
    for label, image in enumerate(one_of_each(test, 1)):
        (place,) = np.flatnonzero((test.images == image[None]).all(axis=1))
        assert test.labels[place] == label


@pytest.mark.parametrize(("columns", "shape"), [(2, (26, 17)), (6, (8, 53)), (1, (53, 8))])
def test_tiles_have_a_pixel_between_them(columns: int, shape: tuple[int, int]) -> None:
    picture = tile(np.ones((6, 64)), columns)
    assert picture.shape == shape
    assert picture.sum() == 6 * 64
