"""Read what was recorded: tick by tick for a replay, or only the records, as a dataset."""

from __future__ import annotations

import logging
import operator
import os
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from pamiq_jax.checkpoint.matching import match
from pamiq_jax.data import Record, record_of
from pamiq_jax.data.buffer import record_spec
from pamiq_jax.errors import RecordingError, UnknownNameError
from pamiq_jax.recording.entries import FORMS, Begin, Drain, Tick, drains_together, text_rows, ticks_of
from pamiq_jax.recording.log import read_log
from pamiq_jax.trees import zeros_of
from pamiq_jax.types import PyTree

DIRECTORY = "recording"
"""Where the recordings of a run's directory lie, each in a folder with a number."""

LOG, START = "log", "start"
"""In such a folder: what happened, and a store with the state that it began from."""

_LOGGER = logging.getLogger("pamiq_jax")
_KEYS = re.compile(r"\['([^']*)'\]")


class TickEntry(NamedTuple):
    """A tick, and what happened before it.

    Attributes:
        number: 0 for the first of the recording.
        tick: what the training thread was told in it, and what it did.
        changes: hyper-parameters that were changed since the tick before: `(trainer, values)`.
        sums: checksums of published parameters that were noted about then, by version.
    """

    number: int
    tick: Tick
    changes: tuple[tuple[str, Mapping[str, Any]], ...]
    sums: Mapping[int, int]


class Recording:
    """What was recorded of one launch.

    Args:
        directory: the run's directory.
        number: which launch; None for the newest that was not killed before it began. Each launch with `record=True`
            makes one, also a resumed one.

    Attributes:
        number: which launch it is, from 1.
        directory: where it lies.
        begin: how it began.
        last_changes: once the ticks have been read: hyper-parameters that were changed after the last of them, as in
            `TickEntry.changes`.
        damage: once it has been read: "", or that it has no end or where it is cut off, after a kill, or damaged.
        is_complete: once it has been read: whether the run was stopped, and not killed.

    Raises:
        RecordingError: there is none, or none of this number, or a newer pamiq_jax wrote it.

    Example:
        >>> import tempfile, jax.numpy as jnp, pamiq_jax as pj
        >>> system = pj.System(models={"m": pj.Model(jnp.zeros(()))}, buffers={"x": pj.ring_buffer(9, example=0.0)})
        >>> directory = tempfile.mkdtemp()
        >>> with pj.launch(system, directory=directory, record=True) as run:
        ...     kept = [run.collect("x", value) for value in (1.0, 2.0)]
        >>> Recording(directory).records("x").data.tolist()
        [1.0, 2.0]
    """

    def __init__(self, directory: str | os.PathLike[str], number: int | None = None) -> None:
        numbers = recorded_numbers(Path(directory))
        if not numbers:
            remedy = "launch with `record=True`, or name the directory that was given to `launch`"
            raise RecordingError(f"{Path(directory)} holds no recording, expected `{DIRECTORY}/<number>`; {remedy}")
        if number is not None and number not in numbers:
            raise UnknownNameError("recording", number, numbers, str(directory))
        self.last_changes: tuple[tuple[str, Mapping[str, Any]], ...] = ()
        problems: list[str] = []
        for each in reversed(numbers) if number is None else (number,):
            self.number, self.directory = each, Path(directory) / DIRECTORY / _folder(each)
            self.damage, self.is_complete = "", False
            first = next(self._values(), None)
            if first is not None:
                break
            problems.append(f"{self.directory / LOG} {self._nothing_readable()}")
        else:
            raise RecordingError(problems[0])
        for problem in problems:
            _LOGGER.warning("%s; recording %d is taken", problem, self.number)
        form = first.pop("form")
        if form not in FORMS:
            remedy = "read it with the pamiq_jax that wrote it"
            raise RecordingError(f"{self.directory} has form {form}, expected one of {FORMS}; {remedy}")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in first.items()
        }
        self.begin = Begin(**{name: fields[name] for name in Begin._fields if name in fields})

    def ticks(self) -> Iterator[TickEntry]:
        """Yield the ticks of the training thread, oldest first.

        What was changed after the last one is in `last_changes` then.
        """
        self.last_changes = ()
        changes: list[tuple[str, Mapping[str, Any]]] = []
        sums: dict[int, int] = {}
        for value in self._batches():
            # What is noted with a batch may concern the first tick of the next one.
            changed = sorted(value["changes"], key=operator.itemgetter(0))
            sums |= dict(value["sums"])
            for number, tick in enumerate(ticks_of(value), value["first"]):
                while changed and changed[0][0] <= number:
                    changes.append(tuple(changed.pop(0)[1:]))
                yield TickEntry(number, tick, tuple(changes), sums)
                changes, sums = [], {}
            changes += [tuple(change[1:]) for change in changed]
        self.last_changes = tuple(changes)

    def chunks(self, buffer: str, example: PyTree = None) -> Iterator[Record[Any]]:
        """Yield the records that came into a buffer as they came, some at a time: leaves `[n, ...]`, numpy arrays.

        Those that were on their way when the run was stopped come last.

        Args:
            buffer: its name.
            example: one record's data, for its structure; None gives dicts, which is right for data made of dicts.

        Raises:
            UnknownNameError: there is no such buffer.
            StateMismatchError: the records are unlike the example.
        """
        if buffer not in self.begin.buffers:
            raise UnknownNameError("buffer", buffer, self.begin.buffers, "a recording")
        for value in self._values():
            for drain in drains_together(value.get("drains", ())):
                if drain.buffer == buffer:
                    yield records_of(drain, example)

    def records(self, buffer: str, example: PyTree = None) -> Record[Any]:
        """Return all records that came into a buffer: leaves `[n, ...]`, numpy arrays, oldest first.

        Args:
            buffer: its name.
            example: as in `chunks`.

        Raises:
            UnknownNameError, StateMismatchError: as `chunks`.
            RecordingError: there is none.
        """
        chunks = list(self.chunks(buffer, example))
        if not chunks:
            raise RecordingError(f"no record came into buffer {buffer!r} while {self.directory} was recorded")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)

    def versions(self) -> dict[str, list[tuple[int, int]]]:
        """Return, by interaction, from which of its ticks on it acted with which version: `(tick, version)`."""
        result: dict[str, list[tuple[int, int]]] = {name: [] for name in self.begin.interactions}
        for value in self._batches():
            for interaction, tick, version in value["acted"]:
                result[interaction].append((tick, version))
        return result

    def transitions(self) -> list[tuple[int, str, str, str, str]]:
        """Return the transitions of all machines: `(training tick, machine, before, event, after)`."""
        return [cast(Any, row) for value in self._batches() for row in text_rows(value["transitions"])]

    def _nothing_readable(self) -> str:
        if not (self.directory / LOG).exists():
            return "is not there; the run was killed before it began"
        if self.damage.startswith("damaged"):
            return f"is {self.damage}, in its first entry; nothing of it can be read"
        if self.damage.startswith("cut off"):
            return f"is {self.damage}, in its first entry; the run was killed before it began, or the file is damaged"
        return "is empty; the run was killed before it began"

    def _batches(self) -> Iterator[Mapping[str, Any]]:
        for value in self._values():
            if value["kind"] == "ticks":
                yield value

    def _values(self) -> Generator[Any]:
        damage = yield from self._watch_for_end()
        self.damage = damage or ("" if self.is_complete else "has no end: the run was killed, or still goes on")

    def _watch_for_end(self) -> Generator[Any, None, str]:
        if not (self.directory / LOG).exists():
            return "has no log: the run was killed before it began"
        values = read_log(self.directory / LOG)
        while True:
            try:
                value = next(values)
            except StopIteration as end:
                return end.value
            self.is_complete = self.is_complete or value["kind"] == "end"
            yield value


