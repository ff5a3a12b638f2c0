"""Work on many images, a block of rows at a time, on all processors."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from faultlens.arrays import FloatArray
from faultlens.monitor.features import Features

#: Rows at a time: what is computed of them stays in the cache.
BLOCK = 1024
#: From here on float32 and threads are worth their setting up.
MANY = 8 * BLOCK

T = TypeVar("T")
_inside = threading.local()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def each(fill: Callable[[T], None], blocks: list[T]) -> None:
    """Call `fill` for every block, on all processors.

    NumPy lets go of the interpreter inside its loops and products, so threads serve; each of them
    runs its products alone. What is called by such a thread stays in it.

    Example:
        >>> import numpy as np
        >>> out = np.zeros(4)
        >>> def fill(rows):
        ...     out[rows] = 7
        >>> each(fill, [slice(0, 2), slice(2, 4)])
        >>> out.tolist()
        [7.0, 7.0, 7.0, 7.0]
    """
    if getattr(_inside, "is_one", False):
        for block in blocks:
            fill(block)
        return
    with (
        _controller().limit(limits=1, user_api="blas"),
        ThreadPoolExecutor(os.cpu_count(), initializer=_enter) as pool,
    ):
        list(pool.map(fill, blocks))


def _enter() -> None:
    _inside.is_one = True


def row_blocks(rows: FloatArray) -> list[slice]:
    """Return slices of `BLOCK` rows that cover an array.

    Example:
        >>> import numpy as np
        >>> row_blocks(np.zeros((1500, 2)))
        [slice(0, 1024, None), slice(1024, 1500, None)]
    """
    n = len(rows)
    return [slice(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]


def by_rows(measure: Callable[[Features], FloatArray], features: Features) -> FloatArray:
    """Return `measure` of all images; of many, a stretch of rows at a time on all processors.

    Several measures of the same rows then find them in the cache.

    Args:
        measure: Gives (n,) numbers for n images, each by itself.
        features: N images.
    """
    n = len(features)
    if n < 2 * MANY:
        return measure(features)
    bounds = np.linspace(0, n, n // MANY + 1).astype(int)
    out = np.empty(n)

    def fill(rows: slice) -> None:
        out[rows] = measure(features.select(rows))

    each(fill, [slice(a, b) for a, b in pairwise(bounds)])
    return out
