"""Surfaces: what covers a body, whatever its shape. Each takes the body's outline as a polygon."""

import math
from collections.abc import Sequence

import numpy as np

from faultlens.data.world.pen import Look, Pen, Point, contains, ellipse_points, shade

#: Letters as strokes in a box of one by one, y downwards.
_LETTERS: dict[str, list[list[Point]]] = {
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.25, 0.6), (0.75, 0.6)]],
    "E": [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0, 0), (0, 1)], [(1, 0), (0, 0.55), (1, 1)]],
    "L": [[(0, 0), (0, 1), (1, 1)]],
    "N": [[(0, 1), (0, 0), (1, 1), (1, 0)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 1)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
    "Z": [[(0, 0), (1, 0), (0, 1), (1, 1)]],
}
_DROP = (120, 190, 250)


def cover(pen: Pen, look: Look, outline: Sequence[Point]) -> None:
    """Put every surface that the look has on a body: metal, pattern, fur, then water."""
    shows = look.body()
    if "metallic" in look.has:
        _metal(pen, look, outline, shows)
    if "patterned" in look.has:
        _pattern(pen, look, outline, shows)
    if "hairy" in look.has:
        _fur(pen, look, outline, shows)
    if "wet" in look.has:
        _drops(pen, look, outline, shows)


def write(pen: Pen, look: Look, corner: Point, opposite: Point) -> None:
    """Write a word of three or four letters on a plate that fills a box; shows `text`."""
    shows = look.body() | {"text"}
    is_dark = sum(look.color) < 384
    plate, ink = ((245, 245, 240), (20, 20, 30)) if is_dark else ((25, 30, 60), (250, 250, 240))
    pen.rectangle(corner, opposite, plate, shows, outline=0.0)
    rng = look.details("text")
    word = rng.choice(sorted(_LETTERS), 3 + int(rng.random() < 0.5))
    (x0, y0), (x1, y1) = corner, opposite
    pitch = (x1 - x0) / len(word)
    width, height = 0.62 * pitch, 0.7 * (y1 - y0)
    for i, letter in enumerate(word):
        left, top = x0 + (i + 0.19) * pitch, y0 + 0.15 * (y1 - y0)
        for stroke in _LETTERS[letter]:
            points = [(left + u * width, top + v * height) for u, v in stroke]
            if look.is_mirrored:
                points = [(x0 + x1 - x, y) for x, y in points]
            pen.line(points, 0.045, ink, shows)


def _metal(pen: Pen, look: Look, outline: Sequence[Point], shows: frozenset[str]) -> None:
    """Bright and dark bands that follow the body, and a glint: light on polished metal."""
    xs, ys = [p[0] for p in outline], [p[1] for p in outline]
    top, height = min(ys), max(ys) - min(ys)
    is_light = sum(look.color) > 400
    tones = (0.55, 1.8, 0.4) if is_light else (1.8, 1.4, 0.5)
    for share, factor in zip((0.18, 0.32, 0.8), tones, strict=True):
        y = top + share * height
        span = _span(outline, y)
        if span is not None:
            low, high = span
            inset = 0.06 * (high - low)
            pen.line([(low + inset, y), (high - inset, y)], 0.05, shade(look.color, factor), shows)
    x = look.details("metallic").uniform(0.3, 0.7) * (max(xs) - min(xs)) + min(xs)
    y = top + 0.25 * height
    for dx, dy in ((0.16, 0), (0, 0.16)):
        pen.line([(x - dx, y - dy), (x + dx, y + dy)], 0.04, (255, 255, 255), shows)


def _pattern(pen: Pen, look: Look, outline: Sequence[Point], shows: frozenset[str]) -> None:
    """Stripes or spots, in a colour that stands out from the body's."""
    ink = shade(look.color, 0.4) if sum(look.color) > 330 else shade(look.color, 1.8)
    rng = look.details("patterned")
    if rng.random() < 0.5:
        xs = [p[0] for p in outline]
        low, high = min(xs), max(xs)
        n = max(3, round((high - low) / 0.2))
        for i in range(n):
            x = low + (i + 0.5) / n * (high - low)
            span = _span([(y, x_) for x_, y in outline], x)
            if span is not None:
                top, bottom = span
                pen.line([(x, top + 0.03), (x, bottom - 0.03)], 0.065, ink, shows)
        return
    for x, y in _places(rng, outline, 14, gap=0.17):
        pen.polygon(ellipse_points((x, y), (0.065, 0.065)), ink, shows, outline=0.0)


