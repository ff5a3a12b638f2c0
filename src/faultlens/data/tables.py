"""Tables of pictures: a CSV file with the columns `path` and `class`, and what else is known."""

import csv
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from faultlens.arrays import Array
from faultlens.data.listing import Listing, check_exists, some
from faultlens.errors import InputError, nearest

COLUMNS = ("path", "class", "split", "subclass")
"""Columns with a meaning of their own; the first two must be there."""

_ATTRIBUTE = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}
_ATTRIBUTE |= {"-1": -1, "-1.0": -1, "": -1}


def list_table(path: str, root: str) -> Listing:
    """List the pictures that a CSV file names, in its order.

    Columns: `path` (relative to `root`) and `class`; optionally `split` and `subclass` (blank for
    none). Every other column is an attribute and holds 1 or true (present), 0 or false (absent),
    -1 or nothing (unknown). UTF-8, with or without a byte-order mark; fields may be quoted.

    Args:
        path: The CSV file.
        root: The folder that the paths start from.

    Raises:
        InputError: Unreadable or empty table, a missing, unknown or repeated column, a row of the
            wrong length or without path, class or split, repeated paths, missing files.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pathlib.Path(folder, "1.png").touch()
        ...     table = pathlib.Path(folder, "images.csv")
        ...     _ = table.write_text("path,class,wheels\\n1.png,truck,1\\n")
        ...     listing = list_table(str(table), folder)
        >>> listing.classes, listing.attributes["wheels"]
        (['truck'], array([1], dtype=int8))
    """
    check_exists(path, "a CSV file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            listing = read_table(path, file, root)
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_files(listing.names, root)
    return listing


def read_table(path: str, lines: Iterable[str], root: str) -> Listing:
    """List the pictures that the lines of a CSV file name; see `list_table`.

    Whether the files are there is not looked at.

    Example:
        >>> read_table("images.csv", ["path,class", "1.png,truck"], "").names
        ['1.png']
    """
    columns = _columns(path, _rows(path, lines))
    for name in ("path", "class", "split"):
        if "" in columns.get(name, ()):
            row = columns[name].index("") + 1
            raise InputError(
                f"column '{name}' of '{path}' must not be blank, got nothing in row {row}; fill it"
            )
    names = [_relative(value, root) for value in columns["path"]]
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise InputError(
            f"paths must be named once, got {some(repeated)} more than once; remove the extra rows"
        )
    return Listing(
        names,
        columns["class"],
        columns.get("split"),
        columns.get("subclass"),
        {c: _attribute(c, columns[c]) for c in columns if c not in COLUMNS},
    )


def _rows(path: str, lines: Iterable[str]) -> list[list[str]]:
    try:
        return [row for row in csv.reader(lines, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(
        f"'{path}' must be a CSV file in UTF-8, got {error}; save it again as CSV UTF-8"
    )


def _columns(path: str, rows: list[list[str]]) -> dict[str, list[str]]:
    if len(rows) < 2:
        raise InputError(f"'{path}' must hold a header and one row a picture, got {len(rows)} rows")
    header = [name.strip() for name in rows[0]]
    for name in COLUMNS[:2]:
        if name not in header:
            raise InputError(
                f"'{path}' must have a column '{name}' (separated by commas), "
                f"got {some(header, 10)}; rename or add it"
            )
    repeated = [name for name, n in Counter(header).items() if n > 1 or not name]
    if repeated:
        raise InputError(
            f"columns of '{path}' must have names of their own, got {some(repeated)} "
            "repeated or blank; rename or remove it"
        )
    for i, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(
                f"rows of '{path}' must have {len(header)} fields, got {len(row)} in row {i}; "
                "quote fields that hold a comma"
            )
    return dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))


def _relative(path: str, root: str) -> str:
    path = os.path.relpath(path, root) if os.path.isabs(path) else path
    return posixpath.normpath(path.replace(os.sep, "/"))


def _check_files(names: Sequence[str], root: str) -> None:
    missing = [name for name in names if not os.path.isfile(os.path.join(root, name))]
    if missing:
        slashes = " (with forward slashes)" if "\\" in missing[0] else ""
        raise InputError(
            f"paths must name files below '{root}'{slashes}, got {len(missing)} of {len(names)} "
            f"missing: {some(missing)}; correct them or give the root they start from"
        )


def _attribute(name: str, values: list[str]) -> Array:
    codes = [_ATTRIBUTE.get(value.strip().lower()) for value in values]
    if None in codes:
        row = codes.index(None)
        raise InputError(
            f"column '{name}' must be one of {', '.join(COLUMNS)}, or an attribute that holds only "
            f"0, 1, -1, true, false or nothing, got '{values[row]}' in row {row + 1}; "
            f"rename or remove it ({nearest(name, COLUMNS)})"
        )
    return np.array(codes, dtype=np.int8)
