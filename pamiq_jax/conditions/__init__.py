"""When to train: pure conditions on counters, which say why and compose with `&`, `|` and `~`."""

from pamiq_jax.conditions.base import All, Any, Condition, ConditionFn, ConditionLike, Not, check_satisfiable
from pamiq_jax.conditions.clock import every_seconds, time_of_day
from pamiq_jax.conditions.counts import always, min_new, min_size, samples_per_insert
from pamiq_jax.conditions.function import as_condition, when
from pamiq_jax.conditions.progress import Count, Decision, Progress, Truth, Wake

__all__ = [
    "All",
    "Any",
    "Condition",
    "ConditionFn",
    "ConditionLike",
    "Count",
    "Decision",
    "Not",
    "Progress",
    "Truth",
    "Wake",
    "always",
    "as_condition",
    "check_satisfiable",
    "every_seconds",
    "min_new",
    "min_size",
    "samples_per_insert",
    "time_of_day",
    "when",
]
