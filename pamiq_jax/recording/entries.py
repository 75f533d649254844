"""What a log says of a run: how it began, what its threads did, how it ended.

A batch of ticks is stored by columns, so that writing many costs little more than writing one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.types import PyTree

FORM, FORMS = 3, (2, 3)
"""Raised when the names in a log change; and the forms that can be read. In form 2 each drain has arrays of its own."""


class Begin(NamedTuple):
    """How the part of a run that a log tells of began.

    Attributes:
        seed: of all randomness.
        version: of the snapshot that it began with.
        trainers: their names, in order.
        buffers: the names of the buffers.
        interactions: the names of the interactions.
        created_at: seconds since 1970.
        device: what it ran on.
        jax_version: of JAX.
        faults: the policy for trainers that fail, in words.
        chunk_steps: steps in a chunk, by trainer; none in a log of an earlier version.
    """

    seed: int
    version: int
    trainers: tuple[str, ...]
    buffers: tuple[str, ...]
    interactions: tuple[str, ...]
    created_at: float
    device: str
    jax_version: str
    faults: str
    chunk_steps: Mapping[str, int] = MappingProxyType({})


class Drain(NamedTuple):
    """Records that were taken out of a collector.

    Attributes:
        buffer: whose.
        rows: how many.
        leaves: of the records, by name, `[rows, ...]`.
    """

    buffer: str
    rows: int
    leaves: Mapping[str, np.ndarray[Any, Any]]


class Tick(NamedTuple):
    """One tick of the training thread: what it was told, and what it did.

    Attributes:
        times: what the clock said each time it was asked, in seconds.
        days: the same of the time of day.
        counts: what collectors said each time they were asked: `(seen, dropped, pending)`.
        drains: the records that were taken.
        is_frozen: whether buffers had to stay as they were.
        trainer: which one did a chunk; "" if all waited.
        version: what was published; -1 for nothing.
        error: what ended the chunk; "" for nothing.
        reasons: why trainers run or wait, of those for which that changed.
        metrics: of the chunk, as numbers.
    """

    times: Sequence[float]
    days: Sequence[int]
    counts: Sequence[tuple[int, int, int]]
    drains: Sequence[Drain]
    is_frozen: bool
    trainer: str
    version: int
    error: str
    reasons: Mapping[str, str]
    metrics: Mapping[str, float]


class Batch(NamedTuple):
    """What happened between two writes. Numbers of ticks count from the beginning of the log.

    Attributes:
        first: number of the first tick.
        ticks: in order.
        changes: hyper-parameters that were changed before a tick: `(tick, trainer, values)`.
        transitions: of all machines: `(tick, machine, before, event, after)`, as near as the writer knows.
        acted: from which of its ticks on an interaction acted with which version: `(interaction, tick, version)`.
        sums: checksums of published parameters: `(version, sum)`; not of each version.
    """

    first: int
    ticks: Sequence[Tick]
    changes: Sequence[tuple[int, str, Mapping[str, Any]]] = ()
    transitions: Sequence[tuple[int, str, str, str, str]] = ()
    acted: Sequence[tuple[str, int, int]] = ()
    sums: Sequence[tuple[int, int]] = ()


class End(NamedTuple):
    """How a run ended that was not killed.

    Attributes:
        ticks: how many the log has.
        acted: how often each interaction ticked in all.
        rest: records that were still waiting in collectors.
    """

    ticks: int
    acted: Mapping[str, int]
    rest: Sequence[Drain] = ()


def checksum_of(params: Mapping[str, PyTree]) -> int:
    """Return a number that differs if any bit of the parameters does. It waits for the arrays.

    Example:
        >>> checksum_of({"m": np.zeros(2)}) == checksum_of({"m": np.zeros(2)}) != checksum_of({"m": np.ones(2)})
        True
    """
    result = 0
    for name in sorted(params):
        for leaf in jax.tree.leaves(params[name]):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            array = np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf)
            result = zlib.crc32(memoryview(array.reshape(-1).view(np.uint8)), result)
    return result


def begin_value(begin: Begin) -> dict[str, Any]:
    """Return the beginning as a log stores it."""
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in begin._asdict().items()}
    return {"kind": "begin", "form": FORM, **fields}


def end_value(end: End) -> dict[str, Any]:
    """Return the end as a log stores it."""
    return {"kind": "end", "ticks": end.ticks, "acted": dict(end.acted), "drains": _drain_columns(end.rest)}


def batch_value(batch: Batch) -> dict[str, Any]:
    """Return a batch as a log stores it.

    Example:
        >>> tick = Tick([0.5], [], [(1, 0, 1)], [], False, "fit", 1, "", {"fit": "has enough"}, {"loss": 0.25})
        >>> next(ticks_of(batch_value(Batch(0, [tick])))) == tick
        True
    """
    ticks = batch.ticks
    trainers = sorted({tick.trainer for tick in ticks if tick.trainer})
    return {
        "kind": "ticks",
        "first": batch.first,
        "times": np.array([time for tick in ticks for time in tick.times], np.float64),
        "days": np.array([day for tick in ticks for day in tick.days], np.int32),
        "counts": _narrow([count for tick in ticks for count in tick.counts]).reshape(-1, 3),
        "table": _narrow([_row(tick, trainers) for tick in ticks]).reshape(-1, 7),
        "trainers": trainers,
        "drains": _drain_columns([drain for tick in ticks for drain in tick.drains]),
        "errors": [[number, tick.error] for number, tick in enumerate(ticks) if tick.error],
        "reasons": _text_columns(
            (number, trainer, reason) for number, tick in enumerate(ticks) for trainer, reason in tick.reasons.items()
        ),
        "metrics": _metric_columns(ticks),
        "changes": [[tick, trainer, dict(values)] for tick, trainer, values in batch.changes],
        "transitions": _text_columns(batch.transitions),
        "acted": [list(entry) for entry in batch.acted],
        "sums": [list(entry) for entry in batch.sums],
    }


def _drain_columns(drains: Sequence[Drain]) -> dict[str, Any]:
    """Return drains as one table of records for each buffer, how many rows each has, and in which order they came."""
    tables: dict[str, list[Drain]] = {}
    for drain in drains:
        tables.setdefault(drain.buffer, []).append(drain)
    return {
        "buffers": list(tables),
        "order": np.array([list(tables).index(drain.buffer) for drain in drains], np.int32),
        "rows": np.array([drain.rows for drain in drains], np.int32),
        "leaves": [
            {name: np.concatenate([drain.leaves[name] for drain in table]) for name in table[0].leaves}
            for table in tables.values()
        ],
    }


def drains_together(value: Any) -> Iterator[Drain]:
    """Yield the records of a stored batch: all of a buffer at once, where they are stored so.

    Args:
        value: what a log has under "drains".

    Example:
        >>> [drain.rows for drain in drains_together(_drain_columns([Drain("x", 1, {}), Drain("x", 2, {})]))]
        [3]
    """
    if not isinstance(value, Mapping):
        yield from (Drain(**drain) for drain in value)
        return
    columns: Mapping[str, Any] = value
    for index, buffer in enumerate(columns["buffers"]):
        rows = int(columns["rows"][columns["order"] == index].sum())
        yield Drain(buffer, rows, columns["leaves"][index])


def _drains_apart(value: Any) -> Iterator[Drain]:
    """Yield the records of a stored batch as they came."""
    if not isinstance(value, Mapping):
        yield from (Drain(**drain) for drain in value)
        return
    columns: Mapping[str, Any] = value
    ends = [0] * len(columns["buffers"])
    for index, rows in zip(columns["order"].tolist(), columns["rows"].tolist(), strict=True):
        start, ends[index] = ends[index], ends[index] + rows
        leaves = {name: leaf[start : ends[index]] for name, leaf in columns["leaves"][index].items()}
        yield Drain(columns["buffers"][index], rows, leaves)


def _narrow(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return integers with 32 bits each, if they have room in them."""
    array = np.array(values, np.int64)
    fits = not array.size or np.abs(array).max() < 2**31
    return array.astype(np.int32) if fits else array


