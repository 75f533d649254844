from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import Record, buffer_bytes, describe_buffer, sequence_buffer
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, UnknownNameError
from pamiq_jax.trees import nbytes

KEY = jax.random.key(0)
EXAMPLE = Record({"number": jnp.int32(0), "starts": False, "ends": False, "hidden": np.zeros(2, np.float32)}, 0)
BUFFERS = {
    (capacity, length, stride): sequence_buffer(
        capacity,
        window=length - length // 2,
        burn_in=length // 2,
        stride=stride,
        carry="hidden",
        starts_segment=lambda data: data["starts"],
        ends_segment=lambda data: data["ends"],
    )
    for capacity, length, stride in ((7, 3, 1), (6, 1, 2), (6, 6, 1), (8, 3, 2), (6, 4, 3), (8, 5, 4))
}
ADDS = {form: jax.jit(buffer.add) for form, buffer in BUFFERS.items()}


def windows_of(state: Any, capacity: int, length: int) -> list[list[int]]:
    """Return the numbers of the records in each window of the state's queue, oldest first."""
    queue = np.roll(np.asarray(state.ends), -int(state.first))[: int(state.windows)]
    records = state.ring.records
    numbers = np.asarray((records.data if isinstance(records, Record) else records)["number"])
    return [numbers[np.arange(end - length + 1, end + 1) % capacity].tolist() for end in queue]


def model_windows(segments: list[int], capacity: int, length: int, stride: int) -> list[list[int]]:
    """Return the same of a list with the segment of each record that came."""
    oldest = max(0, len(segments) - capacity)
    starts = [start for start in range(oldest, len(segments) - length + 1) if start % stride == 0]
    ranges = [range(start, start + length) for start in starts]
    return [list(numbers) for numbers in ranges if len({segments[number] for number in numbers}) == 1]


def carry_of(numbers: Any) -> np.ndarray[Any, Any]:
    """Return the carry `[..., 2]` that records of these numbers began with."""
    return np.stack([numbers, -np.asarray(numbers)], axis=-1).astype(np.float32)


