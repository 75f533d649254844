"""Checkpoints: states that are written whole or not at all, and only what is new in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.checkpoint.manifest import StateInfo
    from pamiq_jax.checkpoint.matching import MatchReport, match, named_leaves
    from pamiq_jax.checkpoint.pruning import PruneReport
    from pamiq_jax.checkpoint.retention import Retention, any_of, best, every_nth, latest_n
    from pamiq_jax.checkpoint.store import StateStore
    from pamiq_jax.checkpoint.verification import StateReport
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "manifest": "StateInfo",
            "matching": "MatchReport match named_leaves",
            "pruning": "PruneReport",
            "retention": "Retention any_of best every_nth latest_n",
            "store": "StateStore",
            "verification": "StateReport",
        },
    )

__all__ = [
    "MatchReport",
    "PruneReport",
    "Retention",
    "StateInfo",
    "StateReport",
    "StateStore",
    "any_of",
    "best",
    "every_nth",
    "latest_n",
    "match",
    "named_leaves",
]
