"""Animals, drawn from parts: each class has a silhouette of its own, whatever else it shows."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from faultlens.data.world.pen import Color, Look, Pen, Point, ellipse_points, shade
from faultlens.data.world.surface import cover

_GROUND = 0.75
_DARK = (24, 22, 26)
_CREAM = (250, 240, 215)
_PINK = (240, 130, 140)
#: Weights of four neighbouring corners at four places between the middle two.
_SPLINE = np.array([[1, t, t**2, t**3] for t in (0, 0.25, 0.5, 0.75)]) @ (
    np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
)
_IRISES = ((255, 222, 0), (60, 230, 60), (0, 225, 240), (255, 60, 220))


def cat(pen: Pen, look: Look) -> None:
    """Draw a cat: it looks at us with a big round head, sits unless it is long, has whiskers."""
    is_long = "long" in look.has
    back, rise = (-1.0, 0.12) if is_long else (-0.6, -0.08)
    if "tail" in look.has:
        way = [(back + 0.15, 0.5), (back, 0.3), (back - 0.02, -0.2), (back + 0.2, -0.62)]
        pen.polygon(_smooth(_limb(way, 0.24, 0.26)), shade(look.color, 0.85), ("tail",))
    for x in (back + 0.28, 0.12, 0.42):
        _leg(pen, look, (x, 0.4), 0.22, look.color)
    body = [(back, 0.42), (back + 0.15, rise + 0.05), (back + 0.5, rise), (0.3, rise - 0.1)]
    body = _smooth([*body, (0.56, 0.2), (0.5, 0.55), (0, 0.62), (back + 0.2, 0.66)])
    pen.polygon(body, look.color, look.body())
    cover(pen, look, body)
    x, y = 0.45, look.vary(-0.26, -0.2)
    for side in (-1, 1):
        if "ears" in look.has:
            tip = (x + side * 0.4, y - 0.6)
            _ear(pen, look, [(x + side * 0.43, y - 0.05), tip, (x + side * 0.06, y - 0.3)])
    head = ellipse_points((x, y), (look.vary(0.43, 0.49), 0.38))
    pen.polygon(head, look.color, look.has & {"hairy"})
    _tufts(pen, look, head)
    _eyes(pen, look, [(x - 0.18, y - 0.07), (x + 0.18, y - 0.07)], 0.12)
    for side in (-1, 1):
        pen.ellipse((x + side * 0.08, y + 0.2), (0.1, 0.08), _CREAM, outline=0.0)
        for slope in (-0.05, 0.05):
            start, stop = (x + side * 0.16, y + 0.16), (x + side * 0.56, y + 0.16 + slope * 2)
            pen.line([start, stop], 0.035, _contrast(look.color))
    pen.polygon([(x - 0.07, y + 0.09), (x + 0.07, y + 0.09), (x, y + 0.18)], _PINK)


def dog(pen: Pen, look: Look) -> None:
    """Draw a dog: a blocky chest on four paws, a square muzzle, a collar, the tongue out."""
    is_long, is_tall = "long" in look.has, "tall" in look.has
    back, height = (-0.86, 0.36) if is_long else (-0.5, look.vary(0.5, 0.58))
    low = 0.12 if is_tall else 0.46
    top = low - height
    if "tail" in look.has:
        way = [(back + 0.1, top + 0.15), (back - 0.08, top - 0.12), (back, top - 0.5)]
        pen.polygon(_smooth(_limb(way, 0.16, 0.24)), shade(look.color, 0.85), ("tail",))
    _legs(pen, look, (back + 0.12, 0.36), low, (0.24, 0.17), shade(look.color, 1.3))
    x, y = 0.42, top - 0.3
    body = [(back, top + 0.12), (back + 0.1, top), (0.05, top + 0.02), (x - 0.22, y)]
    body = _smooth([*body, (x + 0.1, y), (0.46, low - 0.2), (0.3, low), (back + 0.1, low - 0.04)])
    pen.polygon(body, look.color, look.body())
    cover(pen, look, body)
    pen.line([(x - 0.24, y + 0.2), (x + 0.12, y + 0.32)], 0.11, _collar(look.color))
    reach = 0.98 if "long-snout" in look.has else 0.76
    pen.line([(reach - 0.12, y + 0.1), (reach - 0.1, y + 0.3)], 0.11, _PINK)
    head = [(x - 0.25, y - 0.28), (x + 0.2, y - 0.3), (x + 0.3, y - 0.1), (x + 0.26, y + 0.16)]
    pen.polygon(_smooth([*head, (x, y + 0.2), (x - 0.24, y + 0.12)]), look.color)
    muzzle = [(x + 0.12, y - 0.08), (reach, y - 0.06), (reach, y + 0.15), (x + 0.12, y + 0.17)]
    pen.polygon(muzzle, shade(look.color, 1.35), look.has & {"long-snout"})
    pen.ellipse((reach - 0.02, y - 0.06), (0.08, 0.07), _DARK, look.has & {"long-snout"}, 0)
    _eyes(pen, look, [(x + 0.1, y - 0.14)], 0.13)
    if "floppy-ears" in look.has:
        flap = ellipse_points((x - 0.22, y + 0.08), (0.15, 0.36), 0.15)
        pen.polygon(flap, _shadow(look.color), ("ears", "floppy-ears"), outline=0.04)
    elif "ears" in look.has:
        for shift in (0.14, 0):
            at = x - 0.28 + shift
            _ear(pen, look, [(at, y - 0.16), (at + 0.03, y - 0.62), (at + 0.24, y - 0.24)])


def equine(pen: Pen, look: Look) -> None:
    """Draw a horse: a barrel on long hoofed legs, a strong neck that reaches up and forward."""
    is_tall = "tall" in look.has
    low, reach = (0.1, 0.38) if is_tall else (0.34, 0.4)
    top, hair = low - look.vary(0.38, 0.44), _contrast(look.color, _CREAM)
    x, y = 0.52, top - reach
    if "tail" in look.has:
        way = [(-0.68, top + 0.08), (-0.88, top + 0.16), (-0.9, top + 0.5), (-0.98, top + 0.85)]
        pen.polygon(_smooth(_limb(way, 0.14, 0.26)), hair, ("tail",))
    _legs(pen, look, (-0.6, 0.32), low, (0.2, 0.12), _DARK)
    body = [(-0.78, top + 0.18), (-0.62, top), (-0.25, top + 0.04), (0.02, top), (0.24, top - 0.2)]
    body += [(x - 0.12, y - 0.06), (x + 0.12, y), (x + 0.08, y + 0.24), (0.46, top + 0.1)]
    body = _smooth([*body, (0.38, low - 0.12), (0.1, low), (-0.3, low + 0.03), (-0.68, low - 0.08)])
    pen.polygon(body, look.color, look.body())
    cover(pen, look, body)
    if "ears" in look.has:
        for at in (x - 0.02, x + 0.12):
            _ear(pen, look, [(at - 0.14, y + 0.02), (at - 0.02, y - 0.28), (at + 0.12, y)])
    tip = (0.96, y + 0.38) if "long-snout" in look.has else (0.73, y + 0.26)
    _muzzle(pen, look, (x + 0.08, y + 0.08), tip, (0.36, 0.26))
    _eyes(pen, look, [(x + 0.12, y + 0.06)], 0.12)
    if "mane" in look.has:
        way = [(x + 0.14, y - 0.04), (x - 0.1, y - 0.08), (0.24, top - 0.22), (0.02, top + 0.02)]
        pen.polygon(_smooth(_limb(way, 0.12, 0.24)), hair, ("mane",))
        for share in (0.15, 0.4, 0.65, 0.9):
            u, v = 0.4 - 0.3 * share, y + share * (top - y)
            lock = [(u - 0.06, v - 0.08), (u + 0.14, v), (u + 0.06, v + 0.26)]
            pen.polygon(lock, hair, ("mane",), outline=0.0)


def deer(pen: Pen, look: Look) -> None:
    """Draw a deer: a slim body on very thin legs, an upright neck, a small head, a white throat."""
    low, reach = (0.06, 0.36) if "tall" in look.has else (0.38, 0.3)
    top = low - look.vary(0.27, 0.31)
    x, y = 0.44, top - reach
    if "tail" in look.has:
        way = [(-0.5, top + 0.14), (-0.62, top - 0.08), (-0.66, top - 0.34)]
        pen.polygon(_smooth(_limb(way, 0.2, 0.14)), (255, 255, 255), ("tail",))
    _legs(pen, look, (-0.5, 0.36), low, (0.13, 0.07), _DARK)
    body = [(-0.62, top + 0.12), (-0.5, top), (0.0, top + 0.03), (0.22, top - 0.08), (0.32, y)]
    body += [(0.5, y + 0.02), (0.48, top), (0.42, low - 0.1), (0.2, low), (-0.2, low - 0.05)]
    body = _smooth([*body, (-0.52, low)])
    pen.polygon(body, look.color, look.body())
    throat = [(0.44, y + 0.2), (0.5, y + 0.1), (0.5, top + 0.04), (0.4, low - 0.04), (0.36, top)]
    pen.polygon(_smooth(throat), (250, 248, 240), look.body(), 0)
    cover(pen, look, body)
    if "horns" in look.has:
        _antler(pen, (x - 0.02, y - 0.08), -1)
        _antler(pen, (x + 0.06, y - 0.08), 1)
    if "ears" in look.has:
        _ear(pen, look, [(x - 0.12, y - 0.1), (x - 0.4, y - 0.2), (x - 0.14, y + 0.1)])
        _ear(pen, look, [(x - 0.02, y - 0.1), (x + 0.3, y - 0.26), (x + 0.14, y - 0.02)])
    tip = (0.92, y + 0.2) if "long-snout" in look.has else (0.62, y + 0.07)
    _muzzle(pen, look, (x + 0.04, y + 0.02), tip, (0.28, 0.14))
    _eyes(pen, look, [(x + 0.07, y - 0.02)], 0.11)


def frog(pen: Pen, look: Look) -> None:
    """Draw a frog: it squats, with eyes that bulge on top, a wide mouth and folded hind legs."""
    back, top = (-0.98, 0.02) if "long" in look.has else (-0.45, look.vary(-0.18, -0.1))
    dark = shade(look.color, 0.8)
    _foot(pen, dark, [(0.2, 0.45), (0.36, 0.6), (0.34, 0.71)], 0.16)
    pen.ellipse((0.56, -0.3), (0.2, 0.2), dark)
    body = [(back, 0.5), (back + 0.2, top + 0.16), (0.0, top), (0.35, -0.26), (0.7, -0.24)]
    body = _smooth([*body, (0.94, 0.04), (0.82, 0.28), (0.5, 0.5), (0.1, 0.64), (back + 0.2, 0.66)])
    pen.polygon(body, look.color, look.body())
    belly = [(0.86, 0.24), (0.5, 0.28), (0.2, 0.36), (0.1, 0.58), (0.5, 0.48)]
    pen.polygon(_smooth(belly), shade(look.color, 1.6), look.body(), 0)
    cover(pen, look, body)
    mouth = [(0.92, 0.08), (0.7, 0.17), (0.45, 0.17), (0.22, 0.06)]
    pen.line(mouth, 0.055, _contrast(look.color))
    thigh = ellipse_points((back + 0.34, 0.38), (0.42, 0.23), -0.5)
    pen.polygon(thigh, shade(look.color, 0.9), look.has & {"long"}, 0.045)
    _foot(pen, look.color, [(back + 0.12, 0.62), (back + 0.34, 0.68), (back + 0.52, 0.71)], 0.13)
    _foot(pen, look.color, [(0.4, 0.4), (0.58, 0.56), (0.56, 0.71)], 0.16)
    pen.ellipse((0.3, -0.32), (0.23, 0.23), look.color)
    _eyes(pen, look, [(0.6, -0.34), (0.32, -0.34)], 0.14)


def bird(pen: Pen, look: Look) -> None:
    """Draw a bird: an egg of a body with a pale breast, a round head, two thin legs."""
    is_tall = "tall" in look.has
    back = -0.8 if "long" in look.has else -0.42
    y, height = (-0.02, 0.24) if is_tall else (0.2, 0.32)
    if "long" in look.has:
        height -= 0.06
    if "tail" in look.has:
        for turn in (-0.35, 0.0, 0.35):
            start, stop = (back + 0.2, y + 0.06), (back - 0.3, y + 0.1 + turn)
            start, stop = (start, stop) if back > -0.6 else (start, (back - 0.2, stop[1]))
            pen.polygon(_limb([start, stop], 0.1, 0.2), shade(look.color, 0.7), ("tail",))
    _shanks(pen, look, (0.5 * back + 0.2, y + height - 0.08))
    x, top = (0.5, -0.58) if is_tall else (0.46, y - 0.36)
    body = [(back, y + 0.02), (back + 0.25, y - 0.75 * height), (0.1, y - height)]
    body += [(x - 0.16, top), (x + 0.12, top), (0.56, y - 0.1), (0.4, y + 0.7 * height)]
    body = _smooth([*body, (0.05, y + height), (back + 0.2, y + 0.7 * height)])
    pen.polygon(body, look.color, look.body())
    breast = ellipse_points((0.34, y + 0.08), (0.16, 0.7 * height), 0.5)
    pen.polygon(breast, shade(look.color, 1.6), look.body(), 0)
    cover(pen, look, body)
    if "beak" in look.has:
        beak = [(x + 0.12, top - 0.18), (x + 0.55, top + 0.06), (x + 0.12, top + 0.2)]
        pen.polygon(beak, (255, 205, 30) if look.color[0] > 220 else (255, 140, 20), ("beak",))
    pen.ellipse((x, top), (0.25, 0.24), look.color)
    _eyes(pen, look, [(x + 0.08, top - 0.05)], 0.12)
    if "wings" in look.has:
        _wing(pen, look, (0.2, y - 0.1))


def _wing(pen: Pen, look: Look, root: Point) -> None:
    """Draw a raised wing of four feathers."""
    x, y = root
    color = shade(look.color, 0.75)
    wing = [(x + 0.06, y + 0.08), (x, y - 0.5), (x - 0.26, y - 0.84), (x - 0.4, y - 0.55)]
    wing += [(x - 0.68, y - 0.55), (x - 0.6, y - 0.3), (x - 0.78, y - 0.16), (x - 0.5, y + 0.02)]
    pen.polygon([*wing, (x - 0.3, y + 0.16)], color, ("wings",), outline=0.04)
    for dx, dy in ((-0.4, -0.52), (-0.58, -0.26)):
        end = (x + dx, y + dy)
        pen.line([(x - 0.06, y), end], 0.035, shade(color, 0.5), ("wings",))


def _shanks(pen: Pen, look: Look, hip: Point) -> None:
    """Draw the two thin legs of a bird with their toes, pale with a dark edge."""
    for shift in (-0.1, 0.16):
        x = hip[0] + shift
        for width, color in ((0.1, _DARK), (0.05, (190, 180, 170))):
            pen.line([(x, hip[1]), (x, 0.71)], width, color, look.has & {"tall"})
            pen.line([(x - 0.1, 0.72), (x + 0.18, 0.72)], width, color)


def _antler(pen: Pen, root: Point, side: int) -> None:
    """Draw one antler: a beam that bends outwards, with three tines."""
    x, y = root
    beam = [(0.0, 0.0), (0.16, -0.18), (0.34, -0.26), (0.4, -0.5)]
    tines = [[(0.14, -0.16), (0.08, -0.44)], [(0.3, -0.24), (0.24, -0.5)]]
    strokes = [[(x + side * dx, y + dy) for dx, dy in way] for way in (beam, *tines)]
    for width, color in ((0.13, (70, 45, 25)), (0.075, (225, 190, 130))):
        for stroke in strokes:
            pen.line(stroke, width, color, ("horns",))


def _muzzle(pen: Pen, look: Look, start: Point, tip: Point, widths: Point) -> None:
    """Draw a head in profile, from the skull to the nose."""
    shows = look.has & {"long-snout"}
    dx, dy = (0.45 * (b - a) for a, b in zip(start, tip, strict=True))
    muzzle = _limb([start, (start[0] + dx, start[1] + dy), tip], 0.85 * widths[0], widths[1])
    pen.polygon(muzzle, look.color, shows)
    pen.ellipse(tip, (0.6 * widths[1], 0.6 * widths[1]), shade(look.color, 1.5), shows)
    pen.ellipse((tip[0] + 0.04, tip[1] - 0.02), (0.05, 0.04), _DARK, shows, 0)
    pen.ellipse(start, (0.5 * widths[0], 0.5 * widths[0]), look.color)


def _eyes(pen: Pen, look: Look, centers: Iterable[Point], radius: float) -> None:
    """Draw small dark eyes, or large bright ones, all of one colour."""
    iris = _IRISES[int(look.details("colored-eyes").integers(len(_IRISES)))]
    for center in centers:
        if "colored-eyes" in look.has:
            for share, color in ((1.25, (255, 255, 255)), (1.0, iris), (0.42, _DARK)):
                r = share * radius
                pen.ellipse(center, (r, r), color, ("colored-eyes",), outline=0.0)
        else:
            if sum(look.color) < 384:
                pen.ellipse(center, (0.09, 0.09), shade(look.color, 1.6), outline=0.0)
            pen.ellipse(center, (0.06, 0.07), _DARK, outline=0.0)


def _ear(pen: Pen, look: Look, corners: Sequence[Point]) -> None:
    """Draw a pricked ear, pink inside."""
    pen.polygon(corners, look.color, ("ears",), outline=0.04)
    cx, cy = (sum(c) / 3 for c in zip(*corners, strict=True))
    inner = [(cx + 0.5 * (x - cx), cy + 0.5 * (y - cy)) for x, y in corners]
    pen.polygon(inner, _PINK, ("ears",), outline=0.0)


def _tufts(pen: Pen, look: Look, head: Sequence[Point]) -> None:
    """Draw hair on the cheeks of a hairy head, at every point of its outline that has none."""
    if "hairy" not in look.has:
        return
    cx, cy = (sum(c) / len(head) for c in zip(*head, strict=True))
    for i, (x, y) in enumerate(head):
        factor = 0.6 if i % 2 else 1.3
        start, stop = (
            (x - 0.2 * (x - cx), y - 0.2 * (y - cy)),
            (1.3 * x - 0.3 * cx, y * 1.2 - 0.2 * cy),
        )
        pen.line([start, stop], 0.035, shade(look.color, factor), ("hairy",))


def _legs(pen: Pen, look: Look, places: Point, low: float, widths: Point, tip: Color) -> None:
    """Draw a hind and a front leg under a belly, before them the far ones, darker and inwards."""
    top, thin = low - 0.14, widths[1]
    for gap, factor in ((0.24, 0.65), (0.0, 1.0)):
        for x in (places[0] + gap, places[1] - gap):
            leg = _limb([(x, top), (x, _GROUND)], *widths)
            pen.polygon(leg, shade(look.color, factor), look.has & {"tall"})
            foot = (x - 0.6 * thin, _GROUND - 0.1)
            pen.rectangle(foot, (x + 0.8 * thin, _GROUND), shade(tip, factor))


def _leg(pen: Pen, look: Look, start: Point, width: float, color: Color) -> None:
    """Draw a short leg with a paw."""
    x, y = start
    pen.polygon(_limb([(x, y), (x, 0.7)], width, width), color)
    pen.ellipse((x + 0.05, 0.67), (0.65 * width, 0.08), shade(look.color, 1.3))


def _foot(pen: Pen, color: Color, way: Sequence[Point], width: float) -> None:
    """Draw a frog's limb with a webbed foot at its end."""
    pen.polygon(_limb(way, width, 0.8 * width), color)
    x, y = way[-1]
    pen.polygon(
        [(x - 0.06, y - 0.06), (x + 0.24, y - 0.05), (x + 0.26, y + 0.04), (x - 0.1, y + 0.04)],
        color,
    )


