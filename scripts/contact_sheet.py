"""Draw the contact sheet of ConceptWorld in the documentation.

    python scripts/contact_sheet.py docs/images/world.jpg

Above, random scenes of each class; below, each attribute and nuisance taken away from a scene and
put into it, nothing else changed.
"""

import sys
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faultlens.data.world.names import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLASSES,
    FREQUENCIES,
    LIGHTS,
    OCCLUDERS,
)
from faultlens.data.world.render import render
from faultlens.data.world.scene import Recipe, Scene, draw

CELL, GAP, LABEL = 96, 6, 18
PLAIN = Recipe(
    occluded=0.0, marked=0.0, lights=("neutral",), size=(0.8, 0.85), turn=0.03, shift=0.03
)


def tile(scene: Scene) -> Image.Image:
    """Return one picture, enlarged."""
    return Image.fromarray(render(scene).pixels).resize((CELL, CELL), Image.Resampling.BICUBIC)


def random_rows(n: int) -> Image.Image:
    """Return n random scenes below the name of each class."""
    width = len(CLASSES) * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, LABEL + n * (CELL + GAP)), "white")
    for k, name in enumerate(CLASSES):
        write(sheet, (k * (CELL + GAP), 0), name)
        for i in range(n):
            scene = draw(np.random.default_rng([7, k, i]), label=name)
            sheet.paste(tile(scene), (k * (CELL + GAP), LABEL + i * (CELL + GAP)))
    return sheet


def pairs() -> list[tuple[str, Scene, Scene]]:
    """Return each attribute absent and present in the class that shows it most often."""
    out = []
    for i, name in enumerate(ATTRIBUTES):
        label = max(CLASSES, key=lambda k: FREQUENCIES[k].get(name, 0))
        scene = draw(np.random.default_rng([11, i]), PLAIN, label=label)
        bare = replace(scene, attributes=scene.attributes - {name, "floppy-ears", "text"})
        shown = bare.attributes | {name} | ({"ears"} if name == "floppy-ears" else set())
        out.append((name, bare, replace(bare, attributes=shown)))
    return out


def nuisances() -> list[tuple[str, Scene]]:
    """Return one car under every background, light, occluder, and the watermark."""
    scene = draw(np.random.default_rng(5), PLAIN, label="car", background="road")
    scene = replace(scene, attributes=frozenset({"wheels", "long"}), color="red")
    return [
        *((b, replace(scene, background=b)) for b in BACKGROUNDS),
        *((light, replace(scene, light=light)) for light in LIGHTS[1:]),
        *((o, replace(scene, occluder=o)) for o in OCCLUDERS),
        ("watermark", replace(scene, watermark=True)),
    ]


def grid(cells: list[tuple[str, list[Scene]]], columns: int) -> Image.Image:
    """Return labelled groups of pictures, row by row."""
    width = len(cells[0][1]) * (CELL + 1) + GAP
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (CELL + LABEL + GAP)), "white")
    for i, (name, scenes) in enumerate(cells):
        x, y = i % columns * width, i // columns * (CELL + LABEL + GAP)
        write(sheet, (x, y), name)
        for j, scene in enumerate(scenes):
            sheet.paste(tile(scene), (x + j * (CELL + 1), y + LABEL))
    return sheet


def write(sheet: Image.Image, place: tuple[int, int], text: str) -> None:
    """Write a small label."""
    ImageDraw.Draw(sheet).text(place, text, "black", ImageFont.load_default(13))


def main() -> None:
    """Draw the three parts below each other."""
    parts = [
        random_rows(4),
        grid([(name, [bare, shown]) for name, bare, shown in pairs()], 5),
        grid([(name, [scene]) for name, scene in nuisances()], 10),
    ]
    width = max(p.width for p in parts)
    sheet = Image.new("RGB", (width, sum(p.height + 3 * GAP for p in parts)), "white")
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height + 3 * GAP
    sheet.save(sys.argv[1], quality=88)


if __name__ == "__main__":
    main()
