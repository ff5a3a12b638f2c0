"""From a scene to a picture: pixels, and the mask of every attribute."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from faultlens.data.world import backdrop
from faultlens.data.world.animals import bird, cat, deer, dog, equine, frog
from faultlens.data.world.names import ATTRIBUTES, COLORS
from faultlens.data.world.pen import Look, Pen, Shape
from faultlens.data.world.scene import Scene
from faultlens.data.world.vehicles import car, plane, ship, truck

SIDE = 64
#: Pictures are drawn so many times larger, then averaged down.
_OVERSAMPLING = 3
#: Pixels from which an attribute counts as visible.
MIN_PIXELS = 6
_FIGURES = {
    "truck": truck, "car": car, "plane": plane, "ship": ship, "cat": cat, "dog": dog,
    "equine": equine, "deer": deer, "frog": frog, "bird": bird,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A rendered scene.

    Attributes:
        pixels: RGB.
        attributes: Which attributes are visible, in the order of `ATTRIBUTES`: in at least 6
            pixels.
        tags: Row of `shown` that holds for each pixel.
        shown: Which attributes are seen together in some pixel.
        scene: What was rendered.
    """

    pixels: UInt8[np.ndarray, "64 64 3"]
    attributes: Bool[np.ndarray, "18"]
    tags: UInt8[np.ndarray, "64 64"]
    shown: Bool[np.ndarray, "T 18"]
    scene: Scene

    @property
    def masks(self) -> Bool[np.ndarray, "18 64 64"]:
        """Where each attribute is visible."""
        return np.moveaxis(self.shown[self.tags], -1, 0)


def render(scene: Scene) -> Picture:
    """Draw a scene.

    Args:
        scene: From `faultlens.data.world.scene.draw`, or changed by hand.

    Returns:
        Its picture; equal scenes give equal pixels.

    Example:
        >>> from faultlens.data.world.scene import draw
        >>> picture = render(draw(np.random.default_rng(7), label="bird"))
        >>> picture.pixels.shape, picture.masks.shape, picture.pixels.dtype
        ((64, 64, 3), (18, 64, 64), dtype('uint8'))
    """
    # One stream a part: changing one part leaves the others as they are.
    behind, inside, before, over, noise = np.random.default_rng(scene.seed).spawn(5)
    canvas = backdrop.paint(scene.background, SIDE * _OVERSAMPLING, behind)
    pen = Pen()
    look = Look(scene.attributes, COLORS[scene.color], inside, scene.seed, scene.is_mirrored)
    _FIGURES[scene.label](pen, look)
    placed = _place(pen.shapes, scene)
    if scene.occluder is not None:
        placed += _place(backdrop.occluder(scene.occluder, before), None)
    _rasterize(canvas, placed)
    small = canvas.reduce(_OVERSAMPLING)
    if scene.watermark:
        small = backdrop.watermark(small, over)
    tags, shown = _tags(placed)
    n_pixels = np.bincount(tags.ravel(), minlength=len(shown)) @ shown
    lit = backdrop.illuminate(np.asarray(small), scene.light, noise)
    return Picture(lit, n_pixels >= MIN_PIXELS, tags, shown, scene)


class _Placed(NamedTuple):
    """A shape on the picture; points are flat lists of x, y: what Pillow takes quickest."""

    shape: Shape
    points: list[float]
    oversampled: list[float]
    width: float


def _place(shapes: Sequence[Shape], scene: Scene | None) -> list[_Placed]:
    """Move shapes from the figure's space, or without a scene from the picture's, to pixels."""
    half = SIDE / 2
    scale, matrix, center = half, np.eye(2) * half, np.array([half, half])
    if scene is not None:
        scale = half * scene.size
        cos, sin = math.cos(scene.angle), math.sin(scene.angle)
        mirror = -1 if scene.is_mirrored else 1
        matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1])
        center = half * (1 + np.array(scene.shift))
    numbers = chain.from_iterable(chain.from_iterable(s.points for s in shapes))
    corners = np.fromiter(numbers, float).reshape(-1, 2) @ matrix.T + center
    small, large = corners.ravel().tolist(), (_OVERSAMPLING * corners).ravel().tolist()
    placed, start = [], 0
    for s in shapes:
        stop = start + 2 * len(s.points)
        placed.append(_Placed(s, small[start:stop], large[start:stop], scale * (s.width or 0)))
        start = stop
    return placed


def _rasterize(canvas: Image.Image, placed: Sequence[_Placed]) -> None:
    pencil = ImageDraw.Draw(canvas)
    for shape, _, points, width in placed:
        if shape.width is None:
            pencil.polygon(points, shape.color)
        else:
            pencil.line(points, shape.color, max(1, round(width * _OVERSAMPLING)))


def _tags(
    placed: Sequence[_Placed],
) -> tuple[UInt8[np.ndarray, "64 64"], Bool[np.ndarray, "T 18"]]:
    """Paint every pixel with the number of its topmost shape's attributes; row 0 shows none."""
    canvas = Image.new("L", (SIDE, SIDE))
    pencil = ImageDraw.Draw(canvas)
    numbers: dict[frozenset[str], int] = {frozenset(): 0}
    for shape, points, _, width in placed:
        number = numbers.setdefault(shape.shows, len(numbers))
        if shape.width is None:
            pencil.polygon(points, number)
        else:
            pencil.line(points, number, max(1, round(width)))
    shown = np.array([[a in tags for a in ATTRIBUTES] for tags in numbers])
    return np.asarray(canvas), shown
