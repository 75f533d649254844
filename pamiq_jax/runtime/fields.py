"""Which fields the library's own records had when a state was written: one that came later begins with its default.

And one that is there no more is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from pamiq_jax.checkpoint import MatchReport
from pamiq_jax.conditions import Progress
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.state import ActorState, BufferRun, LearnerState, TrainerRun
from pamiq_jax.types import PyTree

type Fields = Mapping[str, Iterable[str]]
"""The names of the fields of each record."""

RECORDS: Mapping[str, Any] = {
    "trainers": TrainerRun,
    "progress": Progress,
    "buffers": BufferRun,
    "interactions": ActorState,
    "scheduler": LearnerState,
    "snapshot": Snapshot,
}

# Fields of an earlier version that hold nothing which does not follow from others.
_GONE = re.compile(r"\['trainers'\]\[(?:(?!\]\[).)+\]\['run_key'\]")


def fields() -> dict[str, tuple[str, ...]]:
    """Return the names of the fields of each record of this version, as they are noted in every state.

    Example:
        >>> fields()["buffers"]
        ('state', 'inserted', 'newest_ms', 'size')
    """
    return {name: record._fields for name, record in RECORDS.items()}


def later_leaves(template: PyTree, known: Fields) -> dict[str, Any]:
    """Return, by name, the template's leaves in fields that a state was written without and that have a default.

    Without a default a field is one that nobody can do without, and its leaves are missing.

    Args:
        template: the document of a system as it begins, which has all fields of this version.
        known: what `fields` returned when the state was written.

    Example:
        >>> document = {"buffers": {"seen": BufferRun(state=1.0)._asdict()}}
        >>> later_leaves(document, {**fields(), "buffers": ("state", "inserted", "size")})
        {"['buffers']['seen']['newest_ms']": 0}
    """
    later = {
        (name, field)
        for name, record in RECORDS.items()
        for field in set(record._field_defaults) - set(known.get(name, record._fields))
    }
    leaves = jax.tree_util.tree_flatten_with_path(template)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if _field_of(path) in later}


def present_leaves(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored leaves, by name, without those of fields that this version has no more.

    Args:
        leaves: of a document, as they were stored.

    Example:
        >>> present_leaves({"['trainers']['fit']['runs']": 3, "['trainers']['fit']['run_key']": "a key"})
        {"['trainers']['fit']['runs']": 3}
    """
    return {name: leaf for name, leaf in leaves.items() if _GONE.fullmatch(name) is None}


def _field_of(path: Any) -> tuple[str, str] | None:
    """Return the record and the field that a leaf of the document lies in."""
    keys: list[Any] = [getattr(key, "key", getattr(key, "name", "")) for key in path]
    match keys:
        case ["trainers", _, "last", _, field]:
            return "progress", field
        case ["trainers" | "buffers" | "interactions" as name, _, field, *_]:
            return name, field
        case ["scheduler" | "snapshot" as name, field, *_]:
            return name, field
        case _:
            return None


def without(report: MatchReport, later: Mapping[str, Any]) -> MatchReport:
    """Return a report in which leaves of later fields are what they are: missing, so the template's were kept.

    Args:
        report: of a match in which they were given as if they had been stored.
        later: what `later_leaves` returned, or as much of it as was given.
    """
    taken = tuple(name for name in report.taken if name not in later)
    return report._replace(taken=taken, missing=(*report.missing, *later))
