"""Subsets: which images to take, decided without chance."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from faultlens.arrays import Array, IntArray
from faultlens.errors import InputError, ShapeError


def stratified_order(names: Sequence[str], labels: Array) -> IntArray:
    """Return an order of the images in which every beginning holds the classes in their shares.

    First comes one image of each class, then the others, evenly spread. Which image of a class
    comes when is decided by a hash of its name.

    Args:
        names: N names.
        labels: (N,) integers, at least 0.

    Returns:
        (N,) int64, a permutation.

    Example:
        >>> labels = np.repeat([0, 1], [30, 10])
        >>> order = stratified_order([f"{i}.png" for i in range(40)], labels)
        >>> np.bincount(labels[order[:8]])
        array([6, 2])
    """
    hashes = np.array([_hash(name) for name in names], dtype=np.uint64)
    counts = np.bincount(labels)
    by_class = np.lexsort((hashes, labels))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.where(rank == 0, 0.0, (rank + 0.5) / counts[labels])
    return np.lexsort((hashes, place))


def check_indices(indices: Any, n: int) -> IntArray:
    """Return indices, or the places of a mask of `n`, as int64.

    Raises:
        ShapeError: Neither (M,) integers nor an (n,) mask.
        InputError: An index outside 0 to n - 1.

    Example:
        >>> check_indices([True, False, True], 3)
        array([0, 2])
    """
    chosen = np.asarray(indices)
    if chosen.dtype == np.bool_ and chosen.shape == (n,):
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise ShapeError(
            f"indices must be (M,) integers or an ({n},) mask, "
            f"got {chosen.dtype} of shape {chosen.shape}"
        )
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < n:
        raise InputError(f"indices must lie in 0 to {n - 1}, got {chosen.min()} to {chosen.max()}")
    return chosen.astype(np.int64)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