def recorded_numbers(directory: Path) -> list[int]:
    """Return the numbers of the recordings in a run's directory, oldest first."""
    place = directory / DIRECTORY
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def new_folder(directory: Path) -> Path:
    """Make the folder of a new recording in a run's directory, and return it."""
    path = directory / DIRECTORY / _folder(max(recorded_numbers(directory), default=0) + 1)
    path.mkdir(parents=True)
    return path


def _folder(number: int) -> str:
    return f"{number:06d}"


def records_of(drain: Drain, example: PyTree = None) -> Record[Any]:
    """Return drained records in the form that they were collected in.

    Args:
        drain: from a recording.
        example: as in `Recording.chunks`.

    Example:
        >>> leaves = {".data['x']": np.zeros(2), ".version": np.zeros(2, np.int32), ".is_first": np.zeros(2, bool)}
        >>> records_of(Drain("seen", 2, leaves)).data
        {'x': array([0., 0.])}
    """
    if example is not None:
        form = record_spec(record_of(example))
        return match(zeros_of(form, drain.rows), drain.leaves)[0]
    leaves = dict(drain.leaves)
    version, is_first = leaves.pop(".version"), leaves.pop(".is_first")
    return Record(_nested({name.removeprefix(".data"): leaf for name, leaf in leaves.items()}), version, is_first)


def _nested(leaves: Mapping[str, Any]) -> Any:
    """Return leaves as dicts in dicts, if their names are made of text keys only, else by their names."""
    if list(leaves) == [""]:
        return leaves[""]
    if not all("".join(f"['{key}']" for key in _KEYS.findall(name)) == name for name in leaves):
        return dict(leaves)
    result: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = _KEYS.findall(name)
        inside = result
        for key in path:
            inside = inside.setdefault(key, {})
        inside[last] = leaf
    return result
