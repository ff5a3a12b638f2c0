"""Vehicles, drawn from parts: truck, car, plane and ship, each facing right."""

import math
from collections.abc import Sequence
from dataclasses import replace

from faultlens.data.world.pen import Color, Look, Pen, Point, ellipse_points, shade
from faultlens.data.world.surface import cover, write

_RUBBER = (24, 24, 28)
_RIM = (132, 134, 140)
_HUB = (214, 216, 220)
_STEEL = (74, 76, 84)
_GLASS = (150, 208, 236)
_LAMP = (255, 226, 120)
_CHROME = (112, 124, 146)
_SHINE = (244, 248, 252)
_HOUSE = (238, 236, 226)
_SURFACES = frozenset({"metallic", "patterned", "wet"})
_CONTAINERS = ((214, 92, 44), (64, 128, 96), (58, 96, 168), (226, 182, 62))


def truck(pen: Pen, look: Look) -> None:
    """Draw a truck: a cab before a load, which is a box where rectangular and a tank otherwise.

    Args:
        pen: Collects the shapes.
        look: Of the attributes, `wheels`, `text` and the body's are drawn.

    Example:
        >>> import numpy as np
        >>> pen = Pen()
        >>> truck(pen, Look(frozenset({"wheels"}), (200, 48, 44), np.random.default_rng(0)))
        >>> sum("wheels" in s.shows for s in pen.shapes)  # ring, tyre, hub and its border, twice
        8
    """
    is_long, is_tall = "long" in look.has, "tall" in look.has
    half = look.vary(0.95, 1.0) if is_long else look.vary(0.66, 0.72)
    top = look.vary(-0.14, -0.08) if is_long else look.vary(-0.3, -0.2)
    top = look.vary(-0.9, -0.82) if is_tall else top
    split = half - look.vary(0.4, 0.44)
    pen.rectangle((-half, 0.4), (half - 0.04, 0.54), _STEEL, look.body() - _SURFACES)
    _cab(pen, look, (split + 0.04, -0.45 if is_tall else top + 0.04), half)
    radius = 0.0 if "rectangular" in look.has else 0.3
    load = _rounded((-half, top), (split, 0.42), radius)
    pen.polygon(load, look.color, look.body())
    cover(pen, look, load)
    _polish(pen, look, (-half + radius / 2, split - radius / 2), 0.37)
    _underneath(pen, look, (-0.66 * half, *((-0.14 * half,) if is_long else ()), half - 0.25))
    if "text" in look.has:
        middle, y = (split - half) / 2, top + (0.3 if is_tall else 0.08)
        write(pen, look, (middle - 0.39, y), (middle + 0.39, y + 0.29))


def car(pen: Pen, look: Look) -> None:
    """Draw a car: a low body under a cabin with windows, domed unless rectangular."""
    is_long, is_tall = "long" in look.has, "tall" in look.has
    half = look.vary(0.96, 1.0) if is_long else look.vary(0.68, 0.73)
    roof = look.vary(-0.2, -0.14) if is_long else look.vary(-0.4, -0.34)
    roof = look.vary(-0.9, -0.84) if is_tall else roof
    belt = 0.06 if is_long else 0.0
    body = _car_outline(look, half, roof, belt)
    pen.polygon(body, look.color, look.body())
    cover(pen, look, body)
    _car_windows(pen, look, half, (roof, belt))
    pen.rectangle((half - 0.13, belt + 0.14), (half, belt + 0.25), _LAMP, outline=0.0)
    _polish(pen, look, (-0.96 * half, 0.96 * half), 0.46)
    _underneath(pen, look, (-0.6 * half, 0.6 * half))
    if "text" in look.has:
        write(pen, look, (-0.56, belt + 0.04), (0.2, belt + 0.32))


