"""Variants: the usual mistakes in feeding a network, each undone.

A network that gets BGR where it was trained on RGB, or bytes where it expects numbers about zero,
fails for a reason that lies in front of it. The usual mistakes are few enough to try them all.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.data.preprocess import Preprocessing

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_FACTORS = {"half": 1 / 2, "two thirds of": 2 / 3, "4/3": 4 / 3, "1.5 times": 3 / 2, "twice": 2.0}
_MIN_SIDE = 8
_GRAY = (0.299, 0.587, 0.114)

Changes = dict[str, Any]
Size = tuple[int, int]


def variants(
    stated: Preprocessing,
    *,
    input_shape: tuple[int | None, ...] = (None,) * 4,
    own: tuple[Sequence[float], Sequence[float]] | None = None,
    tried: Iterable[Preprocessing] = (),
) -> dict[str, Preprocessing]:
    """Return the usual mistakes undone, under names that complete "with …".

    Args:
        stated: The preprocessing that the model came with.
        input_shape: Of the network's input, None where it may vary; only sizes that it takes are
            tried.
        own: Mean and deviation of the pictures, per RGB channel, pixel values scaled to 0–1.
        tried: Others that are not wanted again.

    Returns:
        Channel order, normalisation, scale and size, one changed at a time; nothing twice, and
        nothing that equals the stated one.

    Example:
        >>> plain = Preprocessing(resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> found = variants(plain, input_shape=(None, 3, 8, 8))
        >>> list(found)[:3]
        ['BGR channel order', 'values of 0 to 1', 'values of 0 to 255']
        >>> found["values of 0 to 1"].mean
        (0.0, 0.0, 0.0)
    """
    taken = input_shape[2:] if stated.layout == "nchw" else input_shape[1:3]
    known, found = [stated, *tried], dict[str, Preprocessing]()
    for name, changes in (*_orders(stated), *_values(stated, own), *_sizes(stated, taken)):
        one = type(stated)(**(stated.model_dump() | changes))
        if _is_taken(one, taken) and not any(_is_same(one, other) for other in known):
            found[name] = one
            known.append(one)
    return found


def _orders(p: Preprocessing) -> Iterator[tuple[str, Changes]]:
    if p.channel_order != "gray":
        other = "bgr" if p.channel_order == "rgb" else "rgb"
        # Mean and deviation stay as they are written: as a rule they come from the training code.
        yield f"{other.upper()} channel order", {"channel_order": other}


def _values(
    p: Preprocessing, own: tuple[Sequence[float], Sequence[float]] | None
) -> Iterator[tuple[str, Changes]]:
    def normalised(scale: float, mean: Sequence[float], std: Sequence[float]) -> Changes:
        order = p.channel_order
        return {"scale": scale, "mean": _channels(mean, order), "std": _channels(std, order)}

    yield "values of 0 to 1", normalised(1 / 255, (0,) * 3, (1,) * 3)
    yield "values of 0 to 255", normalised(1, (0,) * 3, (1,) * 3)
    yield "values of -1 to 1", normalised(1 / 255, (0.5,) * 3, (0.5,) * 3)
    yield "mean 0.5 and deviation 0.25", normalised(1 / 255, (0.5,) * 3, (0.25,) * 3)
    yield "ImageNet's mean and deviation", normalised(1 / 255, _MEAN, _STD)
    if p.channel_order != "gray":
        caffe = {"scale": 1.0, "mean": _CAFFE_MEAN, "std": (1,) * 3, "channel_order": "bgr"}
        yield "BGR values of 0 to 255 less ImageNet's mean", caffe
    yield "a scale of 1/255", {"scale": 1 / 255}
    yield "a scale of 1", {"scale": 1.0}
    if own is not None:
        yield "the pictures' own mean and deviation", normalised(1 / 255, *own)


def _channels(rgb: Sequence[float], order: str) -> tuple[float, ...]:
    if order == "gray":
        return (float(np.dot(_GRAY, rgb)),)
    return tuple(float(v) for v in (rgb if order == "rgb" else rgb[::-1]))


def _sizes(p: Preprocessing, taken: tuple[int | None, ...]) -> Iterator[tuple[str, Changes]]:
    made = _made(p)
    if made is not None:
        yield from _of_size(made)
    if p.crop is not None and p.resize is not None:
        yield from _of_size(_pair(p.resize))
    if None in taken:
        for told, factor in _FACTORS.items():
            resize, crop = _times(p.resize, factor), _times(p.crop, factor)
            sizes = [_pair(size) for size in (crop, resize) if size is not None]
            if sizes and min(map(min, sizes)) >= _MIN_SIDE:
                height, width = sizes[0]
                changes = {"resize": resize, "crop": crop}
                yield f"{told} the size ({height} × {width})", changes


def _of_size(size: Size) -> Iterator[tuple[str, Changes]]:
    (height, width), side = size, max(size)
    margin = round(side * 8 / 7)
    told = f"{height} × {width}"
    yield f"pictures squeezed to {told}", {"resize": size, "crop": None}
    yield f"the middle {told} of pictures resized to {side}", {"resize": side, "crop": size}
    yield f"the middle {told} of pictures resized to {margin}", {"resize": margin, "crop": size}


def _times(size: int | Size | None, factor: float) -> int | Size | None:
    if size is None:
        return None
    if isinstance(size, int):
        return round(size * factor)
    return round(size[0] * factor), round(size[1] * factor)


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else size


def _made(p: Preprocessing) -> Size | None:
    """Height and width of every input, if they are fixed."""
    if p.crop is not None:
        return _pair(p.crop)
    return p.resize if isinstance(p.resize, tuple) else None


def _is_taken(p: Preprocessing, taken: tuple[int | None, ...]) -> bool:
    made = _made(p)
    return made is None or all(t in (None, m) for t, m in zip(taken, made, strict=True))


def _is_same(a: Preprocessing, b: Preprocessing) -> bool:
    shape = ("resize", "interpolation", "channel_order", "layout")
    if any(getattr(a, f) != getattr(b, f) for f in shape):
        return False
    if (a.crop and _pair(a.crop)) != (b.crop and _pair(b.crop)):
        return False
    return bool(np.allclose(_line(a), _line(b), rtol=1e-3, atol=1e-6))


def _line(p: Preprocessing) -> FloatArray:
    """Factor and offset of each channel: all that scale, mean and deviation amount to."""
    mean, std = np.array(p.mean), np.array(p.std)
    return np.concatenate([p.scale / std, mean / std])
