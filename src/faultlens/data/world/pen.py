"""The pen: collects coloured shapes, each tagged with the attributes that it shows.

A figure is drawn in its own space: it faces right, x grows to the right and y downwards, its body
spans about [-1, 1] by [-0.75, 0.75] and it stands on y = 0.75.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.data.world.names import ATTRIBUTES

Color = tuple[int, int, int]
Point = tuple[float, float]

_CIRCLE = tuple((math.cos(a), math.sin(a)) for a in (2 * math.pi * i / 20 for i in range(20)))
OUTLINE = 0.028


@dataclass(frozen=True, slots=True)
class Shape:
    """One filled polygon, or one line of a width.

    Attributes:
        points: Corners, in the figure's space.
        color: RGB, 0–255.
        shows: Attributes that this shape makes visible.
        width: Width of a line in the figure's units; None fills the polygon.
    """

    points: Sequence[Point]
    color: Color
    shows: frozenset[str]
    width: float | None = None


@dataclass(slots=True)
class Pen:
    """Draws shapes, later ones over earlier ones.

    Attributes:
        shapes: What was drawn.

    Example:
        >>> pen = Pen()
        >>> pen.ellipse((0, 0), (1, 0.5), (200, 0, 0), ("wheels",))
        >>> [len(s.points) for s in pen.shapes]  # the fill, then its outline
        [20, 21]
    """

    shapes: list[Shape] = field(default_factory=list)

    def polygon(
        self,
        points: Sequence[Point],
        color: Color,
        shows: Iterable[str] = (),
        outline: float = OUTLINE,
    ) -> None:
        """Fill a polygon; `outline` is the width of its darker border, 0 for none."""
        tags = frozenset(shows)
        self.shapes.append(Shape(points, color, tags))
        if outline:
            self.line([*points, points[0]], outline, shade(color, 0.5), tags)

    def line(
        self, points: Sequence[Point], width: float, color: Color, shows: Iterable[str] = ()
    ) -> None:
        """Draw a line through the points."""
        self.shapes.append(Shape(points, color, frozenset(shows), width))

    def ellipse(
        self,
        center: Point,
        radii: Point,
        color: Color,
        shows: Iterable[str] = (),
        outline: float = OUTLINE,
    ) -> None:
        """Fill an ellipse with its axes along x and y."""
        self.polygon(ellipse_points(center, radii), color, shows, outline)

    def rectangle(
        self,
        corner: Point,
        opposite: Point,
        color: Color,
        shows: Iterable[str] = (),
        outline: float = OUTLINE,
    ) -> None:
        """Fill a rectangle between two opposite corners."""
        (x0, y0), (x1, y1) = corner, opposite
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, shows, outline)


@dataclass(frozen=True, slots=True)
class Look:
    """What a figure is to look like.

    Attributes:
        has: Attributes to draw.
        color: Body colour.
        rng: Source of the figure's proportions.
        seed: Of the details of single attributes, each with a stream of its own.
        is_mirrored: Whether the figure will be mirrored, so that text must be written backwards.
    """

    has: frozenset[str]
    color: Color
    rng: np.random.Generator
    seed: int = 0
    is_mirrored: bool = False

    def vary(self, low: float, high: float) -> float:
        """Return a proportion between two bounds."""
        return low + (high - low) * self.rng.random()

    def details(self, attribute: str) -> np.random.Generator:
        """Return chance for one attribute: drawing it or not leaves all else as it is."""
        return np.random.default_rng([self.seed, ATTRIBUTES.index(attribute)])

    def body(self) -> frozenset[str]:
        """Return the attributes that the whole body shows."""
        return self.has & _BODY


_BODY = frozenset({"hairy", "metallic", "rectangular", "wet", "long", "tall", "patterned"})


def ellipse_points(center: Point, radii: Point, angle: float = 0.0) -> list[Point]:
    """Return 20 points of an ellipse, turned by an angle in radians (clockwise, as y is down)."""
    c, s = math.cos(angle), math.sin(angle)
    (cx, cy), (rx, ry) = center, radii
    return [(cx + rx * x * c - ry * y * s, cy + rx * x * s + ry * y * c) for x, y in _CIRCLE]


def shade(color: Color, factor: float) -> Color:
    """Return a darker (factor < 1) or lighter (factor > 1, towards white) colour.

    Example:
        >>> shade((100, 50, 0), 0.5), shade((100, 50, 0), 1.5)
        ((50, 25, 0), (177, 152, 127))
    """
    if factor <= 1:
        r, g, b = (int(v * factor) for v in color)
    else:
        share = min(factor - 1, 1.0)
        r, g, b = (int(v + (255 - v) * share) for v in color)
    return r, g, b


def contains(polygon: Sequence[Point], points: FloatArray) -> FloatArray:
    """Return which of the points (N, 2) lie inside a polygon, (N,) bool, by the crossing rule."""
    corners = np.asarray(polygon)
    x0, y0 = corners[:, :1], corners[:, 1:]
    x1, y1 = np.roll(corners, -1, axis=0)[:, :1], np.roll(corners, -1, axis=0)[:, 1:]
    x, y = points[:, 0], points[:, 1]
    spans = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crosses = x < (x1 - x0) * (y - y0) / (y1 - y0) + x0
    inside: FloatArray = (spans & crosses).sum(axis=0) % 2 == 1
    return inside
