"""Plots of Unicode braille characters: each has two by four dots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

# The bit of each dot, by row from the top, then by column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800

type Grid = list[list[int]]
"""Dots of each character, by row from the top, then by column."""


class Axes(NamedTuple):
    """The size of a plot and the values at its edges.

    Attributes:
        columns: characters from left to right.
        rows: characters from top to bottom.
        right: the value of x at the right edge; 0 is at the left.
        top: the value of y at the upper edge; 0 is at the bottom.
    """

    columns: int
    rows: int
    right: float
    top: float

    def dot(self, x: float, y: float) -> tuple[int, int]:
        """Return column and row of the dot nearest to a point, counted from the lower left."""
        column = round(x / self.right * (2 * self.columns - 1)) if self.right > 0 else 0
        row = round(y / self.top * (4 * self.rows - 1))
        return min(max(column, 0), 2 * self.columns - 1), min(max(row, 0), 4 * self.rows - 1)


def scatter(axes: Axes, points: Iterable[tuple[float, float]]) -> Grid:
    """Return a grid with one dot for each point.

    Example:
        >>> characters(scatter(Axes(columns=2, rows=1, right=1.0, top=1.0), [(0, 0), (1, 1)]))
        ['⡀⠈']
    """
    grid = [[0] * axes.columns for _ in range(axes.rows)]
    for x, y in points:
        _set(grid, *axes.dot(x, y))
    return grid


def line(axes: Axes, points: Sequence[tuple[float, float]]) -> Grid:
    """Return a grid with a connected line through points that are ordered by x.

    Example:
        >>> characters(line(Axes(columns=4, rows=1, right=1.0, top=1.0), [(0, 0), (0.5, 0.5), (1, 1)]))
        ['⣀⠔⠒⠉']
    """
    grid = [[0] * axes.columns for _ in range(axes.rows)]
    dots = sorted({axes.dot(x, y)[0]: axes.dot(x, y)[1] for x, y in points}.items())
    for (column, row), (next_column, next_row) in pairwise(dots):
        span = next_column - column
        for step in range(span):
            start, end = (row + round((next_row - row) * part / span) for part in (step, step + 1))
            for height in range(start, end, 1 if end > start else -1) or (start,):
                _set(grid, column + step, height)
    if dots:
        _set(grid, *dots[-1])
    return grid


def _set(grid: Grid, column: int, row: int) -> None:
    from_top = 4 * len(grid) - 1 - row
    grid[from_top // 4][column // 2] |= _DOTS[from_top % 4][column % 2]


def characters(grid: Grid) -> list[str]:
    """Return the rows of a grid as text; a character without dots is an ordinary space.

    Example:
        >>> characters([[0xFF, 0x01]])
        ['⣿⠁']
    """
    return ["".join(chr(_BLANK + dots) if dots else " " for dots in row) for row in grid]
