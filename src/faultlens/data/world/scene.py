"""Scenes: everything that one picture shows, drawn at random or stated."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from faultlens.data.world.names import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLASSES,
    COLORS,
    FREQUENCIES,
    LIGHTS,
    OCCLUDERS,
)
from faultlens.errors import InputError, nearest


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture, in words and numbers; the same scene always gives the same picture.

    Change one thing with `dataclasses.replace` to see the same object elsewhere.

    Attributes:
        label: Class.
        attributes: What the object shows, before anything covers it.
        color: Name of the body's colour.
        background: One of six.
        light: One of five.
        occluder: What stands before the object; None for nothing.
        watermark: Whether a stock-photo mark lies over the picture.
        size: Half the object's width as a share of half the picture's, 0.6–0.95.
        angle: Turn in radians.
        is_mirrored: Whether the object faces left.
        shift: Place of the object's centre, as shares of half the picture.
        seed: Of the free details.
    """

    label: str
    attributes: frozenset[str]
    color: str
    background: str
    light: str
    occluder: str | None
    watermark: bool
    size: float
    angle: float
    is_mirrored: bool
    shift: tuple[float, float]
    seed: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What scenes are drawn from: each nuisance has its own switch.

    Attributes:
        classes: Drawn evenly.
        backgrounds: Drawn evenly, whatever the class; so are the next two.
        colors: Names of body colours.
        lights: `neutral` is as frequent as all others together.
        occluded: Share of pictures with something before the object.
        marked: Share of pictures with a watermark.
        size: Smallest and largest.
        turn: Largest turn, in radians.
        shift: Largest shift.

    Raises:
        InputError: A name is unknown.

    Example:
        >>> scene = draw(np.random.default_rng(0), Recipe(backgrounds=("snow",)))
        >>> scene.background, scene.label in CLASSES
        ('snow', True)
        >>> Recipe(backgrounds=("snowy",))
        Traceback (most recent call last):
        faultlens.errors.InputError: backgrounds must be known names, got 'snowy'; did you mean \
'snow'?
    """

    classes: tuple[str, ...] = CLASSES
    backgrounds: tuple[str, ...] = BACKGROUNDS
    colors: tuple[str, ...] = tuple(COLORS)
    lights: tuple[str, ...] = LIGHTS
    occluded: float = 0.2
    marked: float = 0.15
    size: tuple[float, float] = (0.66, 0.92)
    turn: float = 0.12
    shift: float = 0.1

    def __post_init__(self) -> None:
        known = {"classes": CLASSES, "backgrounds": BACKGROUNDS, "colors": COLORS, "lights": LIGHTS}
        for field, names in known.items():
            check_names(getattr(self, field), names, field)


def draw(
    rng: np.random.Generator,
    recipe: Recipe | None = None,
    *,
    label: str | None = None,
    background: str | None = None,
) -> Scene:
    """Draw one scene.

    Args:
        rng: Source of chance; the same number of draws is made whatever the other arguments.
        recipe: What to draw from; everything unless given.
        label: Class, instead of a random one.
        background: Likewise.

    Raises:
        InputError: An unknown class or background.
    """
    recipe = recipe or Recipe()
    drawn = _pick(rng, recipe.classes)
    label = drawn if label is None else label
    check_names([label], CLASSES, "label")
    attributes = frozenset(a for a, u in zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)), strict=True)
                           if u < FREQUENCIES[label].get(a, 0))  # fmt: skip
    if "floppy-ears" in attributes:
        attributes |= {"ears"}
    drawn = _pick(rng, recipe.backgrounds)
    background = drawn if background is None else background
    check_names([background], BACKGROUNDS, "background")
    others = [light for light in recipe.lights if light != "neutral"] or ["neutral"]
    is_neutral = (rng.random() < 0.5) and "neutral" in recipe.lights
    light = _pick(rng, others)
    occluder = _pick(rng, OCCLUDERS)
    dx, dy, du, dv = rng.uniform(-1, 1, 4)
    low, high = recipe.size
    return Scene(
        label=label,
        attributes=attributes,
        color=_pick(rng, recipe.colors),
        background=background,
        light="neutral" if is_neutral else light,
        occluder=occluder if rng.random() < recipe.occluded else None,
        watermark=bool(rng.random() < recipe.marked),
        size=float(low + (high - low) * (du + 1) / 2),
        angle=float(recipe.turn * dv),
        is_mirrored=bool(rng.random() < 0.5),
        shift=(float(recipe.shift * dx), float(recipe.shift * dy)),
        seed=int(rng.integers(2**31)),
    )


def scenes(n: int, seed: int, recipe: Recipe | None = None) -> Iterator[Scene]:
    """Yield n scenes; the i-th depends on seed and i alone, not on n.

    Example:
        >>> [s.label for s in scenes(2, seed=7)] == [s.label for s in scenes(5, seed=7)][:2]
        True
    """
    for i in range(n):
        yield draw(np.random.default_rng([seed, i]), recipe)


def check_names(given: Collection[str], known: Collection[str], argument: str) -> None:
    """Raise InputError for the first name that is not known, with the nearest."""
    for name in given:
        if name not in known:
            raise InputError(
                f"{argument} must be known names, got '{name}'; {nearest(name, known)}"
            )
    if not given:
        raise InputError(f"{argument} must name at least one, got none; leave it out for all")


def _pick(rng: np.random.Generator, names: Collection[str]) -> str:
    # Not rng.integers: how much chance that takes depends on the number of names.
    return list(names)[int(rng.random() * len(names))]
