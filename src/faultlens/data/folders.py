"""Folders of pictures: `root/<class>/…` or `root/<split>/<class>/…`."""

import os

from faultlens.data.decode import SUFFIXES
from faultlens.data.listing import Listing, check_exists, some
from faultlens.errors import InputError

_DEEPEST = 32
_LAYOUTS = "root/<class>/image or root/<split>/<class>/image"


def list_folder(root: str) -> Listing:
    """List the pictures below a folder, in sorted order.

    The layout is read off the depth of the files: pictures directly in the first-level folders
    make those the classes; pictures only further down make them the splits. Below a class folder
    of the second layout any depth is fine. Hidden entries and other files are ignored.

    Args:
        root: The folder.

    Raises:
        InputError: Missing or unreadable folder, no pictures, a mixture of both layouts, or a
            class or split folder without pictures.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train/cat/1.png", "train/dog/2.png"):
        ...         file = pathlib.Path(folder, name)
        ...         file.parent.mkdir(parents=True)
        ...         file.touch()
        ...     listing = list_folder(folder)
        >>> listing.classes, listing.splits
        (['cat', 'dog'], ['train', 'train'])
    """
    check_exists(root, "a folder")
    try:
        files, folders = _walk(root)
    except OSError as error:
        raise InputError(
            f"'{root}' must be a readable folder, got {error}; check its permissions"
        ) from error
    return arranged(root, files, folders)


def arranged(root: str, files: list[str], folders: list[str]) -> Listing:
    """Read the layout off the paths of pictures and folders, relative to `root`; see `list_folder`.

    Example:
        >>> arranged("photos", ["cat/1.png"], ["cat"]).classes
        ['cat']
    """
    parts = [file.split("/", 2) for file in files]
    if _has_splits(root, parts):
        _refuse_empty({p[0] for p in parts}, [f for f in folders if f.count("/") == 0])
        _refuse_empty({f"{p[0]}/{p[1]}" for p in parts}, [f for f in folders if f.count("/") == 1])
        return Listing(files, [p[1] for p in parts], splits=[p[0] for p in parts])
    _refuse_empty({p[0] for p in parts}, [f for f in folders if f.count("/") == 0])
    return Listing(files, [p[0] for p in parts])


def _walk(root: str) -> tuple[list[str], list[str]]:
    files: list[str] = []
    folders: list[str] = []
    to_visit = [""]
    while to_visit:
        inside = to_visit.pop()
        with os.scandir(os.path.join(root, inside)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = inside + entry.name
                if entry.is_dir():
                    folders.append(path)
                    to_visit.append(path + "/")
                elif entry.name.rpartition(".")[2].lower() in SUFFIXES:
                    files.append(path)
        if inside.count("/") > _DEEPEST:
            raise InputError(
                f"'{root}' must be at most {_DEEPEST} folders deep, got '{inside}'; "
                "is there a link back to a folder above?"
            )
    return sorted(files), sorted(folders)


def _has_splits(root: str, parts: list[list[str]]) -> bool:
    if not parts:
        raise InputError(
            f"'{root}' must hold pictures as {_LAYOUTS}, got none; "
            f"known endings: {', '.join(sorted(SUFFIXES))}"
        )
    at = {depth: ["/".join(p) for p in parts if len(p) == depth] for depth in (1, 2, 3)}
    if at[1]:
        raise InputError(
            f"'{root}' must hold pictures as {_LAYOUTS}, got {some(at[1])} directly in it; "
            "move them into class folders"
        )
    if at[2] and at[3]:
        raise InputError(
            f"'{root}' must hold pictures either as root/<class>/image or as "
            f"root/<split>/<class>/image, got both: '{at[2][0]}' and '{at[3][0]}'; "
            "move them, or name the classes in a CSV file"
        )
    return bool(at[3])


def _refuse_empty(used: set[str], folders: list[str]) -> None:
    empty = [f for f in folders if f not in used]
    if empty:
        raise InputError(
            f"every class folder must hold pictures, got none in {some(empty)}; "
            "add some or remove the folder"
        )
