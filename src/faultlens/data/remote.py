"""Pictures behind a URL such as `s3://bucket/photos`: read one by one, when they are needed."""

import io
from dataclasses import dataclass
from pathlib import Path

from faultlens.data.decode import SUFFIXES
from faultlens.data.folders import arranged
from faultlens.data.images import ImageSource, open_images
from faultlens.data.tables import read_table
from faultlens.errors import FaultlensError, ImageError, InputError
from faultlens.remote import RemotePath, place


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """The bytes of pictures behind a URL, by their number; it can be sent to a worker.

    Attributes:
        root: What the names start from.
        names: N paths relative to it.
    """

    root: RemotePath
    names: tuple[str, ...]

    def __call__(self, row: int) -> bytes:
        """Return the bytes of one picture; ImageError if they cannot be read."""
        name = self.names[row]
        try:
            return (self.root / name).read_bytes()
        except FaultlensError:
            raise
        except Exception as error:  # every storage has errors of its own
            told = getattr(error, "strerror", None) or error or type(error).__name__
            raise ImageError(
                f"{name} must be a readable file, got {told}; restore or remove it"
            ) from error


def open_remote(url: str) -> ImageSource:
    """List pictures behind a URL that fsspec knows: a folder, or a CSV file that names them.

    Folders are laid out, and tables written, as on a disk; see `faultlens.data.folders` and
    `faultlens.data.tables`. Paths of a table start from the folder that holds it. Whether its
    files are there is seen when they are read.

    Args:
        url: Such as `s3://bucket/photos` or `memory://photos/images.csv`.

    Raises:
        InputError: Nothing can be read there, or whatever is wrong with it.
        MissingDependencyError: fsspec, or the package of this kind of URL, is not installed.

    Example:
        >>> open_remote("memory://no/such/place")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: 'memory://no/such/place' must hold pictures as ...
    """
    found = place(url)
    if isinstance(found, Path):
        return open_images(found)
    try:
        if found.name.lower().endswith(".csv"):
            root = found.parent
            text = found.read_bytes().decode("utf-8-sig")
            listing = read_table(url, io.StringIO(text, newline=""), "")
        else:
            root, files = found, found.find()
            pictures = [f for f in files if f.rpartition(".")[2].lower() in SUFFIXES]
            listing = arranged(url, pictures, [])
    except FaultlensError:
        raise
    except Exception as error:  # every storage has errors of its own, such as for credentials
        raise InputError(
            f"images must be a folder or a CSV file behind a URL, got {url}: "
            f"{error or type(error).__name__}; check the URL, and that its storage lets you in"
        ) from error
    stored = RemoteFiles(root, tuple(listing.names))
    return ImageSource.from_listing(listing, root.url, stored=stored)