def plane(pen: Pen, look: Look) -> None:
    """Draw a plane: a fuselage with a propeller and round windows.

    Example:
        >>> import numpy as np
        >>> pen = Pen()
        >>> plane(pen, Look(frozenset({"tail"}), (200, 48, 44), np.random.default_rng(0)))
        >>> sorted({a for s in pen.shapes for a in s.shows})
        ['tail']
    """
    is_long = "long" in look.has
    half = look.vary(0.93, 0.97) if is_long else look.vary(0.68, 0.73)
    deep = 0.22 if is_long else look.vary(0.3, 0.33)
    accent = _accent(look.color)
    if "wings" in look.has:
        _wing(pen, accent, (0.42, -0.5 * deep), (0.06, -0.82))
    if "tail" in look.has:
        fin = [(-0.5 * half, -0.7 * deep), (-half, 0), (-half - 0.1, -0.72), (-half + 0.14, -0.72)]
        pen.polygon(fin, accent, ("tail",))
    body = _fuselage(half, deep)
    pen.polygon(body, look.color, look.body())
    cover(pen, look, body)
    _polish(pen, look, (-0.4 * half, 0.66 * half), 0.82 * deep)
    for i in range(5 if is_long else 3):
        at = (0.4 * half - 0.24 * i, -0.52 * deep)
        pen.ellipse(at, (0.06, 0.06), _GLASS, look.body(), 0.02)
    _nose(pen, look, half, deep)
    if "text" in look.has:
        write(pen, look, (-0.43, -0.22 * deep), (0.33, -0.22 * deep + 0.27))
    if "tail" in look.has:
        blade = [(-0.68 * half, 0.0), (-0.9 * half, 0.0), (-half - 0.14, 0.2), (-half, 0.2)]
        pen.polygon(blade, accent, ("tail",))
    if "wings" in look.has:
        _wing(pen, accent, (0.3, 0.8 * deep), (-0.3, 0.72))
    if "wheels" in look.has:
        for x in (0.55 * half, -0.12):
            pen.line([(x, 0.8 * deep), (x, 0.6)], 0.06, _STEEL, ("wheels",))
            _wheel(pen, (x, 0.6), 0.16)


def ship(pen: Pen, look: Look) -> None:
    """Draw a ship: a hull, a deck house and a funnel; rectangular ones carry containers.

    Containers and a box-shaped house show `rectangular`; masts and a high house show `tall`.

    Example:
        >>> import numpy as np
        >>> pen = Pen()
        >>> ship(pen, Look(frozenset({"wheels"}), (200, 48, 44), np.random.default_rng(0)))
        >>> {a for s in pen.shapes for a in s.shows}  # a ship has no wheels
        set()
    """
    is_long, is_tall = "long" in look.has, "tall" in look.has
    half = look.vary(0.96, 1.0) if is_long else look.vary(0.66, 0.71)
    deck = look.vary(0.3, 0.34) if is_long else look.vary(0.18, 0.24)
    roof = deck - (look.vary(0.66, 0.7) if is_tall else look.vary(0.26, 0.3))
    if is_tall:
        _mast(pen, 0.5 * half, deck)
        _mast(pen, -0.82 * half, deck)
    if "rectangular" in look.has:
        _containers(pen, (-0.02 * half, 0.78 * half), deck)
    _deck_house(pen, look, (-0.72 * half, -0.08 * half), (roof, deck))
    afloat = replace(look, has=look.has - {"rectangular"})  # the containers show that
    hull = [(-half, deck), (half, deck - 0.1), (0.72 * half, 0.75), (-0.86 * half, 0.75)]
    pen.polygon(hull, look.color, afloat.body())
    cover(pen, afloat, hull)
    _polish(pen, afloat, (-0.84 * half, 0.72 * half), 0.7)
    if "text" in look.has:
        write(pen, look, (-0.56, deck + 0.04), (0.22, deck + 0.31))


def _polish(pen: Pen, look: Look, sides: Point, y: float) -> None:
    """Draw a chrome strip, so that metal stays visible under windows, plates and white paint."""
    if "metallic" in look.has:
        strip = [(sides[0], y), (sides[1], y)]
        pen.line(strip, 0.11, _CHROME, look.body())
        pen.line(strip, 0.05, _SHINE, look.body())