def _row(tick: Tick, trainers: list[str]) -> tuple[int, ...]:
    return (
        len(tick.times),
        len(tick.days),
        len(tick.counts),
        len(tick.drains),
        tick.is_frozen,
        trainers.index(tick.trainer) if tick.trainer else -1,
        tick.version,
    )


def _text_columns(rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Return rows of a number and texts as one table of numbers, for the same few texts come again and again."""
    texts: dict[str, int] = {}
    table = [(number, *[texts.setdefault(text, len(texts)) for text in row]) for number, *row in rows]
    return {"texts": list(texts), "rows": _narrow(table).reshape(len(table), -1 if table else 0)}


def text_rows(columns: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a stored table of numbers and texts, for example of transitions.

    Args:
        columns: as a log has them.

    Example:
        >>> list(text_rows({"texts": ["fit", "waits"], "rows": np.array([[3, 0, 1], [4, 0, 0]])}))
        [(3, 'fit', 'waits'), (4, 'fit', 'fit')]
    """
    texts = columns["texts"]
    for number, *indices in columns["rows"].tolist():
        yield (number, *[texts[index] for index in indices])


def _metric_columns(ticks: Sequence[Tick]) -> list[dict[str, Any]]:
    """Return the metrics as float64, which holds every float32 and int32 exactly, a table for each set of names."""
    rows: dict[tuple[str, ...], tuple[list[int], list[Mapping[str, float]]]] = {}
    for number, tick in enumerate(ticks):
        if tick.metrics:
            numbers, metrics = rows.setdefault(tuple(tick.metrics), ([], []))
            numbers.append(number)
            metrics.append(tick.metrics)
    return [
        {
            "names": list(names),
            "ticks": np.array(numbers, np.int64),
            "values": np.array([list(row.values()) for row in metrics], np.float64),
        }
        for names, (numbers, metrics) in rows.items()
    ]


def ticks_of(value: Mapping[str, Any]) -> Iterator[Tick]:
    """Yield the ticks of a stored batch.

    Example:
        See `batch_value`.
    """
    times, days, drains = iter(value["times"].tolist()), iter(value["days"].tolist()), _drains_apart(value["drains"])
    counts = iter(map(tuple, value["counts"].tolist()))
    errors = dict(value["errors"])
    reasons: dict[int, dict[str, str]] = {}
    for number, trainer, reason in text_rows(value["reasons"]):
        reasons.setdefault(number, {})[trainer] = reason
    metrics: dict[int, dict[str, float]] = {}
    for table in value["metrics"]:
        for number, row in zip(table["ticks"].tolist(), table["values"].tolist(), strict=True):
            metrics[number] = dict(zip(table["names"], row, strict=True))
    for number, (timed, dated, counted, drained, is_frozen, trainer, version) in enumerate(value["table"].tolist()):
        yield Tick(
            times=[next(times) for _ in range(timed)],
            days=[next(days) for _ in range(dated)],
            counts=[next(counts) for _ in range(counted)],
            drains=[next(drains) for _ in range(drained)],
            is_frozen=bool(is_frozen),
            trainer="" if trainer < 0 else value["trainers"][trainer],
            version=version,
            error=errors.get(number, ""),
            reasons=reasons.get(number, {}),
            metrics=metrics.get(number, {}),
        )
