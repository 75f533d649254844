from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import mix_samples, mixed_buffer, reservoir_buffer, ring_buffer, sequence_buffer
from pamiq_jax.data.mix import mixed_shares
from pamiq_jax.errors import InvalidValueError, RecordMismatchError

KEY = jax.random.key(0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 500))
def test_shares_add_up_and_are_off_by_less_than_one(weights: list[int], batch_size: int) -> None:
    try:
        shares = mixed_shares(weights, batch_size)
    except InvalidValueError:
        assert batch_size * min(weights) < sum(weights)
        return
    assert sum(shares) == batch_size
    assert all(
        abs(share - batch_size * weight / sum(weights)) < 1 for share, weight in zip(shares, weights, strict=True)
    )


NEWEST_AND_RECENT = mixed_buffer([ring_buffer(4), ring_buffer(7, sampling="in_order")], [1, 2])
ADD, SAMPLE = jax.jit(NEWEST_AND_RECENT.add), jax.jit(NEWEST_AND_RECENT.sample, static_argnums=1)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), max_size=10), st.integers(0, 9))
def test_agrees_with_a_list_for_each_part(counts: list[int], position: int) -> None:
    state, number = NEWEST_AND_RECENT.init(jnp.int32(0)), 0
    for count in counts:
        state, number = ADD(state, jnp.arange(number, number + 4), count), number + count
    model = list(range(number))
    assert int(NEWEST_AND_RECENT.size(state)) == len(model[-4:])
    if len(model) >= NEWEST_AND_RECENT.required(6):
        batch = SAMPLE(state, 6, position, KEY).tolist()
        assert set(batch[:2]) <= set(model[-4:])
        recent = model[-7:]
        assert batch[2:] == [recent[(4 * position + row) % len(recent)] for row in range(4)]


def test_a_batch_has_the_same_share_of_each_buffer_at_every_position() -> None:
    buffers = [ring_buffer(8), reservoir_buffer(4), ring_buffer(5, sampling="epochs")]
    states = tuple(
        jax.jit(buffer.add)(buffer.init({"x": jnp.int32(0)}), {"x": 100 * place + jnp.arange(4)}, 4)
        for place, buffer in enumerate(buffers)
    )
    sample = jax.jit(mix_samples(buffers, [2, 1, 1]), static_argnums=1)
    batches = [sample(states, 8, position, KEY)["x"] for position in range(3)]
    assert [(batch // 100).tolist() for batch in batches] == [[0, 0, 0, 0, 1, 1, 2, 2]] * 3
    assert len({tuple(batch.tolist()) for batch in batches}) == 3


def test_buffers_of_one_kind_draw_independently() -> None:
    buffers = [ring_buffer(1000)] * 2
    states = tuple(buffer.add(buffer.init(jnp.int32(0)), jnp.arange(1000), 1000) for buffer in buffers)
    batch = mix_samples(buffers, [1, 1])(states, 16, 0, KEY)
    assert batch[:8].tolist() != batch[8:].tolist()


def test_a_mixed_buffer_puts_each_record_into_all() -> None:
    buffer = mixed_buffer([ring_buffer(2), ring_buffer(6)], [1, 1])
    add, state = jax.jit(buffer.add), buffer.init(jnp.int32(0))
    for start in range(0, 6, 2):
        state = add(state, jnp.arange(start, start + 2), 2)
    assert [part.records.tolist() for part in state] == [[4, 5], [0, 1, 2, 3, 4, 5]]
    batch = buffer.sample(state, 40, 0, KEY)
    assert set(batch[:20].tolist()) == {4, 5}
    assert set(batch[20:].tolist()) == {0, 1, 2, 3, 4, 5}


def test_a_mixed_buffer_asks_for_what_its_neediest_part_does() -> None:
    newest, epochs = ring_buffer(50, example=0.0), ring_buffer(8, sampling="epochs")
    buffer = mixed_buffer([newest, epochs], [3, 1])
    assert (buffer.capacity, buffer.required(24), buffer.stable_in_run, buffer.example) == (8, 6, True, 0.0)
    assert buffer.can_sample is None


def test_it_can_be_sampled_once_each_part_can() -> None:
    never = sequence_buffer(4, window=2, starts_segment=lambda data: data > -1)
    buffers = [sequence_buffer(4, window=2), never]
    for parts, expected in ((buffers, False), (buffers[:1] * 2, True)):
        buffer: Any = mixed_buffer(parts, [1, 1])
        state = buffer.add(buffer.init(jnp.int32(0)), jnp.arange(3), 3)
        assert bool(buffer.can_sample(state)) is expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mix_samples([ring_buffer(2)], [1, 2]),
            r"mix_samples\(weights\) is \[1, 2\], expected one for each of 1",
        ),
        (lambda: mix_samples([], []), r"mix_samples\(weights\) is \[\]"),
        (lambda: mixed_buffer([ring_buffer(2)] * 2, [1, 0]), r"mixed_buffer\(weights\) is \[1, 0\].*leave out"),
        (
            lambda: mixed_buffer([ring_buffer(2), ring_buffer(2, placement="host")], [1, 1]),
            r"mixed_buffer\(buffers\) is \['device', 'host'\], expected one placement",
        ),
        (lambda: mixed_buffer([ring_buffer(2)] * 2, [1, 9]).required(4), "is 4, .*buffer number 0 would never"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        call()


def test_batches_that_are_not_alike_are_refused_by_leaf() -> None:
    buffers = [ring_buffer(2), ring_buffer(2)]
    states = (buffers[0].init({"x": 0.0}), buffers[1].init({"x": 0}))
    with pytest.raises(
        RecordMismatchError, match=r"number 0 and 1 can't be mixed: leaf \['x'\]: expected float32\[1\]"
    ):
        mix_samples(buffers, [1, 1])(states, 2, 0, KEY)
