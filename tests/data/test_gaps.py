"""Which records a collector marks as not following the one before, and what buffers make of the marks."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import (
    Collector,
    Record,
    mixed_buffer,
    prioritized_buffer,
    reservoir_buffer,
    ring_buffer,
    rollout_buffer,
    sequence_buffer,
)
from pamiq_jax.data.pending import PendingRecords

KEY = jax.random.key(0)


def same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def restored(collector: Collector[Any]) -> Collector[Any]:
    """Return a new collector that goes on where the other one is, by way of plain arrays as a file holds them."""
    pending: PendingRecords[Any] = jax.tree.map(np.array, collector.pending_records())
    again = Collector(np.float32(0), collector.capacity, chunk=collector.chunk, overflow=collector.overflow)
    again.restore(pending, collector.counts)
    return again


ACTIONS = st.one_of(st.integers(1, 7), st.sampled_from(["drain", "gap", "restore"]))


@settings(max_examples=200)
@given(
    overflow=st.sampled_from(["drop_oldest", "drop_newest"]),
    capacity=st.integers(1, 9),
    chunk=st.integers(1, 5),
    actions=st.lists(ACTIONS, max_size=30),
)
def test_a_record_is_first_where_its_number_jumps_or_a_gap_was_marked_and_a_restored_collector_agrees(
    overflow: Any, capacity: int, chunk: int, actions: list[Any]
) -> None:
    collector = Collector(np.float32(0), capacity, chunk=chunk, overflow=overflow)
    twin = Collector(np.float32(0), capacity, chunk=chunk, overflow=overflow)
    number, last, gaps = 0, -1, {1}

    def drain() -> bool:
        nonlocal last
        drained = collector.drain()
        same(drained, twin.drain())
        if drained is None:
            return False
        versions, marks = drained.records.version, drained.records.is_first
        for version, is_first in zip(versions[: drained.count].tolist(), marks[: drained.count].tolist(), strict=True):
            assert is_first == (version != last + 1 or version in gaps)
            last = version
        assert not marks[drained.count :].any()
        return True

    for action in [*actions, "drain"]:
        match action:
            case "drain":
                drain()
            case "gap":
                gaps.add(number + 1)
                collector.mark_gap()
                twin.mark_gap()
            case "restore":
                collector = restored(collector)
            case _:
                for number in range(number + 1, number + 1 + action):  # noqa: B020 - it goes on counting
                    assert collector.collect(np.float32(number), number) == twin.collect(np.float32(number), number)
        assert collector.counts == twin.counts
    while drain():
        pass


def filled(numbers: range, **arguments: Any) -> Collector[Any]:
    collector = Collector(0, **arguments)
    for number in numbers:
        collector.collect(number, number)
    return collector


def test_what_waits_is_copied_with_its_marks_and_stays() -> None:
    collector = filled(range(7), capacity=4, chunk=3)
    pending = collector.pending_records()
    assert pending.records.data.tolist() == pending.records.version.tolist() == [3, 4, 5, 6]
    assert pending.records.is_first.tolist() == [True, False, False, False]
    assert (int(pending.start), bool(pending.has_gap)) == (0, False)
    pending.records.data[:] = -1
    collector.collect(7, 7)
    assert collector.counts == (8, 4, 4)
    first, second = collector.drain(), collector.drain()
    assert first is not None
    assert second is not None
    assert [*first.records.data[: first.count], *second.records.data[: second.count]] == [4, 5, 6, 7]
    assert pending.records.is_first.tolist() == [True, False, False, False]


def test_an_empty_collector_is_restored_as_new() -> None:
    assert restored(Collector(np.float32(0), capacity=2)).pending_records().has_gap
    emptied = filled(range(2), capacity=2)
    emptied.drain()
    pending = emptied.pending_records()
    assert pending.records.data.shape == (0,)
    assert not pending.has_gap


def test_an_alarm_that_was_set_before_rings_when_restored() -> None:
    collector, again, rings = filled(range(3), capacity=4), Collector(0, capacity=4), []
    again.alarm(3, lambda: rings.append(again.counts.pending))
    again.restore(collector.pending_records(), collector.counts)
    assert rings == [3]


def test_another_chunk_length_and_a_larger_capacity_restore_the_same_records() -> None:
    collector, again = filled(range(9), capacity=4, chunk=5), Collector(0, capacity=6, chunk=3)
    again.restore(collector.pending_records(), collector.counts)
    drained: list[int] = []
    while (chunk := again.drain()) is not None:
        drained += chunk.records.data[: chunk.count].tolist()
    assert drained == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"again": filled(range(1), capacity=4)}, r"seen before restore\(\) is 1, expected 0; restore a new collector"),
        ({"again": Collector(0, capacity=2)}, r"counts.pending\) is 3, expected at most 2; restore a collector of"),
        ({"counts": (3, 1, 3)}, r"restore\(counts\) is \(3, 1, 3\), expected none below 0, and no fewer seen"),
        ({"counts": (3, 0, -3)}, r"restore\(counts\) is \(3, 0, -3\)"),
        ({"counts": (3, 0, 2)}, r"2 pending records can't be .* expected int32\[2\], got int32\[3\]; give both as"),
        ({"again": Collector({"x": 0}, capacity=4)}, r"can't be restored: missing \.data\['x'\]"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_collector_as_it_was(change: Any, message: str) -> None:
    collector = filled(range(3), capacity=4)
    arguments: Any = {"again": Collector(0, capacity=4), "counts": collector.counts} | change
    before = arguments["again"].counts
    with pytest.raises((ValueError, TypeError), match=message):
        arguments["again"].restore(collector.pending_records(), arguments["counts"])
    assert arguments["again"].counts == before


def test_gaps_may_be_marked_and_records_copied_while_another_thread_collects() -> None:
    total, collector = 2000, Collector(0, capacity=64, chunk=16)

    def produce() -> None:
        for number in range(total):
            collector.collect(number, number)

    thread = threading.Thread(target=produce)
    thread.start()
    drained = marks = last = 0
    while last < total - 1:
        collector.mark_gap()
        waiting = collector.pending_records().records
        assert np.all(np.diff(waiting.data) == 1)
        np.testing.assert_array_equal(waiting.data, waiting.version)
        if (chunk := collector.drain()) is not None:
            drained += chunk.count
            marks += int(chunk.records.is_first.sum())
            last = int(chunk.records.data[chunk.count - 1])
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert collector.counts == (total, total - drained, 0)
    assert 1 <= marks <= drained


# --- Buffers.

ROLLOUT = rollout_buffer(2, bootstrap=1)
ADD_TO_ROLLOUT = jax.jit(ROLLOUT.add)


def records(first: int, marks: Any) -> Record[Any]:
    numbers = np.arange(first, first + len(marks), dtype=np.int32)
    return Record({"number": numbers}, numbers, np.array(marks, bool))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), min_size=3, max_size=3)), max_size=8))
def test_a_rollout_goes_across_no_gap(chunks: Any) -> None:
    state, marks = ROLLOUT.init(Record({"number": 0}, 0)), list[bool]()
    for count, new in chunks:
        state = ADD_TO_ROLLOUT(state, records(len(marks), new), count)
        marks += new[:count]
        assert bool(ROLLOUT.can_sample(state)) == (True not in marks[-3:][1:])  # pyright: ignore[reportOptionalCall]
    assert ADD_TO_ROLLOUT._cache_size() <= 1  # marks are data like any


def test_after_a_gap_the_next_rollout_begins_with_it() -> None:
    state, can_sample = ROLLOUT.init(Record({"number": 0}, 0)), []
    for number, is_first in enumerate([True, False, False, False, True, False, False]):
        state = ADD_TO_ROLLOUT(state, records(number, [is_first] * 3), 1)
        can_sample.append(bool(ROLLOUT.can_sample(state)))  # pyright: ignore[reportOptionalCall]
    assert can_sample == [True, True, True, True, False, False, True]  # with fewer than 3 records the size forbids it
    assert ROLLOUT.sample(state, 3, 0, KEY).data["number"].tolist() == [4, 5, 6]


def test_plain_data_have_no_gaps() -> None:
    state = ROLLOUT.add(ROLLOUT.init({"is_first": False}), {"is_first": jnp.ones(3, bool)}, 3)
    assert ROLLOUT.can_sample(state)  # pyright: ignore[reportOptionalCall]


def test_buffers_say_whether_they_need_one_stream_in_order() -> None:
    ordered = [sequence_buffer(4, window=2), rollout_buffer(2)]
    others = [ring_buffer(4), reservoir_buffer(4), prioritized_buffer(4)]
    assert [buffer.is_ordered for buffer in [*ordered, *others]] == [True, True, False, False, False]
    assert mixed_buffer([others[0], ordered[0]], [1, 1]).is_ordered
    assert not mixed_buffer(others[:2], [1, 1]).is_ordered
