"""What is checked when a model is loaded, so that nothing later has to doubt it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray
from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError
from faultlens.models.adapter import CannotRunError, InputShape, SplitClassifier, show_shape
from faultlens.models.description import ModelDescription
from faultlens.models.head import Head

T = TypeVar("T")

# Tried in turn when neither the model nor its preprocessing states a size.
_PROBE_SIZES = (32, 224, 64, 96, 128, 28)


def check_split(model: SplitClassifier, batch: FloatArray) -> None:
    """Prove on a batch that the cut is right and that pictures do not influence each other.

    Args:
        model: Just loaded.
        batch: At least two different prepared pictures.

    Raises:
        InputError: `head(embedding)` differs from the logits, or a picture alone gives another
            result than in a batch.
    """
    result = model.encode(batch)
    embedding, logits = result["embedding"], result["logits"]
    where = f"at '{model.split}' of {model.name}"
    want = (len(batch), model.dimension)
    if embedding.shape != want:
        raise InputError(
            f"split_at must name a tensor that flattens to {want}, as the head needs, got "
            f"{embedding.shape} {where}; choose another split_at"
        )
    if not _close(model.head(embedding), logits, model.tolerance):
        raise InputError(
            f"head must give the model's logits, got a difference of up to "
            f"{np.abs(model.head(embedding) - logits).max():.3g} {where}; between the split and "
            "the logits something else happens: choose another split_at"
        )
    alone = model.encode(batch[:1])
    if not _close(alone["embedding"], embedding[:1], model.tolerance):
        raise InputError(
            f"model must give a picture the same embedding alone as in a batch, got another one "
            f"{where}; export it in evaluation mode (dropout off, batch norm with stored means)"
        )


def _close(a: FloatArray, b: FloatArray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())


def check_classes(description: ModelDescription, head: Head, *, name: str) -> None:
    """Raise InputError unless there is one class name for each logit.

    Example:
        >>> plain = Preprocessing(resize=8, mean=(0, 0, 0), std=(1, 1, 1))
        >>> about = ModelDescription(classes=("cat", "dog"), preprocessing=plain)
        >>> check_classes(about, Head((np.eye(3),), (np.zeros(3),)), name="net")
        Traceback (most recent call last):
        faultlens.errors.InputError: classes must hold one name for each logit, got 2 names for \
3 logits of net; correct the description
    """
    if len(description.classes) != head.n_classes:
        raise InputError(
            f"classes must hold one name for each logit, got {len(description.classes)} names "
            f"for {head.n_classes} logits of {name}; correct the description"
        )


def check_weights(weights: Iterable[tuple[str, Array]], *, name: str) -> None:
    """Raise InputError if a weight is NaN or infinite.

    A mask of zeros and minus infinity is a legitimate constant of an attention layer.

    Example:
        >>> check_weights([("mask", np.array([0, -np.inf]))], name="net")
        >>> check_weights([("fc.weight", np.array([1, np.nan]))], name="net")
        Traceback (most recent call last):
        faultlens.errors.InputError: weights of net must be finite, got 1 NaN or infinite values \
in 'fc.weight'; the file is damaged or training diverged
    """
    for tensor, a in weights:
        bad = ~np.isfinite(a)
        if bad.any() and not np.isneginf(a[a != 0]).all():
            raise InputError(
                f"weights of {name} must be finite, got {int(bad.sum())} NaN or infinite values "
                f"in '{tensor}'; the file is damaged or training diverged"
            )


def check_input(shape: InputShape, preprocessing: Preprocessing, *, name: str) -> None:
    """Raise InputError unless the preprocessing can give what the model takes.

    Args:
        shape: Of the model's input, None where it may vary.
        preprocessing: What pictures will go through.
        name: The model's name, for the message.

    Example:
        >>> large = Preprocessing(resize=256, crop=224, mean=(0, 0, 0), std=(1, 1, 1))
        >>> check_input((None, 3, 32, 32), large, name="net")
        Traceback (most recent call last):
        faultlens.errors.InputError: preprocessing must give pictures of 32 × 32, which net \
takes, got 224 × 224; correct its crop or resize
    """
    if len(shape) != 4:
        raise InputError(
            f"input of {name} must have 4 axes (a batch of pictures), got {show_shape(shape)}"
        )
    channels = 1 if preprocessing.channel_order == "gray" else 3
    at, other = (1, 3) if preprocessing.layout == "nchw" else (3, 1)
    if shape[at] not in (None, channels):
        hint = "layout" if shape[other] == channels else "channel_order"
        raise InputError(
            f"preprocessing must give the {shape[at]} channels that {name} takes on axis {at} of "
            f"{show_shape(shape)}, got {channels} with layout '{preprocessing.layout}' and "
            f"channel_order '{preprocessing.channel_order}'; correct its {hint}"
        )
    made, taken = _size(preprocessing), _spatial(shape, preprocessing)
    if made and any(t not in (None, m) for m, t in zip(made, taken, strict=True)):
        raise InputError(
            f"preprocessing must give pictures of {show_shape(taken)}, which {name} takes, got "
            f"{show_shape(made)}; correct its crop or resize"
        )


def probe(
    preprocessing: Preprocessing, shape: InputShape, run: Callable[[FloatArray], T]
) -> tuple[FloatArray, T]:
    """Return three fixed noise pictures, prepared, and what `run` makes of them.

    When nobody states a size, some usual ones are tried: any that runs will do for a check.

    Args:
        preprocessing: What the pictures go through.
        shape: Of the model's input, None where it may vary.
        run: Called with the batch.

    Returns:
        The batch, (3, …), and the result of `run`.

    Raises:
        InputError: `run` fails at every size.

    Example:
        >>> plain = Preprocessing(resize=None, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
        >>> probe(plain, (None, 3, None, None), len)[1]
        3
    """
    height, width = _size(preprocessing) or _spatial(shape, preprocessing)
    known = None not in (height, width) or preprocessing.resize is not None
    problem: CannotRunError | None = None
    for size in _PROBE_SIZES[: 1 if known else None]:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (3, height or size, width or size, 3), dtype=np.uint8)
        batch = np.stack([preprocessing(Image.fromarray(p)) for p in pixels])
        try:
            return batch, run(batch)
        except CannotRunError as error:
            if known:
                raise
            problem = problem or error
    raise InputError(
        f"{problem}; no usual size works, so state resize or crop in the preprocessing"
    ) from problem


def _size(preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Height and width that every picture ends up with, if they are fixed."""
    last = preprocessing.resize if preprocessing.crop is None else preprocessing.crop
    if isinstance(last, int):
        # A resize to one number keeps the aspect, so the other side varies.
        return None if preprocessing.crop is None else (last, last)
    return last


def _spatial(shape: InputShape, preprocessing: Preprocessing) -> InputShape:
    return shape[2:] if preprocessing.layout == "nchw" else shape[1:3]
