"""RIVAL10: ten classes of ImageNet pictures, each with 18 attributes and their masks.

References:
    Moayeri, Pope, Balaji, Feizi: A Comprehensive Study of Image Classification Model Sensitivity
    to Foregrounds, Backgrounds, and Visual Attributes. CVPR 2022. Read in its published layout.
"""

import base64
import binascii
import json
import os
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray, IntArray
from faultlens.data.decode import decode
from faultlens.data.images import ImageSource
from faultlens.data.listing import Listing, check_exists, some
from faultlens.data.unpickle import load_plain
from faultlens.errors import InputError, nearest
from faultlens.files import read_bytes

ATTRIBUTES = (
    "long-snout", "wings", "wheels", "text", "horns", "floppy-ears", "ears", "colored-eyes",
    "tail", "mane", "beak", "hairy", "metallic", "rectangular", "wet", "long", "tall", "patterned",
)  # fmt: skip
"""The attributes, in the order of the label files."""

_SPLITS = ("train", "test")
_PICTURE = ".JPEG"
_MERGED = "_merged_mask.JPEG"
_LABELS = "_attr_labels.npy"
_MASKS = "_attr_dict.pkl"


def open_rival10(root: str | os.PathLike[str]) -> ImageSource:
    """List RIVAL10: `root/{train,test}/ordinary/*.JPEG` beside `*_attr_labels.npy`.

    The class comes from the file's WordNet id through `wnid_to_class.json` and
    `label_mappings.json`, which lie in `root/meta`, in `root` or beside it. Classes are in the
    order of the mappings' numbers, truck to bird; the subclass is the ImageNet class; the
    attributes are the first row of the label file (the second says what was changed in made-up
    pictures, and `ordinary` ones are not).

    Args:
        root: Folder that holds `train`, `test` or both.

    Raises:
        InputError: No such pictures, a mapping is missing, a WordNet id is in none, or a label
            file is missing or damaged.

    Example:
        >>> open_rival10("no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be the folder of RIVAL10, got 'no/such/place', ...
    """
    root = os.path.expanduser(os.fspath(root))
    check_exists(root, "the folder of RIVAL10")
    names = [name for split in _SPLITS for name in _pictures(root, split)]
    if not names:
        raise InputError(
            f"'{root}' must hold pictures as train/ordinary/*{_PICTURE} or "
            f"test/ordinary/*{_PICTURE}, got none; give the folder that holds train and test"
        )
    of_wnid, of_class = (_mapping(root, f"{n}.json") for n in ("wnid_to_class", "label_mappings"))
    originals = [_original(name, of_wnid, of_class) for name in names]
    try:
        classes = [str(of_class[original][0]) for original in originals]
        order = dict(sorted((int(number), str(name)) for name, number in of_class.values()))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise InputError(
            'label_mappings.json must map a class to a name and a number, such as "semi": '
            f'["truck", 0], got something else ({error}); restore it'
        ) from error
    labels = np.array([_attributes(root, name) for name in names], np.int8)
    listing = Listing(
        names,
        classes,
        [name.split("/")[0] for name in names],
        originals,
        {a: labels[:, k] for k, a in enumerate(ATTRIBUTES)},
    )
    return ImageSource.from_listing(listing, root, list(order.values()))


def attribute_masks(source: ImageSource, i: int) -> dict[str, BoolArray]:
    """Return where each attribute of a picture is seen; the pickle is read without running it.

    Args:
        source: From `open_rival10`.
        i: Index of the picture.

    Returns:
        (H, W) under the name of each attribute that has a mask, and under `entire-object`: true
        where the stored mask is brighter than half. (The published loader takes any non-zero
        value, which in a mask stored as JPEG includes the noise around its edge.)

    Raises:
        InputError: The file is missing, damaged or refused, or holds something else.
    """
    path = _beside(source.root, source.names[i], _MASKS)
    found = load_plain(read_bytes(path), path)
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a mask for each attribute, got {type(found).__name__}")
    known = {*ATTRIBUTES, "entire-object"}
    for name in found:
        if name not in known:
            raise InputError(f"{path} must name attributes, got {name!r}; {nearest(name, known)}")
    return {name: _mask(value, f"mask '{name}' of {path}") for name, value in found.items()}


