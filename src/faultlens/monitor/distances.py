"""Squared distances to a bank of points, one matrix product a block.

`|a - b|² = |a|² + (-2 a·b + |b|²)`: the bracket is the product of `(a, 1)` with a prepared bank.
"""

from collections.abc import Iterator

import numpy as np

from faultlens.arrays import FloatArray

BLOCK = 256  # points compared with the bank at a time


def to_bank(points: FloatArray, bank: FloatArray) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """Yield the squared distances of blocks of points.

    Args:
        points: (N, D); its dtype is that of the result.
        bank: (M, D).

    Yields:
        Rows of the block, the (n, M) distances less `|a|²`, which may be changed in place, and the
        (n, 1) `|a|²`.

    Example:
        >>> a, b = np.array([[1.0, 1.0]]), np.array([[1.0, 1.0], [4.0, 5.0]])
        >>> [(part + own).tolist() for _, part, own in to_bank(a, b)]
        [[[0.0, 25.0]]]
    """
    b = bank.astype(points.dtype)
    prepared = np.concatenate([-2 * b.T, (b * b).sum(axis=1)[None]])
    for i in range(0, len(points), BLOCK):
        rows = slice(i, min(i + BLOCK, len(points)))
        a = points[rows]
        ones = np.ones((len(a), 1), points.dtype)
        yield rows, np.hstack([a, ones]) @ prepared, (a * a).sum(axis=1, keepdims=True)
