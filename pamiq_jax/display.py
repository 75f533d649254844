"""How values show themselves: one short line for a terminal, a little HTML for a notebook."""

from __future__ import annotations

import contextvars
import dataclasses
import html
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast, override

import jax
import numpy as np
from jax.core import Tracer

from pamiq_jax.types import PyTree

INK, PAPER, EDGE, ACCENT, ALARM, WRONG = "#1f2937", "#f3f4f6", "#9ca3af", "#ffe8a3", "#fecaca", "#b91c1c"
_LETTER, _SMALL_LETTER, _HEIGHT = 7.4, 6.4, 34
_IS_DRAWN = contextvars.ContextVar("is_drawn", default=False)


def summary(tree: PyTree) -> str:
    """Return how many numbers a tree holds, by its first keys if it is a dict.

    Example:
        >>> summary({"encoder": {"w": np.zeros((3, 4)), "b": np.zeros(4)}, "decoder": np.zeros(5)})
        '{encoder: 16, decoder: 5}'
        >>> summary(np.zeros((3, 4)))
        '12'
    """
    if isinstance(tree, Mapping):
        by_name = cast(Mapping[Any, PyTree], tree)
        return "{" + ", ".join(f"{name}: {numbers(value):,}" for name, value in by_name.items()) + "}"
    return f"{numbers(tree):,}"


def numbers(tree: PyTree) -> int:
    """Return how many numbers there are in a tree.

    Example:
        >>> numbers({"w": np.zeros((3, 4)), "b": 1.0})
        13
    """
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def value_or_form(leaf: Any) -> str:
    """Return a scalar's value; the form of an array, and of what is being traced or was donated.

    Example:
        >>> value_or_form(np.int32(3)), value_or_form(jax.ShapeDtypeStruct((2,), np.int32))
        ('3', 'int32[2]')
    """
    is_known = np.shape(leaf) == () and not isinstance(leaf, Tracer | jax.ShapeDtypeStruct)
    is_gone = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted()
    if is_known and not is_gone:
        return str(np.asarray(leaf))
    return f"{getattr(leaf, 'dtype', '?')}{list(np.shape(leaf))}".replace(" ", "")


class Shown:
    """What a state derives from, before `flax.struct.PyTreeNode`, to print itself in one line.

    A dataclass's own text has every number in it. A subclass may define `__repr__`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        shown = vars(cls).get("__repr__", Shown.__repr__)
        super().__init_subclass__(**options)
        cls.__repr__ = shown  # a dataclass has put its own there

    @override
    def __repr__(self) -> str:
        facts: list[str] = []
        for field in dataclasses.fields(cast(Any, self)):
            value = getattr(self, field.name)
            if not field.metadata.get("pytree_node", True) or field.name == "rng_key":
                continue
            is_leaf = jax.tree.structure(value) == jax.tree.structure(0)
            inner = repr(value) if isinstance(value, Shown) else summary(value)
            facts.append(f"{field.name}={value_or_form(value) if is_leaf else inner}")
        return f"{type(self).__name__}({', '.join(facts)})"

    def _repr_html_(self) -> str | None:
        # treescope asks what it draws for this too, and would be asked again.
        if _IS_DRAWN.get():
            return None
        token = _IS_DRAWN.set(True)
        try:
            return tree_html(self)
        finally:
            _IS_DRAWN.reset(token)


def tree_html(tree: PyTree) -> str:
    """Return a tree as HTML that can be unfolded, made by treescope."""
    import treescope  # takes a while, and only notebooks want it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, for names that treescope looks at
        return treescope.render_to_html(tree, roundtrip_mode=False)


def escape(text: object) -> str:
    """Return text as it is written in HTML.

    Example:
        >>> escape("<x>")
        '&lt;x&gt;'
    """
    return html.escape(str(text))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table.

    Example:
        >>> table(["name"], [["<x>"]])
        '<table><thead><tr><th>name</th></tr></thead><tbody><tr><td>&lt;x&gt;</td></tr></tbody></table>'
    """
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


class Box(NamedTuple):
    """A box in a drawing.

    Attributes:
        label: the text in it; a newline begins a smaller line.
        x: of its middle.
        y: of its middle.
        fill: its color.
        edge: the color of its border.
        is_dashed: for what is not there.
    """

    label: str
    x: float
    y: float
    fill: str = PAPER
    edge: str = EDGE
    is_dashed: bool = False

    @property
    def width(self) -> float:
        """So that the longest line fits."""
        first, *rest = self.label.split("\n")
        return max(70.0, 18 + _LETTER * len(first), *(18 + _SMALL_LETTER * len(line) for line in rest))

    @property
    def height(self) -> float:
        """By the number of lines."""
        return _HEIGHT + 15 * self.label.count("\n")


