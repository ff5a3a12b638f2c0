"""FileLock: one writer at a time, without locks left behind by killed processes."""

import fcntl
import os
from pathlib import Path

from faultlens.errors import StoreError


class NoLock:
    """Stands where a lock cannot be had: object stores know none, so one run at a time is up to
    whoever starts it."""

    def release(self) -> None:
        """Do nothing."""


class FileLock:
    """A lock between processes that the system drops when its owner ends, however it ends.

    The file names the owner's process; one left by a killed process is taken over.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = FileLock.acquire(f"{folder}/lock")
        ...     print(FileLock.acquire(f"{folder}/lock"), FileLock.owner(f"{folder}/lock"))
        ...     first.release()
        None process ...
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: str | Path) -> "FileLock | None":
        """Return the held lock, or None at once if somebody else holds it.

        Raises:
            StoreError: The lock's file cannot be made, as in a read-only folder.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(
                f"{path} must be writable, got {error.strerror}; choose another folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An owner removes the file as it leaves: a lock on a removed file guards nothing.
            is_held = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            is_held = False
        if not is_held:
            os.close(descriptor)
            return None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return cls(path, descriptor)

    @staticmethod
    def owner(path: str | Path) -> str:
        """Return who holds a lock, for a message."""
        try:
            return f"process {int(Path(path).read_text())}"
        except (OSError, ValueError):
            return "another process"

    def release(self) -> None:
        """Give the lock up; doing so twice does no harm."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
