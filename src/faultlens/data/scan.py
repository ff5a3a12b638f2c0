"""Scanning: one pass over all files before any computing, to hash them and to find the broken."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faultlens.data.decode import check_header
from faultlens.errors import ImageError, InputError

Progress = Callable[[int, int], None]
"""Called with the number done and the number in all."""

_CHUNK = 128


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What one pass over the files found.

    Attributes:
        digests: SHA-256 of each file's bytes, in hex; that of no bytes for an unreadable file.
        failures: Message for each index whose file cannot be read or has no picture's header.

    Example:
        >>> Scan(("e3b0",), {}).failures
        {}
    """

    digests: tuple[str, ...]
    failures: dict[int, str]


def scan_files(
    read: Callable[[int], bytes],
    names: Sequence[str],
    max_pixels: int,
    progress: Progress | None = None,
) -> Scan:
    """Read, hash and judge the header of every picture, in threads; no pixel is decoded.

    Args:
        read: Gives the bytes of picture i; called from several threads.
        names: N names for messages.
        max_pixels: Largest picture allowed.
        progress: Called from this thread as files are done.

    Raises:
        InputError: A picture is larger than `max_pixels`, the first such file by index.

    Example:
        >>> scan_files(lambda i: b"", ["a.jpg"], max_pixels=100).failures
        {0: 'a.jpg must be a picture, got an empty file; repair, convert or remove it'}
    """

    def one_chunk(start: int) -> list[tuple[str, str | None]]:
        stop = min(start + _CHUNK, len(names))
        return [_scan_one(read, i, names[i], max_pixels) for i in range(start, stop)]

    results: list[tuple[str, str | None]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk in pool.map(one_chunk, range(0, len(names), _CHUNK)):
            results += chunk
            if progress is not None:
                progress(len(results), len(names))
    return Scan(
        tuple(digest for digest, _ in results),
        {i: message for i, (_, message) in enumerate(results) if message is not None},
    )


def _scan_one(
    read: Callable[[int], bytes], i: int, name: str, max_pixels: int
) -> tuple[str, str | None]:
    data = b""
    message = None
    try:
        data = read(i)
        check_header(data, max_pixels, name)
    except ImageError as error:
        message = str(error)
    return hashlib.sha256(data).hexdigest(), message


def check_failures(failures: Mapping[int, str], n: int, max_fraction: float = 0.01) -> None:
    """Refuse to go on when too many pictures failed.

    Args:
        failures: Message for each failed index.
        n: Number of pictures in all.
        max_fraction: Largest fraction that may fail, 0 to 1.

    Raises:
        InputError: More failed; the message names the first five.

    Example:
        >>> check_failures({7: "a.jpg must be a picture, got an empty file"}, n=100)
        >>> check_failures({7: "a.jpg must be a picture, got an empty file"}, n=99)
        Traceback (most recent call last):
        faultlens.errors.InputError: at most 1% of the images may fail to decode, got 1 of 99:
          a.jpg must be a picture, got an empty file
        mend them, or raise max_fraction (now 0.01) to go on without them
    """
    if len(failures) <= max_fraction * n:
        return
    first = [f"  {failures[i]}" for i in sorted(failures)[:5]]
    more = len(failures) - len(first)
    lines = [*first, f"  … and {more} more"] if more else first
    raise InputError(
        f"at most {100 * max_fraction:g}% of the images may fail to decode, "
        f"got {len(failures)} of {n}:\n" + "\n".join(lines) + "\n"
        f"mend them, or raise max_fraction (now {max_fraction:g}) to go on without them"
    )
