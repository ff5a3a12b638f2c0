"""Datasets of Hugging Face, as `save_to_disk` writes them: arrow files in a folder."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultlens.arrays import IntArray
from faultlens.data.images import ImageSource
from faultlens.data.listing import Listing, check_exists, some
from faultlens.errors import ImageError, InputError, MissingDependencyError

_LABELS = ("label", "labels", "fine_label", "class")


def open_huggingface(root: str | os.PathLike[str]) -> ImageSource:
    """List a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    One column holds images. The class is the column `label`, `labels`, `fine_label` or `class`,
    else the only column of type `ClassLabel`; numbers without names are named by themselves.
    Columns of truth values become attributes. The parts of a `DatasetDict` become splits.

    Args:
        root: The folder.

    Raises:
        InputError: No such folder, not one column of images or of classes, other columns in
            another split, or an image without a class.
        MissingDependencyError: The extra `datasets` is not installed.

    Example:
        >>> open_huggingface("no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be a folder of save_to_disk, got ...
    """
    root = os.path.expanduser(os.fspath(root))
    check_exists(root, "a folder of save_to_disk")
    datasets = _library()
    try:
        found = datasets.load_from_disk(root)
    except Exception as error:  # a damaged folder fails in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{root}' must be a folder of save_to_disk, got one that cannot be read ({reason}); "
            "save the dataset again"
        ) from error
    parts = dict(found) if isinstance(found, dict) else {"": found}
    columns = _Columns.of(datasets, next(iter(parts.values())), root)
    for split, part in parts.items():
        if columns != _Columns.of(datasets, part, root):
            raise InputError(
                f"splits of '{root}' must have the same columns, got others: '{split}'"
            )
    names = [f"{s}/{i}" if s else f"{i}" for s, part in parts.items() for i in range(len(part))]
    labels = [label for part in parts.values() for label in columns.labels(part, root)]
    listing = Listing(
        names,
        labels,
        [s for s, part in parts.items() for _ in range(len(part))] if "" not in parts else None,
        attributes={a: _attribute(parts, a) for a in columns.attributes},
    )
    bytes_only = datasets.Image(decode=False)
    stored = _Stored(tuple(p.cast_column(columns.image, bytes_only) for p in parts.values()),
                     columns.image, tuple(names), root)  # fmt: skip
    return ImageSource.from_listing(listing, root, columns.classes or None, stored)


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """Bytes of the images of several parts, one after the other."""

    parts: tuple[Any, ...]
    image: str
    names: tuple[str, ...]
    root: str

    def __call__(self, row: int) -> bytes:
        i = row
        for part in self.parts:
            if i < len(part):
                break
            i -= len(part)
        cell = part[i][self.image]
        if cell is None:
            raise ImageError(f"{self.names[row]} must be a picture, got none; remove the row")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        try:
            with open(os.path.join(self.root, cell["path"] or ""), "rb") as file:
                return file.read()
        except OSError as error:
            raise ImageError(
                f"{self.names[row]} must be a readable file, got '{cell['path']}' "
                f"({error.strerror}); restore or remove it"
            ) from error


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the columns of a dataset mean."""

    image: str
    label: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, datasets: Any, part: Any, root: str) -> "_Columns":
        features = part.features
        images = [n for n, f in features.items() if isinstance(f, datasets.Image)]
        named = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
        labels = [n for n in _LABELS if n in features][:1] or named
        if len(images) != 1:
            raise InputError(
                f"'{root}' must have one column of images, got {len(images)} among "
                f"{some(list(features))}; select or cast one with datasets.Image"
            )
        if len(labels) != 1:
            raise InputError(
                f"'{root}' must have one column of classes, got {len(labels)} among "
                f"{some(list(features))}; name it 'label'"
            )
        classes = tuple(features[labels[0]].names) if labels[0] in named else ()
        truths = [n for n, f in features.items() if getattr(f, "dtype", "") == "bool"]
        return cls(images[0], labels[0], classes, tuple(n for n in truths if n != labels[0]))

    def labels(self, part: Any, root: str) -> list[str]:
        """Return the class name of every row."""
        values = part[self.label][:]
        for i, value in enumerate(values):
            if value is None or value == -1 or isinstance(value, (list, dict, float)):
                raise InputError(
                    f"every image of '{root}' must have one class, got {value!r} in row {i}; "
                    "remove the rows without, such as a test split whose labels are kept back"
                )
        return [self.classes[v] if self.classes else str(v) for v in values]


def _attribute(parts: dict[str, Any], name: str) -> IntArray:
    values = [v for part in parts.values() for v in part[name][:]]
    return np.array([-1 if v is None else int(v) for v in values], np.int8)


def _library() -> Any:
    try:
        import datasets  # noqa: PLC0415 (it takes a second)
    except ImportError as error:
        raise MissingDependencyError("datasets", "datasets") from error
    return datasets
