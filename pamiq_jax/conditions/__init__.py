"""When to train: pure conditions on counters, which say why and compose with `&`, `|` and `~`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.conditions.base import All, Any, Condition, ConditionFn, ConditionLike, Not
    from pamiq_jax.conditions.clock import every_seconds, fresh, max_duty, time_of_day
    from pamiq_jax.conditions.counts import always, every_versions, min_new, min_size
    from pamiq_jax.conditions.function import when
    from pamiq_jax.conditions.migration import MigratedArguments, migrated
    from pamiq_jax.conditions.progress import Count, Decision, Progress, Spans, Truth, Wake, first_change
    from pamiq_jax.conditions.ratio import samples_per_insert
    from pamiq_jax.conditions.satisfiable import check_satisfiable, contradiction
    from pamiq_jax.conditions.view import Term, condition_html, terms
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "base": "All Any Condition ConditionFn ConditionLike Not",
            "clock": "every_seconds fresh max_duty time_of_day",
            "counts": "always every_versions min_new min_size",
            "function": "when",
            "migration": "MigratedArguments migrated",
            "progress": "Count Decision Progress Spans Truth Wake first_change",
            "ratio": "samples_per_insert",
            "satisfiable": "check_satisfiable contradiction",
            "view": "Term condition_html terms",
        },
    )

__all__ = [
    "All",
    "Any",
    "Condition",
    "ConditionFn",
    "ConditionLike",
    "Count",
    "Decision",
    "MigratedArguments",
    "Not",
    "Progress",
    "Spans",
    "Term",
    "Truth",
    "Wake",
    "always",
    "check_satisfiable",
    "condition_html",
    "contradiction",
    "every_seconds",
    "every_versions",
    "first_change",
    "fresh",
    "max_duty",
    "migrated",
    "min_new",
    "min_size",
    "samples_per_insert",
    "terms",
    "time_of_day",
    "when",
]
