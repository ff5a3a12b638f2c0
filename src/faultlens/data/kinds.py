"""Kinds of image collections: which one `--images` names."""

import os
import re
from pathlib import Path

from faultlens.errors import InputError, nearest
from faultlens.registry import IMAGES
from faultlens.remote import is_url

_RIVAL10 = ("train", "test")
_HUGGING_FACE = ({"dataset_dict.json"}, {"state.json", "dataset_info.json"})
_CIFAR10 = ("test_batch.bin", "data_batch_1.bin", "test_batch", "data_batch_1")


def kind_of(path: str) -> tuple[str | None, str]:
    """Return the kind of a collection, None for a folder of pictures or a CSV file, and its path.

    `KIND:PATH` says it. Else these tell it: a file `.tar`, or a folder with some and without
    folders; the JSON files of a Hugging Face dataset; the batches of CIFAR-10; folders `train`
    or `test` with a folder `ordinary` of RIVAL10's files.

    Args:
        path: What the user wrote.

    Returns:
        The kind, a name in `faultlens.registry.IMAGES` or None; and the path without the prefix.

    Raises:
        InputError: There is a prefix that is no known kind.

    Example:
        >>> kind_of("rival10:data/RIVAL10")
        ('rival10', 'data/RIVAL10')
        >>> kind_of("photos")
        (None, 'photos')
        >>> kind_of("rival:data/RIVAL10")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be a path or KIND:PATH, got the kind 'rival'; \
did you mean 'rival10'?
    """
    if is_url(path):
        return "remote", path
    kind, place = _prefix(path)
    place = os.path.expanduser(place)
    return kind or _told_by(place), place


def anchored(path: str, folder: Path) -> str:
    """Return a path, with or without a kind, that counts from a folder; a URL stays as it is.

    Example:
        >>> Path(anchored("rival10:RIVAL10", Path("data"))).as_posix()
        'rival10:data/RIVAL10'
        >>> anchored("s3://bucket/photos", Path("data"))
        's3://bucket/photos'
    """
    if is_url(path):
        return path
    kind, place = _prefix(path)
    return str(folder / place) if kind is None else f"{kind}:{folder / place}"


def _prefix(path: str) -> tuple[str | None, str]:
    found = re.match(r"(\w[\w-]+):(.+)", path)  # one letter is a drive
    if found is None or os.path.exists(path):
        return None, path
    kind, place = found.groups()
    if kind not in IMAGES:
        raise InputError(
            f"images must be a path or KIND:PATH, got the kind '{kind}'; {nearest(kind, IMAGES)}"
        )
    return kind, place


def _told_by(place: str) -> str | None:
    if not os.path.isdir(place):
        return "webdataset" if place.endswith(".tar") and os.path.isfile(place) else None
    inside = set(os.listdir(place))
    if any(names <= inside for names in _HUGGING_FACE):
        return "hf"
    if any(os.path.isfile(os.path.join(place, name)) for name in _CIFAR10):
        return "cifar10"
    if any(_is_rival10(os.path.join(place, split, "ordinary")) for split in _RIVAL10):
        return "rival10"
    # Beside folders of classes an archive is somebody's copy.
    has_tar = any(name.endswith(".tar") for name in inside)
    has_folder = any(os.path.isdir(os.path.join(place, name)) for name in inside)
    return "webdataset" if has_tar and not has_folder else None


def _is_rival10(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith("_attr_labels.npy") for entry in entries)