def _underneath(pen: Pen, look: Look, places: Sequence[float]) -> None:
    """Draw what a vehicle stands on: wheels, or runners without a single circle."""
    if "wheels" in look.has:
        for x in places:
            _wheel(pen, (x, 0.55), 0.21)
        return
    for x in places:
        pen.line([(x, 0.5), (x, 0.72)], 0.07, _STEEL)
    pen.line([(places[0] - 0.2, 0.72), (places[-1] + 0.2, 0.72)], 0.07, _STEEL)


def _wheel(pen: Pen, center: Point, radius: float) -> None:
    """Draw a tyre in a lighter ring, which parts it from dark ground, and its hub."""
    pen.ellipse(center, (radius + 0.02, radius + 0.02), _RIM, ("wheels",), 0)
    pen.ellipse(center, (radius, radius), _RUBBER, ("wheels",), 0)
    pen.ellipse(center, (0.5 * radius, 0.5 * radius), _HUB, ("wheels",))


def _cab(pen: Pen, look: Look, corner: Point, right: float) -> None:
    """Draw a truck's cab, from its upper left corner to its front."""
    left, top = corner
    lean = 0.0 if "rectangular" in look.has else 0.2
    shows = look.body() - _SURFACES
    front = [(right - lean, top), (right, top + 1.4 * lean), (right, 0.5), (left, 0.5)]
    pen.polygon([(left, top), *front], _accent(look.color), shows)
    sill = top + 0.36
    glass = [(left + 0.1, top + 0.09), (right - lean - 0.03, top + 0.09)]
    glass += [(right - 0.04, top + 0.09 + lean), (right - 0.04, sill), (left + 0.1, sill)]
    pen.polygon(glass, _GLASS, shows)
    pen.rectangle((right - 0.1, 0.32), (right, 0.42), _LAMP, shows, 0)


def _car_outline(look: Look, half: float, roof: float, belt: float) -> list[Point]:
    """Return a car's outline: a box on a box, or a dome on a round body."""
    floor = 0.54
    if "rectangular" in look.has:
        x = _cabin(look)[1] * half
        return [(-half, roof), (x, roof), (x, belt), (half, belt), (half, floor), (-half, floor)]
    back, front = _cabin(look)
    dome = _dome((back * half, front * half), (roof, belt))
    hood = [(0.84 * half, belt + 0.04), (0.96 * half, belt + 0.14), (half, belt + 0.3)]
    low = [(0.97 * half, floor), (-0.97 * half, floor)]
    return [*dome, *hood, *low, (-half, belt + 0.25), (-0.95 * half, belt + 0.08)]


def _cabin(look: Look) -> Point:
    """Return where a car's cabin starts and ends, as shares of half its length."""
    return (-0.94, 0.72) if "tall" in look.has else (-0.78, 0.5)


def _car_windows(pen: Pen, look: Look, half: float, heights: Point) -> None:
    """Draw one pane, parted by pillars: one in a short car, two in a long one."""
    roof, belt = heights
    back, front = _cabin(look)
    top, sill = roof + 0.09, min(belt - 0.02, roof + 0.56)
    if "rectangular" in look.has:
        left, right = -0.9 * half, (front - 0.1) * half
        pane = [(left, top), (right, top), (right, sill), (left, sill)]
    else:
        left, right = (back + 0.12) * half, (front - 0.12) * half
        pane = _dome((left, right), (top, sill))
    pen.polygon(pane, _GLASS, look.body())
    n = 3 if "long" in look.has else 2
    for i in range(1, n):
        x = left + (right - left) * i / n
        pen.line([(x, top), (x, sill)], 0.08, shade(look.color, 0.75), look.body())


def _wing(pen: Pen, color: Color, root: Point, tip: Point) -> None:
    """Draw a swept wing from the front of its root to the front of its tip."""
    (x0, y0), (x1, y1) = root, tip
    pen.polygon([(x0, y0), (x1, y1), (x1 - 0.24, y1), (x0 - 0.46, y0)], color, ("wings",))


