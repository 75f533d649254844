import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import Chunk, Collector
from pamiq_jax.errors import InvalidValueError, RecordMismatchError


def rows(chunk: Chunk[Any] | None) -> list[int]:
    """Return the valid version numbers, after checking that the data agree and the padding is zero."""
    if chunk is None:
        return []
    valid, versions = int(chunk.count), np.asarray(chunk.records.version)
    assert np.array_equal(chunk.records.data, versions.astype(np.float32))
    assert not versions[valid:].any()
    return versions[:valid].tolist()


@settings(max_examples=150)
@given(
    overflow=st.sampled_from(["drop_oldest", "drop_newest"]),
    capacity=st.integers(1, 9),
    chunk=st.integers(1, 5),
    actions=st.lists(st.integers(0, 7), max_size=25),  # 0 drains, other numbers collect so many
)
def test_agrees_with_a_list(overflow: Any, capacity: int, chunk: int, actions: list[int]) -> None:
    collector = Collector(0.0, capacity, chunk=chunk, overflow=overflow)
    pending: list[int] = []
    seen = dropped = 0
    for action in actions:
        if action == 0:
            drained = rows(collector.drain())
            assert drained == pending[: len(drained)]
            assert bool(drained) == bool(pending)
            del pending[: len(drained)]
        for _ in range(action):
            seen += 1
            is_full = len(pending) == capacity
            dropped += is_full
            assert collector.collect(float(seen), seen) == (not is_full or overflow == "drop_oldest")
            if not is_full or overflow == "drop_oldest":
                pending = [*pending, seen][-capacity:]
        assert collector.counts == (seen, dropped, len(pending))
    while pending:
        drained = rows(collector.drain())
        assert drained == pending[: len(drained)]
        del pending[: len(drained)]
    assert collector.drain() is None


def test_a_drained_chunk_is_never_written_again() -> None:
    collector = Collector(0.0, capacity=4, chunk=2)
    collector.collect(1.0, 1)
    chunk = collector.drain()
    assert chunk is not None
    on_device = jax.device_put(chunk)
    for number in range(2, 6):
        collector.collect(float(number), number)
    assert rows(chunk) == rows(on_device) == [1]
    with pytest.raises(ValueError, match="read-only"):
        chunk.records.version[0] = 9


@pytest.mark.parametrize("transfer", [jax.device_put, lambda chunk: jax.tree.map(jnp.array, chunk)])
def test_a_reused_observation_array_does_not_matter(transfer: Any) -> None:
    observation = np.zeros(512, np.float32)
    collector = Collector({"observation": observation}, capacity=64, chunk=16)
    transferred: list[Any] = []
    for number in range(64):
        observation[:] = number
        collector.collect({"observation": observation}, number)
        observation[:] = -1
        if number % 16 == 15:
            transferred.append(transfer(collector.drain()))
    seen = np.concatenate([chunk.records.data["observation"] for chunk in transferred])
    np.testing.assert_array_equal(seen, np.repeat(np.arange(64, dtype=np.float32)[:, None], 512, axis=1))


def test_one_producer_and_one_drainer_lose_and_repeat_nothing() -> None:
    total = 3000
    collector = Collector(np.zeros(8, np.float32), capacity=total, chunk=32)
    barrier, woken = threading.Barrier(2), threading.Semaphore(0)
    drained: list[int] = []

    def produce() -> None:
        barrier.wait(timeout=60)
        for number in range(total):
            collector.collect(np.full(8, number, np.float32), number)

    def drain() -> None:
        barrier.wait(timeout=60)
        while len(drained) < total:
            collector.alarm(1, woken.release)
            assert woken.acquire(timeout=60)
            chunk = collector.drain()
            assert chunk is not None
            data, versions = chunk.records.data[: chunk.count], chunk.records.version[: chunk.count]
            assert np.array_equal(data, np.repeat(versions[:, None], 8, axis=1).astype(np.float32))
            drained.extend(versions.tolist())

    threads = [threading.Thread(target=produce), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert drained == list(range(total))
    assert collector.counts == (total, 0, 0)


def test_the_alarm_rings_once_when_reached() -> None:
    collector, rings = Collector(0.0, capacity=10), []
    collector.alarm(3, lambda: rings.append(collector.counts.pending))
    for number in range(6):
        collector.collect(0.0, number)
    assert rings == [3]  # and asking for the counts shows that the lock is free


def test_the_alarm_rings_at_once_if_already_reached() -> None:
    collector, rings = Collector(0.0, capacity=10), []
    collector.collect(0.0, 0)
    collector.alarm(1, lambda: rings.append("rung"))
    assert rings == ["rung"]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_an_alarm_above_the_capacity_rings_when_full(overflow: Any) -> None:
    collector, rings = Collector(0.0, capacity=2, overflow=overflow), []
    collector.alarm(1000, lambda: rings.append("rung"))
    collector.collect(0.0, 0)
    assert rings == []
    collector.collect(0.0, 1)
    assert rings == ["rung"]


def test_a_new_alarm_replaces_the_old() -> None:
    collector, rings = Collector(0.0, capacity=10), []
    collector.alarm(1, lambda: rings.append("old"))
    collector.alarm(1, lambda: rings.append("new"))
    collector.collect(0.0, 0)
    assert rings == ["new"]


EXAMPLE = {"x": np.zeros(3, np.float32), "n": 0, "flag": False, "byte": np.uint8(0), "reward": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.ones(3, np.float64)},
        {"x": jnp.ones(3)},
        {"n": np.int64(1)},
        {"n": np.array(1)},
        {"flag": np.bool_(True)},
        {"byte": 255},
        {"reward": np.float64(1.0)},
    ],
)
def test_leaves_that_jax_would_store_alike_are_accepted(change: dict[str, Any]) -> None:
    collector = Collector(EXAMPLE, capacity=2)
    assert collector.collect(EXAMPLE | change, 0)
    chunk = collector.drain()
    assert chunk is not None
    (name, value), *_ = change.items()
    np.testing.assert_array_equal(chunk.records.data[name][0], value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (EXAMPLE | {"x": np.zeros(4, np.float32)}, r"leaf \['x'\]: expected float32\[3\], got float32\[4\]; nothing"),
        (EXAMPLE | {"x": np.zeros(3, np.int32)}, r"leaf \['x'\]: expected float32\[3\], got int32\[3\]"),
        (EXAMPLE | {"x": jnp.zeros(3, jnp.float16)}, r"leaf \['x'\].*got float16\[3\]"),
        (EXAMPLE | {"n": 1.5}, r"leaf \['n'\]: expected int32\[\], got the Python float 1.5"),
        (EXAMPLE | {"n": True}, r"leaf \['n'\].*got the Python bool True"),
        (EXAMPLE | {"reward": 1}, r"leaf \['reward'\]: expected float32\[\], got the Python int 1"),
        (EXAMPLE | {"byte": 256}, r"leaf \['byte'\]: expected uint8\[\], got the Python int 256"),
        (EXAMPLE | {"n": "one"}, r"leaf \['n'\].*got the Python str"),
        (EXAMPLE | {"n": jax.random.key(0)}, r"leaf \['n'\].*got key"),
        (EXAMPLE | {"extra": 1}, r"unexpected \['extra'\]; nothing was inserted"),
        ({"x": EXAMPLE["x"]}, r"missing \['byte'\]"),
        ({name.replace("x", "y"): value for name, value in EXAMPLE.items()}, r"missing \['x'\]"),
        (EXAMPLE | {"x": [0.0, 0.0, 0.0]}, r"unexpected \['x'\]\[0\]"),
        (EXAMPLE | {"n": None}, r"missing \['n'\]"),
    ],
)
def test_other_records_are_refused_by_leaf_and_not_inserted(record: Any, message: str) -> None:
    collector = Collector[Any](EXAMPLE, capacity=2)
    with pytest.raises(RecordMismatchError, match=message):
        collector.collect(record, 0)
    assert collector.counts == (0, 0, 0)
    assert collector.drain() is None