class Arrow(NamedTuple):
    """An arrow from one box to another.

    Attributes:
        source: the name of a box.
        target: the name of a box.
        label: beside it.
        bend: how far its middle is moved to its left, in pixels.
        is_dashed: for what is only looked at.
    """

    source: str
    target: str
    label: str = ""
    bend: float = 0.0
    is_dashed: bool = False


def drawing(boxes: Mapping[str, Box], arrows: Iterable[Arrow], caption: str) -> str:
    """Return boxes and arrows as an SVG of its own size.

    Args:
        boxes: by name.
        arrows: between them.
        caption: written below; read out where pictures are not seen.
    """
    arrows = tuple(arrows)
    drawn = [_arrow(boxes[arrow.source], boxes[arrow.target], arrow) for arrow in arrows]
    drawn += [_box(box) for box in boxes.values()]
    depths = [_depth(boxes[arrow.source], boxes[arrow.target], arrow.bend) for arrow in arrows]
    width = max([box.x + box.width / 2 for box in boxes.values()] + [6.4 * len(caption)]) + 20
    lowest = [box.y + box.height / 2 for box in boxes.values()]
    height = max([*lowest, *depths], default=0) + 50
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'style="max-width:100%;background:#fff" role="img" font-family="sans-serif" font-size="13">'
        f"<title>{escape(caption)}</title>"
        f'<text x="20" y="{height - 14:.0f}" fill="#4b5563" font-size="12">{escape(caption)}</text>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>'
    )
    return head + "".join(drawn) + "</svg>"


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    first, *rest = box.label.split("\n")
    y = top + 21
    lines = f'<text x="{box.x:.0f}" y="{y:.0f}" text-anchor="middle" fill="{INK}">{escape(first)}</text>'
    for number, line in enumerate(rest, 1):
        lines += (
            f'<text x="{box.x:.0f}" y="{y + 15 * number:.0f}" text-anchor="middle" fill="#6b7280" font-size="11">'
            f"{escape(line)}</text>"
        )
    dash = ' stroke-dasharray="5 4"' if box.is_dashed else ""
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="8" '
        f'fill="{box.fill}" stroke="{box.edge}"{dash}/>{lines}'
    )


def _arrow(source: Box, target: Box, arrow: Arrow) -> str:
    middle_x, middle_y = _middle(source, target, arrow.bend)
    start = _border(source, middle_x, middle_y)
    end = _border(target, middle_x, middle_y)
    dash = ' stroke-dasharray="5 4"' if arrow.is_dashed else ""
    path = f"M{start[0]:.0f},{start[1]:.0f} Q{middle_x:.0f},{middle_y:.0f} {end[0]:.0f},{end[1]:.0f}"
    line = f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{dash} marker-end="url(#tip)"/>'
    if not arrow.label:
        return line
    x, y = (start[0] + 2 * middle_x + end[0]) / 4, (start[1] + 2 * middle_y + end[1]) / 4
    return line + (
        f'<text x="{x:.0f}" y="{y - 4:.0f}" text-anchor="middle" font-size="11" fill="#4b5563" '
        f'stroke="#fff" stroke-width="3" paint-order="stroke">{escape(arrow.label)}</text>'
    )


def _middle(source: Box, target: Box, bend: float) -> tuple[float, float]:
    """Return the point that an arrow bends towards."""
    dx, dy = target.x - source.x, target.y - source.y
    length = max((dx * dx + dy * dy) ** 0.5, 1.0)
    return (source.x + target.x) / 2 + bend * dy / length, (source.y + target.y) / 2 - bend * dx / length


def _depth(source: Box, target: Box, bend: float) -> float:
    return (source.y + 2 * _middle(source, target, bend)[1] + target.y) / 4 + 20


def _border(box: Box, x: float, y: float) -> tuple[float, float]:
    """Return where the line from the middle of a box to a point crosses its border."""
    dx, dy = x - box.x, y - box.y
    scale = min(
        box.width / 2 / abs(dx) if dx else float("inf"),
        box.height / 2 / abs(dy) if dy else float("inf"),
    )
    return (box.x, box.y) if scale == float("inf") else (box.x + dx * scale, box.y + dy * scale)