def _fuselage(half: float, deep: float) -> list[Point]:
    """Return a plane's body: a round nose, and a back that rises to a point."""
    upper = [(-half, -0.75 * deep), (-0.8 * half, -0.9 * deep), (0.5 * half, -deep)]
    nose = [(0.78 * half, -0.72 * deep), (0.94 * half, -0.3 * deep), (half, 0.1 * deep)]
    lower = [(0.94 * half, 0.45 * deep), (0.75 * half, 0.85 * deep), (0.5 * half, deep)]
    return [*upper, *nose, *lower, (-0.3 * half, deep), (-0.75 * half, 0.4 * deep)]


def _nose(pen: Pen, look: Look, half: float, deep: float) -> None:
    """Draw a plane's windscreen and propeller."""
    glass = [(0.6 * half, -0.7 * deep), (0.76 * half, -0.62 * deep), (0.9 * half, -0.2 * deep)]
    pen.polygon([*glass, (0.6 * half, -0.2 * deep)], _GLASS, look.body(), 0.02)
    y = 0.1 * deep
    pen.line([(half + 0.03, y - 0.36), (half + 0.03, y + 0.36)], 0.06, _STEEL)
    pen.polygon([(half - 0.03, y - 0.1), (half + 0.1, y), (half - 0.03, y + 0.1)], _LAMP)


def _mast(pen: Pen, x: float, deck: float) -> None:
    pen.line([(x, deck), (x, -0.9)], 0.07, _STEEL, ("tall",))
    pen.line([(x - 0.18, -0.62), (x + 0.18, -0.62)], 0.06, _STEEL, ("tall",))


def _containers(pen: Pen, sides: Point, deck: float) -> None:
    """Stack containers on a deck: rows of three, three and two."""
    left, right = sides
    width = (right - left) / 3
    for row, n in enumerate((3, 3, 2)):
        bottom = deck - 0.2 * row
        for i in range(n):
            corner = (left + i * width, bottom - 0.2)
            color = _CONTAINERS[(i + 2 * row) % len(_CONTAINERS)]
            pen.rectangle(corner, (corner[0] + width, bottom), color, ("rectangular",))


def _deck_house(pen: Pen, look: Look, sides: Point, heights: Point) -> None:
    """Draw a ship's house with rows of windows, and the funnel on it."""
    (left, right), (roof, deck) = sides, heights
    shows = look.body() - _SURFACES
    middle = left + 0.38 * (right - left)
    funnel = [(middle - 0.1, roof - 0.26), (middle + 0.1, roof - 0.26)]
    funnel += [(middle + 0.13, roof + 0.05), (middle - 0.13, roof + 0.05)]
    pen.polygon(funnel, _accent(look.color), shows)
    pen.rectangle((middle - 0.1, roof - 0.3), (middle + 0.1, roof - 0.2), _RUBBER, shows, 0)
    radius = 0.0 if "rectangular" in look.has else 0.14
    house = _rounded((left, roof), (right, deck + 0.2), radius)
    pen.polygon(house, _HOUSE, shows)
    for row in range(3 if "tall" in look.has else 1):
        y = roof + 0.08 + 0.2 * row
        pen.rectangle((left + 0.08, y), (right - 0.06, y + 0.1), _STEEL, shows, 0)


def _rounded(corner: Point, opposite: Point, radius: float) -> list[Point]:
    """Return a box whose corners are rounded by at most half its shorter side."""
    (x0, y0), (x1, y1) = corner, opposite
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    if not r:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    centers = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
    return [p for i, c in enumerate(centers) for p in ellipse_points(c, (r, r))[5 * i : 5 * i + 6]]


def _dome(sides: Point, heights: Point) -> list[Point]:
    """Return an arch from the left to the right, fuller than half an ellipse."""
    (left, right), (top, bottom) = sides, heights
    middle, reach, points = (left + right) / 2, (right - left) / 2, []
    for i in range(11):
        c, s = math.cos(math.pi * i / 10), math.sin(math.pi * i / 10)
        x = math.copysign(abs(c) ** 0.8, c)
        points.append((middle - reach * x, bottom - (bottom - top) * s**0.8))
    return points


def _accent(color: Color) -> Color:
    """Return the colour of a part that is to stand out from the body."""
    return shade(color, 0.68) if sum(color) > 330 else shade(color, 1.4)