def _limb(way: Sequence[Point], start: float, end: float) -> list[Point]:
    """Return the outline of a limb along some points, its width going from start to end."""
    left, right = [], []
    last = len(way) - 1
    for i, (x, y) in enumerate(way):
        (x0, y0), (x1, y1) = way[max(i - 1, 0)], way[min(i + 1, last)]
        length = max(math.hypot(x1 - x0, y1 - y0), 1e-9)
        half = (start + (end - start) * i / last) / 2 / length
        dx, dy = (y0 - y1) * half, (x1 - x0) * half
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    return left + right[::-1]


def _smooth(corners: Sequence[Point]) -> list[Point]:
    """Return a closed Catmull-Rom curve through the corners, of four points for each."""
    ring = np.array([corners[-1], *corners, *corners[:2]])
    n = len(corners)
    neighbours = np.stack([ring[k : k + n] for k in range(4)], axis=1)
    return [(x, y) for x, y in (_SPLINE @ neighbours).reshape(-1, 2).tolist()]


def _contrast(color: Color, bright: Color = (255, 255, 255)) -> Color:
    """Return a colour that stands out from a body: dark on a bright one, else bright."""
    return _DARK if sum(color) > 300 else bright


def _shadow(color: Color) -> Color:
    """Return a much darker colour, or a lighter one where the colour is nearly black."""
    return shade(color, 0.5) if sum(color) > 200 else shade(color, 1.35)


def _collar(color: Color) -> Color:
    """Return red, or blue on a reddish coat."""
    return (50, 90, 230) if color[0] > 1.5 * color[2] else (225, 30, 40)