def check_carries(state: Any, form: tuple[int, int, int], windows: list[list[int]]) -> None:
    """Check that the carry of each window's first record is there, in the slot that a batch reads it from."""
    capacity, _, stride = form
    stored = np.asarray(state.ring.records.data["hidden"])
    assert stored.shape == (capacity // stride, 2)
    for first, *_ in windows:
        assert stored[first % capacity // stride].tolist() == carry_of(first).tolist()


# A record rarely starts a segment, ends one, or comes after a gap.
BORDER = st.sampled_from(
    [(False, False, False)] * 5 + [(True, False, False), (False, True, False), (False, False, True)]
)


@pytest.mark.parametrize("form", BUFFERS)
@settings(max_examples=40)
@given(chunks=st.lists(st.tuples(st.integers(0, 6), st.lists(BORDER, min_size=6, max_size=6)), max_size=8))
def test_agrees_with_a_list_of_segments(form: tuple[int, int, int], chunks: Any) -> None:
    buffer, (capacity, length, _) = BUFFERS[form], form
    state, segments, segment = buffer.init(EXAMPLE), list[int](), 0
    for count, borders in chunks:
        starts, ends, gaps = (np.array(flags) for flags in zip(*borders, strict=True))
        numbers = np.arange(len(segments), len(segments) + 6, dtype=np.int32)
        data = {"number": numbers, "starts": starts, "ends": ends, "hidden": carry_of(numbers)}
        state = ADDS[form](state, Record(data, numbers, gaps), count)
        for row in range(count):
            segment += int(starts[row]) + int(gaps[row])
            segments.append(segment)
            segment += int(ends[row])
        expected = model_windows(segments, *form)
        assert windows_of(state, capacity, length) == expected
        assert bool(buffer.can_sample(state)) == bool(expected)  # pyright: ignore[reportOptionalCall]  # it has one
        check_carries(state, form, expected)
    assert ADDS[form]._cache_size() <= 1


def numbered(buffer: Any, numbers: range, borders: tuple[int, ...] = ()) -> Any:
    data = {"number": np.array(numbers, np.int32), "ends": np.isin(numbers, borders)}
    return jax.jit(buffer.add)(buffer.init({"number": jnp.int32(0), "ends": False}), data, len(numbers))


def episodes(capacity: int, window: int, **arguments: Any) -> Any:
    return sequence_buffer(capacity, window=window, ends_segment=lambda data: data["ends"], **arguments)


def test_each_window_is_equally_likely() -> None:
    buffer = episodes(20, window=4)
    state = numbered(buffer, range(20), borders=(5, 8, 9))
    starts = np.asarray(buffer.sample(state, 10_000, 0, KEY)["number"][:, 0])
    counts = np.bincount(starts, minlength=20)
    valid = [0, 1, 2, *range(10, 17)]
    assert np.flatnonzero(counts).tolist() == valid
    assert np.max(np.abs(counts[valid] - 1000)) < 5 * np.sqrt(1000)


def test_a_batch_holds_whole_windows_in_order() -> None:
    buffer = episodes(8, window=2, burn_in=1)
    batch = buffer.sample(numbered(buffer, range(8)), 5, 0, KEY)
    assert batch["number"].shape == batch["ends"].shape == (5, 3)
    assert np.all(np.diff(batch["number"]) == 1)


def test_without_a_window_a_batch_is_zeros_and_can_sample_says_so() -> None:
    buffer = episodes(8, window=3)
    state = numbered(buffer, range(1, 7), borders=(2, 4, 6))
    assert int(buffer.size(state)) >= buffer.required(32) == 3
    assert not buffer.can_sample(state)
    assert not np.any(buffer.sample(state, 4, 0, KEY)["number"])


def test_the_carry_comes_once_a_window_and_versions_with_each_record() -> None:
    buffer = sequence_buffer(capacity=6, window=3, burn_in=1, carry="hidden")
    example = Record({"x": 0.0, "hidden": {"h": np.zeros(2, np.float32)}}, 0)
    number = np.arange(6, dtype=np.float32)
    marks = np.zeros(6, bool)
    records = Record({"x": number, "hidden": {"h": carry_of(number)}}, number.astype(np.int32), marks)
    batch = buffer.sample(buffer.add(buffer.init(example), records, 6), 5, 0, KEY)
    assert isinstance(batch, Record)
    assert batch.version.shape == batch.is_first.shape == batch.data["x"].shape == (5, 4)
    assert batch.data["hidden"]["h"].tolist() == [[start, -start] for start in batch.data["x"][:, 0].tolist()]


def test_borders_are_seen_in_the_data_of_a_record() -> None:
    buffer = sequence_buffer(capacity=6, window=2, starts_segment=lambda data: data["step"] == 0)
    steps = np.array([0, 1, 2, 0, 1], np.int32)
    state = buffer.add(buffer.init(Record({"step": 0}, 0)), Record({"step": steps}, steps, np.zeros(5, bool)), 5)
    assert int(state.windows) == 3


def test_with_a_stride_a_batch_has_the_carry_of_each_windows_first_record() -> None:
    buffer = sequence_buffer(capacity=12, window=3, burn_in=1, stride=4, carry="hidden")
    numbers = np.arange(9, dtype=np.int32)
    state, add = buffer.init({"number": 0, "hidden": np.zeros(2, np.float32)}), jax.jit(buffer.add)
    for _ in range(2):  # so that the ring has gone round
        state = add(state, {"number": numbers, "hidden": carry_of(numbers)}, 9)
        numbers = numbers + 9
    batch = buffer.sample(state, 64, 0, KEY)
    assert batch["hidden"].tolist() == carry_of(batch["number"][:, 0]).tolist()
    assert set(batch["number"][:, 0].tolist()) == {8, 12}


def test_a_short_segment_may_have_no_window_that_begins_where_one_may() -> None:
    buffer = episodes(8, window=3, stride=4)
    for borders, expected in (((1, 5), []), ((3,), [[0, 1, 2], [4, 5, 6]])):
        assert windows_of(numbered(buffer, range(8), borders), 8, 3) == expected


def test_with_a_stride_the_carry_takes_so_much_less_memory() -> None:
    example = Record({"x": 0.0, "carry": np.zeros(256, np.float32)}, 0)
    every, fourth = (sequence_buffer(400, window=10, stride=stride, carry="carry") for stride in (1, 4))
    carry_bytes = 400 * 256 * 4
    assert f"  {carry_bytes:,}  .ring.records.data['carry']  float32[400,256]" in describe_buffer(every, example)
    assert f"  {carry_bytes // 4:,}  .ring.records.data['carry']  float32[100,256]" in describe_buffer(fourth, example)
    saved = buffer_bytes(every, example) - buffer_bytes(fourth, example)
    assert saved == carry_bytes * 3 // 4 + 4 * (391 - 98)  # and the list of windows is shorter
    assert saved == nbytes(every.init(example)) - nbytes(fourth.init(example))


def test_records_without_the_carry_are_refused_by_name() -> None:
    buffer = sequence_buffer(4, window=2, stride=2, carry="carry")
    state = buffer.init({"carry": 0.0, "x": 0.0})
    with pytest.raises(RecordMismatchError, match=r"missing \['carry'\]; nothing was inserted"):
        buffer.add(state, {"x": np.zeros(3, np.float32)}, 3)
    with pytest.raises(InvalidValueError, match=r"add\(records\) is 5, expected at most 4 rows"):
        buffer.add(state, {"carry": np.zeros(5, np.float32), "x": np.zeros(5, np.float32)}, 5)


def test_a_border_between_two_chunks_is_one_too() -> None:
    buffer = episodes(9, window=2)
    state = numbered(buffer, range(3), borders=(2,))
    state = buffer.add(state, {"number": jnp.arange(3, 5), "ends": jnp.zeros(2, bool)}, 2)
    assert windows_of(state, 9, 2) == [[0, 1], [1, 2], [3, 4]]


def test_memory_grows_by_four_bytes_a_record_not_by_windows() -> None:
    assert "  360  .ends " in describe_buffer(sequence_buffer(capacity=99, window=10), 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, r"sequence_buffer\(capacity\) is 0"),
        ({"window": 0}, r"sequence_buffer\(window\) is 0, expected an integer from 1"),
        ({"window": 2.5}, r"sequence_buffer\(window\) is 2.5, expected an integer from 1"),
        ({"burn_in": -1}, r"sequence_buffer\(burn_in\) is -1, expected an integer from 0"),
        ({"window": 11}, r"window\) is 11, expected at most 10, .*; shorten it or raise the capacity"),
        ({"window": 8, "burn_in": 3}, r"window\) is 8, expected at most 7, so that with burn_in=3"),
        ({"stride": 0}, r"sequence_buffer\(stride\) is 0, expected an integer from 1"),
        ({"stride": 3}, r"stride\) is 3, expected a divisor of the capacity 10; raise the capacity to 12"),
        ({"placement": "disk"}, r"sequence_buffer\(placement\) is 'disk'"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        sequence_buffer(**{"capacity": 10, "window": 2, **arguments})


@pytest.mark.parametrize("example", [{"x": 0.0, "y": 0.0}, Record({"x": 0.0, "y": 0.0}, 0)])
def test_a_carry_that_is_not_there_is_refused_by_name(example: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"sequence_buffer\(carry\): no entry .* named 'hidden'.*'x', 'y'"):
        sequence_buffer(4, window=2, carry="hidden").init(example)
    with pytest.raises(UnknownNameError, match=r"sequence_buffer\(carry\): no entry .* named 'hidden'"):
        sequence_buffer(4, window=2, carry="hidden", example=example)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (lambda data: data["flags"], r"starts_segment returned bool\[3\] for a record.*jnp.any"),
        (lambda data: data["x"], r"starts_segment returned float32\[\] for a record, expected bool\[\]"),
    ],
)
def test_a_border_must_be_one_bool(starts: Any, message: str) -> None:
    buffer = sequence_buffer(4, window=2, starts_segment=starts)
    state = buffer.init({"flags": np.zeros(3, bool), "x": 0.0})
    with pytest.raises(RecordMismatchError, match=message):
        buffer.add(state, {"flags": np.zeros((2, 3), bool), "x": np.zeros(2, np.float32)}, 2)
