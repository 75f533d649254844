"""What a saved system and the one that is to go on from it do not have in common, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pamiq_jax.checkpoint import MatchReport
from pamiq_jax.errors import StateMismatchError

_PART = re.compile(r"^\['(trainers|buffers|models|interactions)'\]\['([^']*)'\]")
_PUBLISHED = re.compile(r"^\['snapshot'\]\['params'\]\['([^']*)'\]")


def system_mismatch(report: MatchReport) -> StateMismatchError:
    """Return the error that says which trainers, models, buffers and interactions differ, then which leaves.

    Args:
        report: on all leaves of the system.

    Example:
        >>> print(system_mismatch(MatchReport((), ("['trainers']['fit'].steps",), {}, ("['trainers']['old'].steps",))))
        the stored leaves differ from the template in 2 places:
          trainer 'fit': nothing of it is stored
          trainer 'old': stored, but not in this system
        build the system as it was when the state was saved, say what has a new name with
        rename={"trainers": {"old": "fit"}}, or give partial=True to begin anew with what does not fit.
        Leaf by leaf:
          ['trainers']['fit'].steps: missing, nothing is stored under this name
          ['trainers']['old'].steps: unexpected, the template has no leaf of this name
    """
    taken, missing = Counter(map(_part, report.taken)), Counter(map(_part, report.missing))
    different, unexpected = Counter(map(_part, report.different)), Counter(map(_part, report.unexpected))
    summary: list[str] = []
    gone: dict[str, list[str]] = {}
    new: dict[str, list[str]] = {}
    for part in sorted(missing | different | unexpected):
        kind, name = part
        if missing[part] and not (taken[part] or different[part] or unexpected[part]):
            verdict = "nothing of it is stored"
            new.setdefault(kind, []).append(name)
        elif unexpected[part] and not (taken[part] or different[part] or missing[part]):
            verdict = "stored, but not in this system"
            gone.setdefault(kind, []).append(name)
        else:
            counts = {"missing": missing[part], "of another form": different[part], "unexpected": unexpected[part]}
            verdict = ", ".join(f"{_leaves(count)} {what}" for what, count in counts.items() if count)
        summary.append(f"{_SINGULAR.get(kind, kind)} {name!r}: {verdict}" if name else f"{kind}: {verdict}")
    remedy = (
        "build the system as it was when the state was saved, say what has a new name with\n"
        f"rename={_rename(gone, new)}, or give partial=True to begin anew with what does not fit"
    )
    return StateMismatchError(report.differences, summary=summary, remedy=remedy)


_SINGULAR = {"trainers": "trainer", "buffers": "buffer", "models": "model", "interactions": "interaction"}


def _part(leaf: str) -> tuple[str, str]:
    if (found := _PART.match(leaf)) is not None:
        return found.group(1), found.group(2)
    if (found := _PUBLISHED.match(leaf)) is not None:
        return "models", found.group(1)
    return leaf.split("]")[0].strip("['"), ""


def _leaves(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def _rename(gone: dict[str, list[str]], new: dict[str, list[str]]) -> str:
    """Return what `launch(rename=)` wants, with the names in question where each is one."""
    pairs = {kind: (gone[kind][0], new[kind][0]) for kind in gone if len(gone[kind]) == len(new.get(kind, ())) == 1}
    shown: Iterable[tuple[str, tuple[str, str]]] = pairs.items() or [("trainers", ("old name", "new name"))]
    return "{" + ", ".join(f'"{kind}": {{"{old}": "{name}"}}' for kind, (old, name) in shown) + "}"