def merged_mask(source: ImageSource, i: int) -> BoolArray:
    """Return where any attribute of a picture is seen: (H, W), true where brighter than half.

    Args:
        source: From `open_rival10`.
        i: Index of the picture.

    Raises:
        InputError: The file `*_merged_mask.JPEG` is missing or damaged.
    """
    path = _beside(source.root, source.names[i], _MERGED)
    return _bright(decode(read_bytes(path), name=path))


def _pictures(root: str, split: str) -> list[str]:
    folder = os.path.join(root, split, "ordinary")
    if not os.path.isdir(folder):
        return []
    files = sorted(f for f in os.listdir(folder) if f.endswith(_PICTURE) and not f.startswith("."))
    return [f"{split}/ordinary/{f}" for f in files if not f.endswith(_MERGED)]


def _mapping(root: str, name: str) -> dict[str, Any]:
    places = [os.path.join(root, "meta"), root, os.path.join(root, os.pardir)]
    for place in places:
        path = os.path.join(place, name)
        if os.path.isfile(path):
            break
    else:
        raise InputError(
            f"RIVAL10 must come with {name}, got none in '{os.path.join(root, 'meta')}', '{root}' "
            "or beside it; copy it there from the published code"
        )
    try:
        values = json.loads(read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path} must be valid JSON, got {error}; restore it") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping, got {type(values).__name__}; restore it")
    return values


def _original(name: str, of_wnid: dict[str, Any], of_class: dict[str, Any]) -> str:
    """Return the ImageNet class of a picture."""
    wnid = os.path.basename(name).split("_")[0].removesuffix(_PICTURE)
    if wnid not in of_wnid:
        raise InputError(
            f"{name} must begin with a WordNet id of wnid_to_class.json, got '{wnid}'; "
            f"{nearest(wnid, of_wnid)}"
        )
    original = of_wnid[wnid]
    if original not in of_class:
        raise InputError(
            f"class '{original}' of {name} must be in label_mappings.json, got none; "
            f"{nearest(str(original), of_class)}"
        )
    return str(original)


def _attributes(root: str, name: str) -> IntArray:
    path = _beside(root, name, _LABELS)
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} must be an array of numbers, got {error}; restore it, or remove the picture"
        ) from error
    row = values[0] if values.ndim == 2 and len(values) else values
    if row.shape != (len(ATTRIBUTES),) or not np.isin(row, (0, 1)).all():
        raise InputError(
            f"{path} must hold {len(ATTRIBUTES)} attributes as 0 or 1, in one row or in the first "
            f"of two, got shape {values.shape} with {some([f'{v:g}' for v in np.unique(values)])}; "
            "restore it"
        )
    return np.asarray(row, np.int8)


def _beside(root: str, name: str, ending: str) -> str:
    return os.path.join(root, name.removesuffix(_PICTURE) + ending)


def _mask(value: Any, name: str) -> BoolArray:
    """Return a mask that is stored as an array, or as a picture file in base64."""
    if isinstance(value, np.ndarray) and value.ndim in (2, 3) and value.dtype.kind in "biuf":
        mask = value if value.ndim == 2 else value.max(axis=-1)
        return np.asarray(mask > mask.max() / 2)
    if isinstance(value, (str, bytes)):
        try:
            return _bright(decode(base64.b64decode(value), name=name))
        except (binascii.Error, ValueError) as error:
            raise InputError(f"{name} must be a picture in base64, got {error}") from error
    raise InputError(f"{name} must be an array or a picture, got {type(value).__name__}")


def _bright(picture: Any) -> BoolArray:
    return np.asarray(np.asarray(picture).max(axis=-1) > 127)
