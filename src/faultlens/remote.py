"""Remote: folders and files behind a URL such as `s3://bucket/run`, through fsspec.

A file appears whole or not at all: it is written inside a transaction of its file system, which an
object store ends with one upload and others with a rename.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from faultlens.errors import InputError, MissingDependencyError

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(::[^:]+)*://")


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder behind a URL, with the few methods of `Path` that are needed here.

    Credentials and addresses come from the usual environment variables and from fsspec's own
    configuration.

    Attributes:
        url: Without a slash at its end.

    Example:
        >>> note = RemotePath("memory://remote-example") / "note.txt"
        >>> note.write_bytes(b"whole")
        >>> note.read_bytes(), note.name, [str(p) for p in note.parent.glob("*.txt")]
        (b'whole', 'note.txt', ['memory://remote-example/note.txt'])
    """

    url: str

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The part behind the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder that holds it."""
        return RemotePath(self.url.rpartition("/")[0])

    def read_bytes(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the content, or a part of it; OSError if there is none."""
        system, path = self._open()
        return bytes(system.cat_file(path, start=start, end=stop))

    def write_bytes(self, data: bytes) -> None:
        """Write the whole content; other readers see the old one or the new one."""
        system, path = self._open()
        system.makedirs(system._parent(path), exist_ok=True)
        with system.transaction, system.open(path, "wb") as file:
            file.write(data)

    def size(self) -> int:
        """Return the number of bytes; OSError if there is no such file."""
        system, path = self._open()
        return int(system.size(path))

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield the files directly in this folder whose names match; none where it is absent."""
        system, path = self._open()
        try:
            found = system.ls(path, detail=False, refresh=True)
        except FileNotFoundError:
            return
        for name in sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in found):
            if fnmatchcase(name, pattern):
                yield self / name

    def find(self) -> list[str]:
        """Return all files below this folder, relative to it, sorted."""
        system, path = self._open()
        below = len(str(path).rstrip("/")) + 1
        return sorted(str(entry)[below:] for entry in system.find(path))

    def unlink(self) -> None:
        """Remove the file."""
        system, path = self._open()
        system.rm_file(path)

    def _open(self) -> tuple[Any, str]:
        try:
            import fsspec  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise MissingDependencyError("fsspec", "fsspec") from error
        try:
            system, path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(
                f"{self.url} must be a URL that fsspec can open, got: {error}; "
                "install the package of its storage, or correct the URL"
            ) from error
        return system, str(path)


def is_url(path: object) -> bool:
    """Whether a path is written as a URL.

    Example:
        >>> is_url("s3://bucket/run"), is_url("runs/one"), is_url("onnx:net.onnx")
        (True, False, False)
    """
    return isinstance(path, RemotePath) or bool(_URL.match(str(path)))


def matching(folder: "Path | RemotePath", pattern: str) -> "list[Path | RemotePath]":
    """Return the files directly in a folder whose names match, sorted; none where it is absent."""
    return sorted(folder.glob(pattern), key=str)


def place(path: "str | Path | RemotePath") -> "Path | RemotePath":
    """Return a path as what reads and writes it; `file://` is an ordinary path.

    Example:
        >>> str(place("s3://bucket/run/")), str(place("file:///tmp/run")), str(place("run"))
        ('s3://bucket/run', '/tmp/run', 'run')
    """
    if isinstance(path, RemotePath | Path):
        return path
    if not is_url(path):
        return Path(path)
    if path.lower().startswith("file://"):
        return Path(url2pathname(urlsplit(path).path))
    return RemotePath(path.rstrip("/"))
