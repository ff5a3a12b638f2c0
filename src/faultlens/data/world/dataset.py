"""Many scenes at once, on several cores: what benchmarks and training read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from faultlens.data.images import ImageSource
from faultlens.data.world.names import ATTRIBUTES, CLASSES
from faultlens.data.world.pool import parallel
from faultlens.data.world.render import SIDE, render
from faultlens.data.world.scene import Scene

_CHUNK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Rendered scenes, row by row.

    Attributes:
        pixels: RGB.
        labels: Index into `CLASSES`.
        attributes: Which attributes are visible, in the order of `ATTRIBUTES`.
        scenes: What each row was rendered from.
    """

    pixels: UInt8[np.ndarray, "N 64 64 3"]
    labels: Int64[np.ndarray, " N"]
    attributes: Bool[np.ndarray, "N 18"]
    scenes: tuple[Scene, ...]

    def source(self) -> ImageSource:
        """Return the pictures as images for a run."""
        return ImageSource.from_arrays(self.pixels, self.labels, CLASSES)


def render_all(
    scenes: Sequence[Scene],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Drawings:
    """Render scenes.

    Args:
        scenes: What to render.
        workers: Processes; more than one in a script needs `if __name__ == "__main__":`.
        progress: Called with the number done and the number of all.

    Example:
        >>> from faultlens.data.world.scene import scenes
        >>> drawings = render_all(list(scenes(3, seed=7)))
        >>> drawings.pixels.shape, drawings.attributes.shape
        ((3, 64, 64, 3), (3, 18))
    """
    report = progress or (lambda done, total: None)
    chunks = [scenes[i : i + _CHUNK] for i in range(0, len(scenes), _CHUNK)]
    pixels = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    attributes = np.empty((len(scenes), len(ATTRIBUTES)), bool)
    done = 0
    with parallel(workers) as apply:
        for p, a in apply(_render, chunks):
            pixels[done : done + len(p)], attributes[done : done + len(p)] = p, a
            done += len(p)
            report(done, len(scenes))
    labels = np.array([CLASSES.index(s.label) for s in scenes], np.int64)
    return Drawings(pixels, labels, attributes, tuple(scenes))


def _render(
    chunk: Sequence[Scene],
) -> tuple[UInt8[np.ndarray, "n 64 64 3"], Bool[np.ndarray, "n 18"]]:
    pictures = [render(scene) for scene in chunk]
    return np.stack([p.pixels for p in pictures]), np.stack([p.attributes for p in pictures])
