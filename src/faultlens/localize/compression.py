"""Compression: pictures that JPEG has visibly damaged, and what the damage costs a network.

JPEG codes blocks of 8 × 8 pixels one by one, so hard compression leaves steps at their borders. How
hard it was can be read back: coding such a picture again at the quality it was coded at changes
next to nothing, while any other quality changes it (Farid, Exposing digital forgeries from JPEG
ghosts, IEEE TIFS 2009). And what it cost can be estimated without the undamaged pictures: coding
them once more, just as hard but with the blocks elsewhere, does about the same damage again.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from faultlens.arrays import FloatArray, IntArray
from faultlens.localize.gains import MIN_SHARE, Gain

#: Of a picture with damage. Of drawn pictures, photographs of usual quality and CIFAR-10 pictures
#: 1, 1 and 10 % reach it; of the same at quality 20 it is 95, 91 and 70 %.
MIN_BLOCKINESS = 1.25
#: Coarser than this is called hard compression.
MAX_QUALITY = 35
#: Share of damaged pictures below which nothing is said.
MIN_DAMAGED = 0.25

#: Finer qualities that are tried as well.
_BEYOND = 11
_BLOCK = 8
#: Pixels of the middle of a picture that are looked at: all coding and decoding is repeated there.
_WINDOW, _CODED_WINDOW = 256, 64
#: Larger steps are edges of things, not of blocks.
_EDGE = 24.0


@dataclass(frozen=True, slots=True, eq=False)
class Compression:
    """Pictures that hard compression has damaged.

    Attributes:
        n: Pictures looked at.
        rows: (k,) the damaged ones, as rows of the measurements.
        quality: Their JPEG quality, the median.
        blockiness: Likewise.
        cost: Accuracy that the same damage once more costs them, as the gain of leaving it.
        share: That cost as a share of the errors among all n; above 1 where it costs more.
    """

    n: int
    rows: IntArray
    quality: int
    blockiness: float
    cost: Gain
    share: float

    @property
    def is_fault(self) -> bool:
        """Whether the damage explains a third of the errors or more."""
        return self.cost.is_significant and self.share >= MIN_SHARE


def blockiness(image: Image.Image) -> float:
    """Return how much larger brightness steps are at borders of 8 × 8 blocks than elsewhere.

    Args:
        image: Any picture; its middle is looked at.

    Returns:
        About 1 for an undamaged picture, 1.5 to 4 after hard compression; 1 for one without inner
        borders.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        >>> blocks = np.kron(noise[::8, ::8], np.ones((8, 8, 1), np.uint8))
        >>> blockiness(Image.fromarray(noise)) < 1.1, blockiness(Image.fromarray(blocks)) > 10
        (True, True)
    """
    grey = np.asarray(_window(image, _WINDOW).convert("L"), np.float32)
    if min(grey.shape) <= _BLOCK:
        return 1.0
    border, inside = [], []
    for a in (grey, grey.T):
        steps = np.minimum(np.abs(np.diff(a, axis=1)), _EDGE).mean(axis=0)
        is_border = np.arange(1, a.shape[1]) % _BLOCK == 0
        border.append(steps[is_border].mean())
        inside.append(steps[~is_border].mean())
    # Half a grey level keeps flat pictures near 1.
    return float((np.mean(border) + 0.5) / (np.mean(inside) + 0.5))


def quality_of(image: Image.Image) -> int | None:
    """Return the JPEG quality a picture was once coded at; None where it is finer than 35.

    Args:
        image: Decoded, on its original grid of blocks.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        >>> quality_of(Image.fromarray(noise)) is None
        True
        >>> quality_of(_coded(Image.fromarray(noise), 12))
        12
    """
    window = _window(image, _CODED_WINDOW)
    before = np.asarray(window, np.float32)
    qualities = range(1, MAX_QUALITY + _BEYOND)
    change = [float(np.square(_pixels(_coded(window, q)) - before).mean()) for q in qualities]
    # The finer the coding, the less it changes: without a dip one of the last changes least.
    found = qualities[int(np.argmin(change))]
    return found if found <= MAX_QUALITY else None


def compressed_again(image: Image.Image, quality: int) -> Image.Image:
    """Return a picture after JPEG coding with its blocks half a block away from the old ones.

    Example:
        >>> compressed_again(Image.new("RGB", (20, 10), "red"), 50).size
        (20, 10)
    """
    half = _BLOCK // 2
    padded = np.pad(np.asarray(image), ((half, 0), (half, 0), (0, 0)), mode="edge")
    coded = _coded(Image.fromarray(padded), quality)
    return coded.crop((half, half, coded.width, coded.height))


def _coded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _pixels(image: Image.Image) -> FloatArray:
    return np.asarray(image, np.float32)


def _window(image: Image.Image, largest: int) -> Image.Image:
    """The middle of a picture, cut along the grid of its (colour) blocks."""
    left, top = (max(0, side - largest) // 2 // 16 * 16 for side in image.size)
    return image.crop(
        (left, top, min(left + largest, image.width), min(top + largest, image.height))
    )