def test_the_order_in_a_dict_does_not_matter() -> None:
    collector = Collector[Any](EXAMPLE, capacity=2)
    assert collector.collect(dict(reversed(EXAMPLE.items())), 0)
    chunk = collector.drain()
    assert chunk is not None
    for name, value in EXAMPLE.items():
        np.testing.assert_array_equal(chunk.records.data[name][0], value)


def test_a_failed_write_leaves_nothing_behind() -> None:
    collector = Collector(0.0, capacity=2)
    with pytest.raises(OverflowError, match=r"int32|C long|bounds"):
        collector.collect(1.0, 2**40)
    assert collector.counts == (0, 0, 0)
    assert collector.drain() is None


def test_nbytes_bounds_what_waits() -> None:
    collector = Collector(np.zeros(10, np.float32), capacity=5, chunk=4)
    assert collector.nbytes == 3 * 4 * (40 + 4 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, r"Collector\(capacity\) is 0, expected an integer from 1"),
        ({"capacity": 2.5}, r"Collector\(capacity\) is 2.5, expected an integer from 1"),
        ({"capacity": 1, "chunk": 0}, r"Collector\(chunk\) is 0"),
        ({"capacity": 1, "overflow": "block"}, r"Collector\(overflow\) is 'block', expected 'drop_oldest' or"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Collector(0.0, **arguments)


def test_typed_keys_cannot_be_recorded() -> None:
    with pytest.raises(RecordMismatchError, match=r"leaf \['key'\] is a typed PRNG key"):
        Collector({"key": jax.random.key(0)}, capacity=1)


def test_what_a_held_source_brings_comes_in_on_release() -> None:
    collector = Collector({"x": 0.0}, capacity=4, chunk=4)
    reused = np.zeros((), np.float32)
    collector.collect({"x": reused}, 0, "left")
    collector.hold("left")
    for value in (1.0, 2.0):
        reused[...] = value
        assert collector.collect({"x": reused}, 0, "left")
    collector.collect({"x": 9.0}, 0, "right")
    assert collector.counts == (2, 0, 2)
    collector.release()
    assert collector.counts == (4, 0, 4)
    collector.collect({"x": 3.0}, 0, "left")  # not held any more, and one too many
    assert collector.counts == (5, 1, 4)
    chunk = collector.drain()
    rest = collector.drain()
    assert chunk is not None
    assert rest is not None
    assert [*chunk.records.data["x"][: chunk.count], *rest.records.data["x"][: rest.count]] == [9.0, 1.0, 2.0, 3.0]


def test_what_is_laid_aside_is_bounded_and_rings_when_it_comes_in() -> None:
    collector, rung = Collector(0.0, capacity=3, chunk=4), []
    collector.hold("left")
    collector.alarm(2, lambda: rung.append(True))
    for value in range(5):
        collector.collect(float(value), 0, "left")
    assert rung == []
    collector.release()
    assert rung == [True]
    assert collector.counts == (5, 2, 3)  # the two that were lost are counted
    refusing = Collector(0.0, capacity=1, chunk=4, overflow="drop_newest")
    refusing.hold("left")
    assert [refusing.collect(value, 0, "left") for value in (1.0, 2.0)] == [True, False]
    refusing.release()
    assert refusing.counts == (2, 1, 1)
