"""What values that have fields say of themselves: a NamedTuple or a dataclass in one line, and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from pamiq_jax.display import escape, numbers, summary
from pamiq_jax.trees import describe_leaf, leaf_names

_MOST_LEAVES = 12


def facts_text(self: Any) -> str:
    """Return a value that has fields in one line: those that are not as by default, arrays by how many numbers.

    Args:
        self: a NamedTuple or a dataclass, which takes this into its class.

    Example:
        >>> import numpy as np
        >>> from typing import NamedTuple
        >>> class Point(NamedTuple):
        ...     x: Any
        ...     label: str = ""
        >>> facts_text(Point({"a": np.zeros(3)}))
        'Point(x={a: 3})'
    """
    return f"{type(self).__name__}({', '.join(f'{name}={_words(field)}' for name, field in _facts(self))})"


def facts_html(self: Any) -> str:
    """Return a value that has fields as an HTML table: those that are not as by default, arrays by their forms.

    Args:
        self: a NamedTuple or a dataclass, which takes this into its class.
    """
    facts = {name: field for name, field in _facts(self) if name != "kind"}
    title = f"{type(self).__name__} {getattr(self, 'kind', '')}"
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{_cell(field)}</td></tr>" for name, field in facts.items())
    return f"<p><b>{escape(title.strip())}</b></p><table><tbody>{rows}</tbody></table>"


def _facts(value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        defaults = {field.name: field.default for field in dataclasses.fields(value)}
    else:
        defaults = {name: value._field_defaults.get(name, dataclasses.MISSING) for name in value._fields}
    for name, default in defaults.items():
        field = getattr(value, name)
        is_default = field is default or (isinstance(field, str | int | float | tuple) and field == default)
        if not is_default and not _is_ours(field):
            yield name, field


def _is_ours(field: Any) -> bool:
    """Return whether it is a function that a factory has put there, which says nothing to whoever called that."""
    function = getattr(field, "func", field)
    return hasattr(function, "__qualname__") and str(function.__module__).startswith("pamiq_jax.")


def _words(value: Any) -> str:
    if any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)):
        return summary(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if type(value).__repr__ is object.__repr__:
        return type(value).__name__
    return repr(value) if not hasattr(value, "__qualname__") else value.__qualname__.rpartition(".")[2]


def _cell(value: Any) -> str:
    leaves = jax.tree.leaves(value)
    if not any(hasattr(leaf, "shape") for leaf in leaves):
        return escape(value if isinstance(value, str) else _words(value))
    pairs = list(zip(leaf_names(value), leaves, strict=True))
    lines = [f"{name} {describe_leaf(leaf)}" if len(pairs) > 1 else describe_leaf(leaf) for name, leaf in pairs]
    if len(lines) > _MOST_LEAVES:
        lines = [*lines[: _MOST_LEAVES - 1], f"… and {len(lines) - _MOST_LEAVES + 1} more"]
    return "<br>".join(map(escape, [*lines, f"{numbers(value):,} numbers"]))
