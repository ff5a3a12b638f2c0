"""CIFAR-10 as published: batches of 32 × 32 pictures, in binary or as pickles."""

import os
from dataclasses import replace
from typing import Any

import numpy as np

from faultlens.arrays import Array, IntArray
from faultlens.data.images import ImageSource
from faultlens.data.listing import check_exists
from faultlens.data.unpickle import load_plain
from faultlens.errors import InputError
from faultlens.files import read_bytes

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def open_cifar10(root: str | os.PathLike[str]) -> ImageSource:
    """Read the batches in a folder, `cifar-10-batches-bin` or `cifar-10-batches-py`, into memory.

    Class names come from `batches.meta.txt` or `batches.meta`. The pickles are read without
    running anything; see `faultlens.data.unpickle`. Images are named `data_batch_1[0]` and so on.

    Args:
        root: The folder; batches that are not there are left out.

    Raises:
        InputError: No batches, no class names, or a damaged file.

    Example:
        >>> open_cifar10("no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: images must be the folder of CIFAR-10, got ...
    """
    root = os.path.expanduser(os.fspath(root))
    check_exists(root, "the folder of CIFAR-10")
    is_binary = any(os.path.isfile(os.path.join(root, f"{b}.bin")) for b in _BATCHES)
    ending = ".bin" if is_binary else ""
    found = [b for b in _BATCHES if os.path.isfile(os.path.join(root, b + ending))]
    if not found:
        raise InputError(
            f"'{root}' must hold batches of CIFAR-10, data_batch_1.bin or data_batch_1, got none; "
            "give the folder cifar-10-batches-bin or cifar-10-batches-py"
        )
    read = _binary if is_binary else _pickled
    batches = [read(os.path.join(root, b + ending)) for b in found]
    counts = [len(labels) for _, labels in batches]
    source = ImageSource.from_arrays(
        np.concatenate([pixels for pixels, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        _class_names(root, is_binary),
        splits=[s for b, n in zip(found, counts, strict=True) for s in [_split(b)] * n],
    )
    names = tuple(f"{b}[{i}]" for b, n in zip(found, counts, strict=True) for i in range(n))
    return replace(source, names=names, root=root)


def _split(batch: str) -> str:
    return "test" if batch == "test_batch" else "train"


def _binary(path: str) -> tuple[Array, IntArray]:
    rows = np.frombuffer(read_bytes(path), np.uint8)
    if len(rows) == 0 or len(rows) % (1 + _PIXELS):
        raise InputError(
            f"'{path}' must hold records of {1 + _PIXELS} bytes, got {len(rows)} bytes in all; "
            "restore it"
        )
    rows = rows.reshape(-1, 1 + _PIXELS)
    return _pictures(rows[:, 1:]), rows[:, 0].astype(np.int64)


def _pickled(path: str) -> tuple[Array, IntArray]:
    found = load_plain(read_bytes(path), path, encoding="bytes")
    values = _text_keys(found, path)
    data, labels = np.asarray(values.get("data")), values.get("labels")
    if not isinstance(labels, list) or not labels or data.dtype != np.uint8:
        labels = []
    if data.shape != (len(labels), _PIXELS):
        raise InputError(
            f"'{path}' must hold 'data', one row of {_PIXELS} bytes a picture, and 'labels', got "
            "something else; restore it"
        )
    return _pictures(data), np.array(labels)


def _pictures(rows: Array) -> Array:
    """Return planes of red, green and blue as pictures."""
    return rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _class_names(root: str, is_binary: bool) -> list[str]:
    path = os.path.join(root, "batches.meta.txt" if is_binary else "batches.meta")
    if is_binary:
        names = read_bytes(path).decode("utf-8", "replace").split()
    else:
        values = _text_keys(load_plain(read_bytes(path), path, encoding="bytes"), path)
        stored = values.get("label_names")
        names = [_text(name) for name in stored] if isinstance(stored, list) else []
    if not names:
        raise InputError(f"'{path}' must name the classes, got none; restore it")
    return names


def _text_keys(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"'{path}' must hold a dictionary, got {type(value).__name__}; restore it")
    return {_text(key): v for key, v in value.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
