"""WebDataset: pictures and their classes as neighbouring files in tar archives."""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultlens.arrays import IntArray
from faultlens.data.decode import SUFFIXES
from faultlens.data.images import ImageSource
from faultlens.data.listing import Listing, check_exists, some
from faultlens.errors import ImageError, InputError

_NAMES = ("classnames.txt", "classes.txt")
_SAYING = ("cls", "cls.txt", "json")
_KEYS = ("label", "cls", "class", "class_name")
_BLOCK = 512


def open_webdataset(path: str | os.PathLike[str]) -> ImageSource:
    """List the pictures in tar archives, without unpacking them.

    Files whose names agree up to the first full stop are one sample: a picture (`.jpg`, `.png`,
    …) and its class in `.cls` (or `.cls.txt`), or under `label`, `cls`, `class` or `class_name`
    in `.json`. A number is named by that line, counted from 0, of `classnames.txt` or
    `classes.txt` beside the archives or one folder above; without such a file by itself.

    Args:
        path: One archive, a folder of archives, or a folder of splits with archives in each.

    Raises:
        InputError: No archives, a damaged or compressed one, a sample without picture or class,
            or with two pictures, or a file twice.

    Example:
        >>> open_webdataset("no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be a tar archive or a folder of them, got ...
    """
    path = os.path.expanduser(os.fspath(path))
    check_exists(path, "a tar archive or a folder of them")
    root, shards = _shards(path)
    samples = [sample for shard in shards for sample in _samples(root, shard)]
    if not samples:
        raise InputError(f"'{path}' must hold pictures in tar archives, got none")
    names = [s.name for s in samples]
    known = _class_names(root)
    classes = [_class(s, known) for s in samples]
    splits = [s.name.split("/")[0] for s in samples] if "/" in shards[0] else None
    stored = _Stored(
        root,
        tuple(s.shard for s in samples),
        tuple(names),
        np.array([(s.offset, s.size) for s in samples]),
    )
    used = known if known and set(classes) <= set(known) else None
    return ImageSource.from_listing(Listing(names, classes, splits), path, used, stored)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One picture in an archive, and what is said of its class."""

    name: str
    shard: str
    offset: int
    size: int
    said: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """Bytes of the pictures; every reading opens its archive anew, so threads do not meet."""

    root: str
    shards: tuple[str, ...]
    names: tuple[str, ...]
    places: IntArray

    def __call__(self, row: int) -> bytes:
        offset, size = (int(v) for v in self.places[row])
        try:
            with open(os.path.join(self.root, self.shards[row]), "rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise ImageError(
                f"{self.names[row]} must be in a readable archive, got {error.strerror}; restore it"
            ) from error


def _shards(path: str) -> tuple[str, list[str]]:
    """Return the folder that shards are named from, and their names."""
    if not os.path.isdir(path):
        return os.path.split(path)[0] or ".", [os.path.basename(path)]
    direct = _tars(path)
    inside = [
        f"{folder}/{name}"
        for folder in sorted(os.listdir(path))
        if os.path.isdir(os.path.join(path, folder))
        for name in _tars(os.path.join(path, folder))
    ]
    if bool(direct) == bool(inside):
        raise InputError(
            f"'{path}' must hold tar archives either in itself or in one folder a split, got "
            f"{'both' if direct else 'none'}"
        )
    return path, direct or inside


def _tars(folder: str) -> list[str]:
    return sorted(f for f in os.listdir(folder) if f.endswith(".tar") and not f.startswith("."))


def _samples(root: str, shard: str) -> Iterator[_Sample]:
    path = os.path.join(root, shard)
    groups: dict[str, dict[str, tarfile.TarInfo]] = {}
    with open(path, "rb") as file:
        for member in _members(file, path):
            folder, _, base = member.name.rpartition("/")
            key, _, ending = base.partition(".")
            if base.startswith(".") or not ending:
                continue
            group = groups.setdefault(f"{folder}/{key}".lstrip("./"), {})
            if ending.lower() in group:
                raise InputError(f"'{path}' must hold every file once, got '{member.name}' twice")
            group[ending.lower()] = member
        for key, group in groups.items():
            pictures = [e for e in group if e in SUFFIXES]
            pictures = pictures or [e for e in group if e.rpartition(".")[2] in SUFFIXES]
            if not pictures and not any(e in group for e in _SAYING):
                continue  # a note to the reader
            if len(pictures) != 1:
                raise InputError(
                    f"sample '{key}' of '{path}' must have one picture, got {len(pictures)} among "
                    f"{some(sorted(group))}"
                )
            picture = group[pictures[0]]
            name = f"{shard}/{key}.{pictures[0]}"
            said = _said(file, group, name)
            yield _Sample(name, shard, picture.offset_data, picture.size, said)


def _members(file: Any, path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the plain files of an archive; one that ends early is an error."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    yield member
            file.seek(tar.offset)
    except tarfile.TarError as error:
        raise InputError(
            f"'{path}' must be a tar archive, neither damaged nor compressed, got one that cannot "
            f"be read ({error}); restore or unpack it"
        ) from error
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise InputError(
            f"'{path}' must be a complete tar archive, got one that breaks off or is damaged at "
            f"byte {tar.offset}; restore it"
        )


def _said(file: Any, group: Mapping[str, tarfile.TarInfo], name: str) -> str | None:
    for ending in _SAYING:
        if ending not in group:
            continue
        file.seek(group[ending].offset_data)
        data = file.read(group[ending].size)
        try:
            text = str(data, "utf-8").strip()
            if ending != "json":
                return text
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"the .{ending} of {name} must be readable, got {error}") from error
        found = [values[k] for k in _KEYS if k in values] if isinstance(values, dict) else []
        if found and isinstance(found[0], (int, str)):
            return str(found[0])
    return None


def _class_names(root: str) -> list[str]:
    for folder in (root, os.path.join(root, os.pardir)):
        for name in _NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, encoding="utf-8") as file:
                    return [line.strip() for line in file if line.strip()]
    return []


def _class(sample: _Sample, known: list[str]) -> str:
    if not sample.said:
        raise InputError(
            f"{sample.name} must have a class in .cls, or in .json under {some(_KEYS)}, got none"
        )
    if not known or not sample.said.isdecimal():
        return sample.said
    if int(sample.said) >= len(known):
        raise InputError(
            f"class of {sample.name} must be below {len(known)}, the number of class names, got "
            f"{sample.said}; complete {' or '.join(_NAMES)}"
        )
    return known[int(sample.said)]
