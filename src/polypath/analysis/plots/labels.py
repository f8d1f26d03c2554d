"""Placement of names beside the marks of a chart, so that they cover as little as possible. Lengths may have any
unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle, given by its smaller and its larger coordinates."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Box:
        """Return the box centred at ``(x, y)``."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def overlap(self, other: Box) -> float:
        """Return the area that both boxes cover."""
        width, height = min(self.x1, other.x1) - max(self.x0, other.x0), min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0


class Spot(NamedTuple):
    """A place for a name: the offset of its centre from the mark, and the area in which the name covers other things or
    is outside the chart."""

    dx: float
    dy: float
    covered: float


def place(
    marks: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    taken: Sequence[Box],
    inside: Box,
    *,
    reach: int = 5,
) -> list[Spot]:
    """Return a spot for each name. Spots are chosen in the order of the names, so give the most important name first.

    Args:
        marks: centre of the mark of each name.
        sizes: width and height of each name.
        taken: boxes that names should not cover.
        inside: the chart's panel.
        reach: number of rings of positions to try around a mark. Ring 1 is next to the mark.
    """
    taken, spots = list(taken), []
    for (x, y), (width, height) in zip(marks, sizes, strict=True):
        best, least = Spot(0.0, 0.0, 0.0), float("inf")
        for dx, dy in _offsets(width, height, reach):
            at = Box.around(x + dx, y + dy, width, height)
            covered, outside = sum(map(at.overlap, taken)), width * height - at.overlap(inside)
            loss = covered + 4 * outside + 0.05 * (dx * dx + dy * dy) ** 0.5
            if loss < least:
                best, least = Spot(dx, dy, covered + outside), loss
        spots.append(best)
        taken.append(Box.around(x + best.dx, y + best.dy, width, height))
    return spots


def _offsets(width: float, height: float, reach: int) -> list[tuple[float, float]]:
    """Return the offsets to try, in order: right of the mark, left, above, below, at the corners, then farther out."""
    found = []
    for step in range(reach):
        up, side = height * (0.5 + step) + 5, width * 0.5 + 6 + 10 * step
        found += [(side, 0.0), (-side, 0.0), (0.0, up), (0.0, -up)]
        found += [(sx * side * 0.9, sy * up) for sx in (1, -1) for sy in (1, -1)]
    return found
