"""Rerun: checks that put a sample of the images through the classifier once more."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from scipy import special

from faultlens.arrays import FloatArray, IntArray
from faultlens.data.images import ImageSource
from faultlens.models.classifier import Classifier, batches
from faultlens.models.drift import ChannelScales, NormDrift, first_break

N_IMAGES = 256
#: Images whose channels are read where a layer breaks.
N_CHANNEL_IMAGES = 1000
#: Errors that are looked at again under small changes.
N_ERRORS = 200


def sample(n: int, size: int = N_IMAGES) -> IntArray:
    """Return at most `size` of n rows, evenly spread.

    Example:
        >>> sample(10, 4).tolist()
        [0, 3, 6, 9]
    """
    return np.unique(np.linspace(0, n - 1, min(n, size)).round().astype(np.int64))


def drifts(model: Classifier, source: ImageSource) -> tuple[NormDrift, ...]:
    """Return what the model's normalisation layers are fed, against what they remember.

    Args:
        model: Any classifier; only live PyTorch modules know their layers.
        source: The analysed images, classes mixed or not: they are sampled evenly.

    Returns:
        One a layer, in order; empty where the layers are not known.
    """
    read: Callable[[Iterable[FloatArray]], list[NormDrift]] | None
    read = getattr(model, "norm_drift", None)
    return () if read is None else tuple(read(_batches(model, source, sample(len(source)))))


def channels(
    model: Classifier, source: ImageSource, found: Sequence[NormDrift], among: IntArray
) -> ChannelScales | None:
    """Return at what sizes channels arrive where the encoder breaks.

    Args:
        model: Any classifier; only live PyTorch modules know their layers.
        source: N images.
        found: From `drifts`.
        among: Rows of the images that may be read.

    Returns:
        `pooled` has N rows, NaN where an image was not read; None where no layer breaks, or where
        the sizes cannot be solved for.
    """
    place, read = first_break(found), getattr(model, "channel_scales", None)
    if place is None or read is None:
        return None
    rows = among[sample(len(among), N_CHANNEL_IMAGES)]
    scales: ChannelScales | None = read(_batches(model, source, rows), found[place].layer)
    if scales is None:
        return None
    pooled = np.full((len(source), len(scales.factors)), np.nan)
    pooled[rows] = scales.pooled
    return replace(scales, pooled=pooled)


def _batches(model: Classifier, source: ImageSource, rows: Any) -> Iterator[FloatArray]:
    return batches(model, (source.load(int(i)) for i in rows))


def vanishing(
    model: Classifier, source: ImageSource, labels: IntArray, predictions: IntArray
) -> IntArray:
    """Ask again about errors, with pictures changed as no label minds.

    The picture is mirrored, blurred slightly, shifted both ways and cropped; the mean of the five
    softmax outputs answers. A head that misreads an embedding misreads it under every change;
    what a perturbation of the pixels brought about mostly vanishes.

    Args:
        model: The classifier.
        source: N images.
        labels: (N,).
        predictions: (N,).

    Returns:
        (N,) 1 for errors that vanish, 0 for those that stay, -1 for images not asked about.
    """
    errors = np.flatnonzero(labels != predictions)
    out = np.full(len(labels), -1, np.int8)
    for i in errors[sample(len(errors), N_ERRORS)] if len(errors) else errors:
        image = source.load(int(i))
        batch = np.stack([model.prepare(changed) for changed in _changed(image)])
        p = special.softmax(model.encode(batch)["logits"], axis=1).mean(axis=0)
        out[i] = int(p.argmax()) == labels[i]
    return out


def _changed(image: Image.Image) -> list[Image.Image]:
    """The same picture in five ways; sizes are shares of the shorter side."""
    side = min(image.size)
    edge = max(1, round(0.045 * side))
    inner = (edge, edge, image.width - edge, image.height - edge)
    return [
        ImageOps.mirror(image),
        image.filter(ImageFilter.GaussianBlur(side / 80)),
        _shifted(image, edge, edge),
        _shifted(image, -edge, -edge),
        image.crop(inner).resize(image.size, Image.Resampling.BILINEAR),
    ]


def _shifted(image: Image.Image, dx: int, dy: int) -> Image.Image:
    """Move a picture, repeating its border."""
    x = np.clip(np.arange(image.width) - dx, 0, image.width - 1)
    y = np.clip(np.arange(image.height) - dy, 0, image.height - 1)
    return Image.fromarray(np.asarray(image)[np.ix_(y, x)])
