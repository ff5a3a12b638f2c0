"""Rendering on several cores."""

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def parallel(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give a `map` over processes, in order; with one worker the ordinary `map`.

    Example:
        >>> with parallel(1) as apply:
        ...     list(apply(abs, [-2, 1]))
        [2, 1]
    """
    if workers <= 1:
        yield map
        return
    # A fork would copy the locks of the caller's threads (a progress bar has one).
    with ProcessPoolExecutor(
        workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        yield pool.map