def _fur(pen: Pen, look: Look, outline: Sequence[Point], shows: frozenset[str]) -> None:
    """Short hairs that stand out all around the body, and some on it."""
    rng = look.details("hairy")
    corners = np.asarray(outline)
    center = corners.mean(axis=0)
    following = np.roll(corners, -1, axis=0)
    lengths = np.hypot(*(following - corners).T)
    ends = np.cumsum(lengths)
    at = (np.arange(36) + rng.random(36) * 0.6) / 36 * ends[-1]
    side = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
    share = 1 - (ends[side] - at) / np.maximum(lengths[side], 1e-9)
    start = corners[side] + share[:, None] * (following - corners)[side]
    out = start - center
    out /= np.maximum(np.hypot(*out.T), 1e-9)[:, None]
    tip = start + out * (0.1 + 0.06 * rng.random((36, 1))) + (-0.04, 0.05)
    dark, light = shade(look.color, 0.6), shade(look.color, 1.3)
    for i, (a, b) in enumerate(zip((start - 0.04 * out).tolist(), tip.tolist(), strict=True)):
        pen.line([tuple(a), tuple(b)], 0.035, dark if i % 2 else light, shows)
    for x, y in _places(rng, outline, 10, gap=0.15):
        pen.line([(x, y), (x - 0.05, y + 0.1)], 0.03, dark, shows)


def _drops(pen: Pen, look: Look, outline: Sequence[Point], shows: frozenset[str]) -> None:
    """Water: drops on the body, drips that fall from it, and a puddle below."""
    rng = look.details("wet")
    ys = [p[1] for p in outline]
    xs = [p[0] for p in outline]
    pen.ellipse(
        ((min(xs) + max(xs)) / 2, 0.8), (0.4 * (max(xs) - min(xs)), 0.06), _DROP, ("wet",), 0.0
    )
    falling = [
        (x, float(rng.uniform(max(ys) - 0.05, max(ys) + 0.2)))
        for x in np.linspace(min(xs) + 0.1, max(xs) - 0.1, 5).tolist()
    ]
    for i, (x, y) in enumerate(_places(rng, outline, 8, gap=0.2) + falling):
        tags = shows if i < 8 else frozenset({"wet"})
        drop = [(x, y - 0.11), *ellipse_points((x, y + 0.02), (0.05, 0.06))[:11]]
        pen.polygon(drop, _DROP, tags, outline=0.0)
        pen.line([(x - 0.015, y), (x - 0.015, y + 0.02)], 0.03, (255, 255, 255), tags)


def _places(rng: np.random.Generator, outline: Sequence[Point], n: int, gap: float) -> list[Point]:
    """Return at most n places inside a body, about `gap` apart, in random order."""
    corners = np.asarray(outline)
    low, high = corners.min(axis=0), corners.max(axis=0)
    grid = np.stack(
        np.meshgrid(*(np.arange(a + gap / 2, b, gap) for a, b in zip(low, high, strict=True))), -1
    ).reshape(-1, 2)
    grid += (rng.random(grid.shape) - 0.5) * gap * 0.7
    grid = grid[contains(outline, grid)]
    chosen = rng.permutation(len(grid))[:n]
    return [(float(x), float(y)) for x, y in grid[chosen]]


def _span(outline: Sequence[Point], y: float) -> Point | None:
    """Return where a horizontal line enters and leaves a polygon; None where it misses it."""
    crossings = []
    for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if (y0 > y) != (y1 > y):
            crossings.append(x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    if len(crossings) < 2 or not math.isfinite(sum(crossings)):
        return None
    return min(crossings), max(crossings)
