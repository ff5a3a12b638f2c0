"""Shards: files of consecutive rows, each of which says what it is and proves it by a hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from faultlens.arrays import Array
from faultlens.errors import InputError, StoreError
from faultlens.files import map_arrays, read_header, save_arrays
from faultlens.remote import RemotePath

_BYTES = 16 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 64, 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store holds, and where it is cut into shards.

    Attributes:
        key: Names the content: by custom a hash of model, preprocessing and images.
        n_rows: N, one row an image.
        shard_rows: Rows of each shard but the last, which may be shorter.
        columns: Per name the length of a row and its data type.

    Example:
        >>> layout = Layout.of("key", 10, {"embedding": (8, np.float32)}, shard_rows=4)
        >>> layout.n_shards, layout.rows(2), layout.path(Path("out"), 2).name
        (3, range(8, 10), 'shard-00002.safetensors')
    """

    key: str
    n_rows: int
    shard_rows: int
    columns: Mapping[str, tuple[int, str]]

    @classmethod
    def of(
        cls,
        key: str,
        n_rows: int,
        columns: Mapping[str, tuple[int, DTypeLike]],
        shard_rows: int | None = None,
    ) -> "Layout":
        """Return a checked layout; see `EmbeddingStore.create_or_open` for the arguments."""
        try:
            named = {n: (int(dim), np.dtype(dtype).name) for n, (dim, dtype) in columns.items()}
        except (TypeError, ValueError) as error:
            raise InputError(f"columns must be name: (length, data type), got {columns}") from error
        if not named:
            raise InputError("columns must name at least one, got none")
        row_bytes = sum(max(dim, 1) * np.dtype(dtype).itemsize for dim, dtype in named.values())
        if shard_rows is None:
            rows = min(n_rows // 8, _MOST_ROWS, _BYTES // row_bytes)
            # A multiple of the usual batch sizes leaves no short batches.
            shard_rows = max(_FEWEST_ROWS, rows - rows % _FEWEST_ROWS)
        lengths = {f"length of '{name}'": dim for name, (dim, _) in named.items()}
        for name, number in {"n_rows": n_rows, "shard_rows": shard_rows, **lengths}.items():
            if number < 1:
                raise InputError(f"{name} must be at least 1, got {number}")
        return cls(key, n_rows, shard_rows, dict(sorted(named.items())))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Layout":
        """Return the layout that `to_json` turned into `value`."""
        columns = {name: (dim, dtype) for name, (dim, dtype) in value["columns"].items()}
        return cls(value["key"], value["n_rows"], value["shard_rows"], columns)

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON values."""
        columns = {name: list(column) for name, column in self.columns.items()}
        return {
            "key": self.key,
            "n_rows": self.n_rows,
            "shard_rows": self.shard_rows,
            "columns": columns,
        }

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_rows // self.shard_rows)

    def rows(self, shard: int) -> range:
        """Return the rows of one shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.n_rows))

    def path(self, folder: Path | RemotePath, shard: int) -> Path | RemotePath:
        """Return the file of one shard."""
        return folder / f"shard-{shard:05d}.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A finished shard, as its file describes it.

    Attributes:
        layout: Of the store that it belongs to.
        number: Its place, from 0.
        failures: Per row of the store that could not be computed, the reason.
        sha256: Over this description and all arrays.
    """

    layout: Layout
    number: int
    failures: Mapping[int, str]
    sha256: str


def digest(text: str, arrays: Mapping[str, Array] | None = None) -> str:
    """Return the SHA-256 over a description and the bytes of the arrays that it describes.

    Example:
        >>> digest("a")[:8]
        'ca978112'
    """
    sha256 = hashlib.sha256(text.encode())
    for _, array in sorted((arrays or {}).items()):
        sha256.update(array.data)
    return sha256.hexdigest()


def write_shard(
    folder: Path | RemotePath,
    layout: Layout,
    number: int,
    arrays: Mapping[str, Array],
    notes: Mapping[int, str],
) -> Shard:
    """Write one shard, atomically, and return its description.

    Raises:
        InputError: The arrays do not fit the columns, or a note is about a row elsewhere.
        StoreError: The file cannot be written.
    """
    rows = layout.rows(number)
    fitted = _fitted(arrays, layout, len(rows))
    failures = {int(row): str(note) for row, note in sorted(notes.items())}
    if outside := [row for row in failures if row not in rows]:
        raise InputError(f"notes must be about the shard's rows, {rows}, got row {outside[0]}")
    text = json.dumps(
        {
            "layout": layout.to_json(),
            "shard": number,
            "rows": [rows.start, rows.stop],
            "failures": failures,
        }
    )
    sha256 = digest(text, fitted)
    save_arrays(layout.path(folder, number), fitted, {"shard": text, "sha256": sha256})
    return Shard(layout, number, failures, sha256)


def read_shard(path: Path | RemotePath, *, is_hashed: bool = True) -> Shard:
    """Return what a shard's file says of itself, after checking all of it.

    Args:
        path: The file.
        is_hashed: Whether its values are read and held against its hash; else only its header.

    Raises:
        StoreError: The file is absent or damaged.
    """
    if is_hashed:
        arrays, metadata = shard_arrays(path, is_hashed=True)
        found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    else:
        found, metadata = read_header(path)
    try:
        stated = json.loads(metadata["shard"])
        layout, sha256 = Layout.from_json(stated["layout"]), metadata["sha256"]
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path} must be a shard, got none; run the command again") from error
    n = len(layout.rows(stated["shard"]))
    if found != {name: ((n, dim), dtype) for name, (dim, dtype) in layout.columns.items()}:
        raise StoreError(f"{path} must have the columns that it states; run the command again")
    failures = {int(row): note for row, note in stated["failures"].items()}
    return Shard(layout, stated["shard"], failures, sha256)


def shard_arrays(
    path: Path | RemotePath, *, is_hashed: bool, is_random: bool = False
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return a shard's columns and metadata, mapped from the disk or read from a URL.

    Args:
        path: The file.
        is_hashed: Whether to hold the values against the hash.
        is_random: See `faultlens.files.map_arrays`.

    Raises:
        StoreError: The file is absent or damaged.
    """
    arrays, metadata = map_arrays(path, is_random=is_random)
    if is_hashed and digest(metadata.get("shard", ""), arrays) != metadata.get("sha256"):
        raise StoreError(f"{path} must have the SHA-256 that it states; run the command again")
    return arrays, metadata


def _fitted(arrays: Mapping[str, Array], layout: Layout, n: int) -> dict[str, Array]:
    """Return the columns of a shard in their types, after checking names and shapes."""
    if set(arrays) != set(layout.columns):
        raise InputError(f"arrays must be {sorted(layout.columns)}, got {sorted(arrays)}")
    fitted = {}
    for name, (dim, dtype) in layout.columns.items():
        array = np.asarray(arrays[name])
        if array.shape != (n, dim) or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise InputError(
                f"column '{name}' must be {dtype} of shape {(n, dim)}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        fitted[name] = np.ascontiguousarray(array, dtype)
    return fitted
