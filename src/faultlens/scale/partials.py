"""Partial results: arrays per range of rows, each in a file, folded in one fixed order."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from faultlens.alignment import PART
from faultlens.arrays import Array
from faultlens.embeddings.shard import digest
from faultlens.errors import InputError, StoreError
from faultlens.files import load_arrays, save_arrays
from faultlens.remote import RemotePath, place

Result = TypeVar("Result")
Arrays = dict[str, Array]


def added(first: Mapping[str, Array], second: Mapping[str, Array]) -> Arrays:
    """Return the sums of arrays of the same names.

    Example:
        >>> added({"n": np.array([1, 2])}, {"n": np.array([10, 20])})["n"].tolist()
        [11, 22]
    """
    return {name: np.asarray(array + second[name]) for name, array in first.items()}


def key_of(*parts: object) -> str:
    """Return a short name of what a result depends on; arrays count by their bytes.

    Example:
        >>> key_of("counts", 3) == key_of("counts", 3), len(key_of(np.arange(3)))
        (True, 16)
    """
    sha256 = hashlib.sha256()
    for part in parts:
        array = part if isinstance(part, np.ndarray) else None
        text = repr(part) if array is None else json.dumps([array.dtype.str, array.shape])
        sha256.update(f"{len(text)}:{text}".encode())
        if array is not None:
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class Partials(Generic[Result]):
    """A map over ranges of rows, and a fold over its results from the first to the last.

    Which rows make a part is fixed by `part_rows` alone. Each part is computed with one thread
    for matrix products, whose rounding may depend on their number.

    Attributes:
        folder: Where the partial results go; a folder or URL. They stay, so that more rows or a
            later run can use them.
        key: Names what the results depend on, see `key_of`.
        n_rows: N.
        mapper: Called once a worker; gives the function of a range of rows.
        finish: Turns the folded arrays into the result.
        fold: Joins two results; by default adds arrays of the same name.
        part_rows: Rows a part.
    """

    folder: str | Path | RemotePath
    key: str
    n_rows: int
    mapper: Callable[[], Callable[[range], Mapping[str, Array]]]
    finish: Callable[[Arrays], Result]
    fold: Callable[[Mapping[str, Array], Mapping[str, Array]], Arrays] = added
    part_rows: int = PART

    def __post_init__(self) -> None:
        for name, number in (("n_rows", self.n_rows), ("part_rows", self.part_rows)):
            if number < 1:
                raise InputError(f"{name} must be at least 1, got {number}")

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return -(-self.n_rows // self.part_rows)

    def rows(self, part: int) -> range:
        """Return the rows of a part."""
        start = part * self.part_rows
        return range(start, min(start + self.part_rows, self.n_rows))

    def is_done(self, part: int) -> bool:
        """Whether a part's file is there and intact."""
        try:
            self._read(part)
        except StoreError:
            return False
        return True

    def open(self) -> Callable[[int], None]:
        """Return what computes and writes a part."""
        compute = self.mapper()

        def work(part: int) -> None:
            with threadpool_limits(1, user_api="blas"):
                arrays = {name: np.asarray(a) for name, a in compute(self.rows(part)).items()}
            text = self._text(part)
            metadata = {"part": text, "sha256": digest(text, _contiguous(arrays))}
            save_arrays(self._path(part), arrays, metadata)

        return work

    def held(self) -> AbstractContextManager[object]:
        """Hold nothing: two runs of one job write the same files with the same bytes."""
        return nullcontext()

    def collect(self) -> Result:
        """Fold the parts from the first to the last, two in memory at a time."""
        first = self._read(0)
        return self.finish(
            reduce(lambda total, part: self.fold(total, self._read(part)),
                   range(1, self.n_parts), first)
        )  # fmt: skip

    def _path(self, part: int) -> Path | RemotePath:
        return place(self.folder) / self.key / f"part-{part:05d}.safetensors"

    def _text(self, part: int) -> str:
        rows = self.rows(part)
        return json.dumps({"key": self.key, "part": part, "rows": [rows.start, rows.stop]})

    def _read(self, part: int) -> Arrays:
        path = self._path(part)
        arrays, metadata = load_arrays(path)
        text = self._text(part)
        if metadata.get("part") != text or metadata.get("sha256") != digest(text, arrays):
            raise StoreError(
                f"{path} must hold the result for {text}, got another or a damaged one; "
                "run the command again"
            )
        return arrays


def _contiguous(arrays: Mapping[str, Array]) -> Arrays:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
