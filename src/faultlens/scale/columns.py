"""What jobs read: blocks of rows from stores, without those that could not be computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faultlens.alignment import BLOCK
from faultlens.arrays import Array, BoolArray, IntArray
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError, ShapeError
from faultlens.remote import RemotePath

Folder = str | Path | RemotePath
#: (N,) integers, or an `.npy` file of them, which workers map instead of being sent it.
Labels = IntArray | str | Path


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows that could be computed.

    Attributes:
        rows: (n,) their places in the store.
        columns: One array (n, length) for each column asked for.
    """

    rows: IntArray
    columns: tuple[Array, ...]


def blocks(columns: Sequence[tuple[EmbeddingStore, str]], rows: range) -> Iterator[Block]:
    """Yield rows in blocks that are cut at multiples of `BLOCK`, whatever the stores' shards.

    Args:
        columns: Pairs of a store and the name of a column; rows of all stores are the same images.
        rows: A range of them.
    """
    stop = rows.stop
    for start in range(rows.start, stop, BLOCK):
        end = min(start + BLOCK, stop)
        kept = _kept([store for store, _ in columns], start, end)
        if not kept.any():
            continue
        arrays = (store.between(name, start, end) for store, name in columns)
        whole = kept.all()  # the usual case needs no copy
        yield Block(start + np.flatnonzero(kept), tuple(a if whole else a[kept] for a in arrays))


def _kept(stores: Sequence[EmbeddingStore], start: int, end: int) -> BoolArray:
    kept = np.ones(end - start, bool)
    for store in stores:
        kept[np.array(store.failed(start, end), np.int64) - start] = False
    return kept


def same_rows(first: EmbeddingStore, second: EmbeddingStore) -> int:
    """Return N of two stores; InputError if they differ."""
    n, m = first.layout.n_rows, second.layout.n_rows
    if n != m:
        raise InputError(
            f"stores must have the same images in the same order, got {n} and {m} rows"
        )
    return n


def labels_of(labels: Labels, n_rows: int) -> IntArray:
    """Return labels, mapped from a file where one is named.

    Raises:
        InputError: The file cannot be read.
        ShapeError: Not one integer a row.
    """
    if isinstance(labels, str | Path):
        try:
            found = np.load(labels, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"labels must be an .npy file, got {labels}: {error}") from error
    else:
        found = np.asarray(labels)
    if found.shape != (n_rows,) or found.dtype.kind not in "iu":
        raise ShapeError(
            f"labels must be {n_rows} integers, one a row, got {found.dtype} of shape {found.shape}"
        )
    return np.asarray(found)
