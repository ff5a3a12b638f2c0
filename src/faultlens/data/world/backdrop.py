"""What is around the object: background, occluder, watermark and light."""

from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from faultlens.data.world.pen import Color, Pen, Shape, ellipse_points

_BASE: dict[str, tuple[Color, Color]] = {  # upper and lower colour of the main field
    "sky": ((120, 180, 240), (205, 228, 250)),
    "road": ((112, 112, 116), (84, 84, 88)),
    "grass": ((120, 176, 72), (72, 130, 44)),
    "water": ((28, 108, 140), (14, 66, 104)),
    "snow": ((238, 244, 250), (216, 228, 240)),
    "room": ((222, 204, 170), (206, 184, 148)),
}
_HAZE: dict[str, Color] = {
    "road": (200, 204, 206), "grass": (214, 226, 214), "water": (214, 222, 226),
    "snow": (172, 186, 204),
}  # fmt: skip
_TINTS = {
    "neutral": (1.0, 1.0, 1.0),
    "dark": (0.5, 0.5, 0.55),
    "bright": (1.35, 1.35, 1.3),
    "warm": (1.18, 0.97, 0.68),
    "cold": (0.72, 0.95, 1.2),
}
_NOISE = 9.0  # largest change of a value


def paint(background: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a square RGB picture of a background alone."""
    canvas = _field(background, side).copy()
    pencil = ImageDraw.Draw(canvas)
    horizon = side * (0.16 + 0.14 * rng.random())
    if background in _HAZE:
        pencil.rectangle((0, 0, side, horizon), _HAZE[background])
    else:
        horizon = 0.0
    _DETAILS[background](pencil, side, horizon, rng)
    return canvas


def _clouds(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    for _ in range(4):
        x, y = rng.random(2) * side
        w = side * (0.1 + 0.08 * rng.random())
        for dx, dy, r in ((-0.8, 0.1, 0.7), (0, -0.15, 1.0), (0.8, 0.1, 0.75)):
            pencil.ellipse(_box(x + dx * w, y + dy * w, r * w, r * w * 0.55), (250, 252, 255))


def _lane(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    pencil.line([(0, top), (side, top)], (60, 60, 62), 4)
    center = side * (0.35 + 0.3 * rng.random())
    depth = side - top
    for a, b in ((0.05, 0.16), (0.26, 0.44), (0.58, 0.9)):
        y0, y1 = top + a * depth, top + b * depth
        w0, w1 = side * (0.008 + 0.035 * a), side * (0.008 + 0.035 * b)
        pencil.polygon(
            [(center - w0, y0), (center + w0, y0), (center + w1, y1), (center - w1, y1)],
            (246, 240, 220),
        )
    for sign in (-1, 1):
        pencil.line(
            [(center + sign * 0.12 * side, top), (center + sign * 0.62 * side, side)],
            (236, 226, 190), 4,
        )  # fmt: skip


def _blades(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    x = rng.random(70) * side
    y = top + (side - top) * rng.random(70)
    lean = (rng.random(70) - 0.5) * 0.05 * side
    tones = ((52, 110, 34), (146, 200, 88))
    for i, (u, v, d) in enumerate(zip(x.tolist(), y.tolist(), lean.tolist(), strict=True)):
        pencil.line([(u, v), (u + d, v - 0.06 * side)], tones[i % 2], 3)


def _waves(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    for k in range(7):
        y = top + (side - top) * (k + 0.5) / 7
        phase = rng.random() * 6.3
        length = side * (0.09 + 0.05 * k / 7)
        xs = np.linspace(0, side, 33)
        ys = y + 0.018 * side * np.sin(xs / length * 3.14 + phase)
        tone = (150, 208, 222) if k % 2 else (84, 160, 186)
        pencil.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), tone, 4)


def _flakes(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    for x, y in (rng.random((3, 2)) * (side, side - top)).tolist():
        hill = _box(x, top + y + 0.12 * side, 0.35 * side, 0.1 * side)
        pencil.arc(hill, 190, 350, (176, 194, 216), 4)
    for x, y in (rng.random((26, 2)) * side).tolist():
        r = side * 0.013
        pencil.ellipse(_box(x, y, r, r), (255, 255, 255), (186, 202, 222))


def _wall(pencil: ImageDraw.ImageDraw, side: int, top: float, rng: np.random.Generator) -> None:
    floor = side * (0.66 + 0.12 * rng.random())
    pencil.rectangle((0, floor, side, side), (142, 92, 56))
    for x in np.linspace(-0.5, 1.5, 9) * side:
        pencil.line([(side / 2 + (x - side / 2) * 0.6, floor), (x, side)], (108, 66, 38), 3)
    pencil.rectangle((0, floor - 0.03 * side, side, floor), (246, 240, 226))
    left = side * (0.06 if rng.random() < 0.5 else 0.64)
    up = side * (0.06 + 0.06 * rng.random())
    right, down, middle = left + 0.3 * side, up + 0.26 * side, left + 0.15 * side
    pencil.rectangle((left, up, right, down), (168, 206, 232), (120, 84, 52), 5)
    pencil.line([(middle, up), (middle, down)], (120, 84, 52), 4)


_DETAILS = {
    "sky": _clouds, "road": _lane, "grass": _blades, "water": _waves, "snow": _flakes,
    "room": _wall,
}  # fmt: skip


def occluder(name: str, rng: np.random.Generator) -> list[Shape]:
    """Return the shapes of something before the object, in shares of half the picture."""
    pen = Pen()
    x = float(rng.uniform(-0.5, 0.5))
    if name == "pole":
        pen.rectangle((x - 0.07, -1.1), (x + 0.07, 1.1), (196, 90, 60), outline=0.0)
        for y in (-0.8, -0.2, 0.4):
            pen.rectangle((x - 0.07, y), (x + 0.07, y + 0.25), (244, 236, 226), outline=0.0)
        return pen.shapes
    side = 1 if rng.random() < 0.5 else -1
    for u, v in rng.uniform(0, 1, (12, 2)).tolist():
        center = (side * (1.05 - 0.95 * u), 1.05 - 0.85 * v * (1 - 0.4 * u))
        leaf = ellipse_points(center, (0.23, 0.1), float(rng.uniform(-1.2, 1.2)))
        pen.polygon(leaf, (38, 120, 58) if v < 0.5 else (24, 92, 52), outline=0.025)
    return pen.shapes


@cache
def _stamp(size: int) -> Image.Image:
    """Return the mask of the watermark: a word in a frame."""
    mask = Image.new("L", (size, size))
    pencil = ImageDraw.Draw(mask)
    font = ImageFont.load_default(size * 0.23)
    pencil.text((size / 2, size / 2), "STOCK", 150, font, anchor="mm")
    pencil.rectangle((size * 0.12, size * 0.34, size * 0.88, size * 0.67), None, 150, 1)
    return mask.rotate(20, Image.Resampling.BILINEAR)


def watermark(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture with a half-transparent stock-photo mark somewhere on it."""
    size = picture.width * 3 // 4
    place = rng.integers(0, picture.width - size + 1, 2).tolist()
    marked = picture.copy()
    marked.paste((255, 255, 255), (place[0], place[1]), _stamp(size))
    return marked


def illuminate(
    pixels: UInt8[np.ndarray, "H W 3"], light: str, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture under a light, with the sensor's noise."""
    noise = rng.integers(0, 256, pixels.shape, np.uint8)  # uniform: ten times quicker than normal
    lit = pixels * np.asarray(_TINTS[light], np.float32)
    lit += noise * np.float32(2 * _NOISE / 255)
    lit -= np.float32(_NOISE)
    return np.clip(lit, 0, 255, out=lit).astype(np.uint8)


def _box(x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
    return x - rx, y - ry, x + rx, y + ry


@cache
def _field(background: str, side: int) -> Image.Image:
    """Return a vertical gradient."""
    upper, lower = (np.asarray(c, float) for c in _BASE[background])
    share = np.linspace(0, 1, side)[:, None]
    column = (upper + (lower - upper) * share).astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, None], side, axis=1))
