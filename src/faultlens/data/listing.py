"""Listing: which pictures exist and what is said of each, before any is opened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from faultlens.arrays import Array
from faultlens.errors import InputError, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """One row a picture, as a folder or a table states it.

    Attributes:
        names: Path of each file relative to the root, with forward slashes.
        classes: Class name of each.
        splits: Split of each, such as `train`; None if not stated.
        subclasses: Subclass of each, "" for none; None if not stated.
        attributes: Per attribute (N,) int8: 1 present, 0 absent, -1 unknown.

    Example:
        >>> Listing(["cat/1.jpg"], ["cat"]).splits is None
        True
    """

    names: Sequence[str]
    classes: Sequence[str]
    splits: Sequence[str] | None = None
    subclasses: Sequence[str] | None = None
    attributes: dict[str, Array] = field(default_factory=dict)


def some(items: Sequence[str], n: int = 5) -> str:
    """Return the first `n` items for a message, and how many there are.

    Example:
        >>> some(["a", "b", "c"], n=2)
        "'a', 'b' … (3 in all)"
    """
    shown = ", ".join(f"'{i}'" for i in items[:n])
    return shown + (f" … ({len(items)} in all)" if len(items) > n else "")


def check_exists(path: str, what: str) -> None:
    """Raise InputError with the nearest neighbours' names unless `path` exists.

    Example:
        >>> check_exists(os.curdir, "a folder")
    """
    if os.path.exists(path):
        return
    parent, name = os.path.split(os.path.abspath(path))
    beside = os.listdir(parent) if os.path.isdir(parent) else []
    hint = nearest(name, beside) if beside else f"there is no folder '{parent}' either"
    raise InputError(f"images must be {what}, got '{path}', which does not exist; {hint}")


def check_names(names: Sequence[str]) -> None:
    """Raise InputError unless every file name is valid UTF-8.

    Example:
        >>> check_names(["cat/1.jpg"])
    """
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        bad = next(n for n in names if n.encode(errors="ignore").decode() != n)
        raise InputError(f"file names must be UTF-8, got {bad!a}; rename it") from error
