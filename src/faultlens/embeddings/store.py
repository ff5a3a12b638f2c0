"""EmbeddingStore: numbers per image on disk, in shards that are finished once and for all.

A folder holds `shard-00000.safetensors`, … and `manifest.json`. Every shard describes itself (the
store it belongs to, its rows, its failures, a SHA-256 over all of it), so the manifest can be made
again from the shards, and a shard that was finished just before a crash is found and kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from faultlens.arrays import Array, read_only
from faultlens.embeddings.lock import FileLock, NoLock
from faultlens.embeddings.shard import (
    Layout,
    Shard,
    digest,
    read_shard,
    shard_arrays,
    write_shard,
)  # fmt: skip
from faultlens.errors import InputError, StoreError, nearest
from faultlens.files import read_json, write_json
from faultlens.remote import RemotePath, matching, place


class EmbeddingStore:
    """Columns of N rows, written shard by shard and read as arrays.

    Opening checks every shard against its hash (about 1 GB/s); damaged ones count as missing.
    While rows are missing the store is locked for other processes; use it as a context manager,
    or call `close`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns = {"embedding": (2, "float32")}
        ...     store = EmbeddingStore.create_or_open(folder, "key", 3, columns, shard_rows=2)
        ...     for shard, rows in store.missing().items():
        ...         store.write(shard, {"embedding": np.ones((len(rows), 2)) * shard})
        ...     EmbeddingStore.open(folder).column("embedding").tolist()
        [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        folder: Path | RemotePath,
        layout: Layout,
        shards: Mapping[int, Shard],
        lock: FileLock | NoLock | None = None,
    ) -> None:
        self.folder = folder
        self.layout = layout
        self._shards = dict(shards)
        self._lock = lock

    @classmethod
    def create_or_open(
        cls,
        folder: str | Path | RemotePath,
        key: str,
        n_rows: int,
        columns: Mapping[str, tuple[int, DTypeLike]],
        shard_rows: int | None = None,
    ) -> "EmbeddingStore":
        """Begin a store, or go on with the one that is there.

        Args:
            folder: The store's own folder, made when absent; or a URL that fsspec knows, where
                there is no lock.
            key: What the content depends on; a store with another key is refused.
            n_rows: N, at least 1.
            columns: Per name the length of a row and its type; float32 unless there is a reason.
            shard_rows: Rows a shard. None cuts small stores in about eight and large ones in
                shards of 16 MB, so that little is lost when a run stops. A store that is there
                keeps its own.

        Raises:
            InputError: A number below 1 or an unknown data type.
            StoreError: The folder holds another store, or another process writes this one.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     EmbeddingStore.create_or_open(folder, "a", 9, {"x": (1, "float32")}).close()
            ...     EmbeddingStore.create_or_open(folder, "a", 8, {"x": (1, "float32")})
            Traceback (most recent call last):
            faultlens.errors.StoreError: ... must hold the store with n_rows 8, got 9; ...
        """
        folder = place(folder)
        wanted = Layout.of(key, n_rows, columns, shard_rows)
        lock = _locked(folder)
        try:
            found, shards = _scan(folder)
            store = cls(folder, agreed(folder, found, wanted), shards, lock)
            if lock is None and store.missing():
                raise StoreError(
                    f"{folder} must be free to write, got one that "
                    f"{FileLock.owner(str(folder / 'lock'))} is writing; wait for it, or end it"
                )
            if lock is not None:
                store._tidy()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return store

    @classmethod
    def open(cls, folder: str | Path | RemotePath, *, is_checked: bool = True) -> "EmbeddingStore":
        """Open a finished store for reading.

        Args:
            folder: Of the store, or its URL.
            is_checked: Whether to hold every shard against its hash now. Without, only headers
                are read; behind a URL that is always so, and each shard is checked when it is
                read.

        Raises:
            StoreError: No store is there, or it has missing or damaged shards.

        Example:
            >>> EmbeddingStore.open("nowhere")
            Traceback (most recent call last):
            faultlens.errors.StoreError: nowhere must hold an embedding store, got none; ...
        """
        folder = place(folder)
        layout, shards = _scan(folder, is_checked)
        if layout is None:
            raise StoreError(
                f"{folder} must hold an embedding store, got none; run the command that makes it"
            )
        store = cls(folder, layout, shards)
        store._require_complete()
        return store

    def __enter__(self) -> "EmbeddingStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write; reading goes on."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def content_hash(self) -> str:
        """SHA-256 over the hashes that the shards state."""
        stated = [self._shards[n].sha256 for n in sorted(self._shards)]
        return digest(json.dumps([self.layout.to_json(), stated]))

    @property
    def failures(self) -> dict[int, str]:
        """Per row that could not be computed (its numbers are zeros), the reason."""
        notes = [self._shards[n].failures for n in sorted(self._shards)]
        return {row: note for part in notes for row, note in part.items()}

    def missing(self) -> dict[int, range]:
        """Return the shards still to be written, each with its rows."""
        numbers = range(self.layout.n_shards)
        return {n: self.layout.rows(n) for n in numbers if n not in self._shards}

    def verify(self) -> list[int]:
        """Return the shards whose files no longer are what was found or written; [] is good."""
        return [n for n, shard in sorted(self._shards.items()) if not self._is_intact(shard)]

    def write(
        self, shard: int, arrays: Mapping[str, Array], notes: Mapping[int, str] | None = None
    ) -> None:
        """Write one missing shard; when this returns it is on the disk for good.

        Args:
            shard: A key of `missing()`.
            arrays: Every column, (rows of the shard, length), of a type that its column can take.
            notes: Per row (counted from the store's start) why it could not be computed.

        Raises:
            InputError: The arrays do not fit the columns.
            StoreError: The shard is not missing, or the store is not open for writing.
        """
        if self._lock is None or shard not in self.missing():
            raise StoreError(f"shard must be one that is missing, got {shard}; see missing()")
        self._shards[shard] = write_shard(self.folder, self.layout, shard, arrays, notes or {})
        self._write_manifest()
        if not self.missing():
            self.close()

    def column(self, name: str) -> Array:
        """Return a whole column, (N, length), read-only; of a single shard without a copy."""
        blocks = self.blocks(name)
        if self.layout.n_shards == 1:
            return next(blocks)[1]
        length, dtype = self.layout.columns[name]
        out = np.empty((self.layout.n_rows, length), dtype)
        for start, block in blocks:  # one open file at a time
            out[start : start + len(block)] = block
        return read_only(out)

    def blocks(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yield a column shard by shard: its first row, and an array mapped from the disk.

        Raises:
            InputError: No such column.
            StoreError: Shards are missing.
        """
        self._require_column(name)
        shards = range(self.layout.n_shards)
        return ((self.layout.rows(n).start, self._map(n)[name]) for n in shards)

    def between(self, name: str, start: int, stop: int) -> Array:
        """Return the rows from `start` to before `stop` of a column, read-only.

        Raises:
            InputError: No such column.
            StoreError: Shards are missing.
        """
        self._require_column(name)
        start, stop = max(start, 0), min(stop, self.layout.n_rows)
        size = self.layout.shard_rows
        parts = []
        for shard in range(start // size, -(-stop // size)):
            first = self.layout.rows(shard).start
            parts.append(self._map(shard)[name][max(start - first, 0) : stop - first])
        if len(parts) == 1:
            return parts[0]
        length, dtype = self.layout.columns[name]
        return read_only(np.concatenate([np.empty((0, length), dtype), *parts]))

    def failed(self, start: int, stop: int) -> list[int]:
        """Return the rows from `start` to before `stop` that could not be computed."""
        size = self.layout.shard_rows
        shards = range(max(start, 0) // size, -(-min(stop, self.layout.n_rows) // size))
        notes = (self._shards[n].failures for n in shards if n in self._shards)
        return [row for part in notes for row in part if start <= row < stop]

    def rows(self, name: str, indices: Sequence[int] | Array) -> Array:
        """Return chosen rows of a column, (len(indices), length), in the order of `indices`.

        Raises:
            InputError: No such column, or an index outside 0 … N - 1.
            StoreError: Shards are missing.
        """
        self._require_column(name)
        wanted = np.asarray(indices)
        if wanted.size and wanted.dtype.kind not in "iu":
            raise InputError(f"indices must be integers, got {wanted.dtype}; use np.flatnonzero")
        wanted = wanted.astype(np.int64)
        if outside := wanted[(wanted < 0) | (wanted >= self.layout.n_rows)].tolist():
            raise InputError(
                f"indices must lie in 0 … {self.layout.n_rows - 1}, got {outside[0]}; "
                "count rows from the start"
            )
        length, dtype = self.layout.columns[name]
        out = np.empty((len(wanted), length), dtype)
        shards = wanted // self.layout.shard_rows
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            within = self.layout.rows(shard)
            # Many rows of one shard are read faster with the system's reading ahead.
            block = self._map(shard, is_random=16 * len(places) < len(within))[name]
            out[places] = block[wanted[places] - within.start]
        return out

    def _map(self, shard: int, is_random: bool = False) -> dict[str, Array]:
        path = self.layout.path(self.folder, shard)
        # What comes over a network is in memory now and was not checked before.
        is_hashed = isinstance(path, RemotePath)
        return shard_arrays(path, is_hashed=is_hashed, is_random=is_random)[0]

    def _is_intact(self, shard: Shard) -> bool:
        try:
            return read_shard(self.layout.path(self.folder, shard.number)).sha256 == shard.sha256
        except StoreError:
            return False

    def _require_column(self, name: str) -> None:
        if name not in self.layout.columns:
            raise InputError(
                f"column must be one of the store, got '{name}'; "
                f"{nearest(name, self.layout.columns)}"
            )
        self._require_complete()

    def _require_complete(self) -> None:
        if missing := self.missing():
            first = self.layout.path(self.folder, min(missing)).name
            raise StoreError(
                f"{self.folder} must be complete, got {len(missing)} of {self.layout.n_shards} "
                f"shards missing or damaged (first: {first}); "
                "run the same command again to compute only what is missing"
            )

    def _write_manifest(self) -> None:
        write_json(self.folder / "manifest.json", self._manifest())

    def _manifest(self) -> dict[str, Any]:
        shards = {
            str(n): {"rows": len(self.layout.rows(n)), "sha256": self._shards[n].sha256}
            for n in sorted(self._shards)
        }
        content = {"layout": self.layout.to_json(), "shards": shards}
        return content | {"sha256": digest(json.dumps(content))}

    def _tidy(self) -> None:
        """Bring the folder in order: no halves of a killed run, and a manifest that is true."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()
        if _read_manifest(self.folder) != self._manifest():
            self._write_manifest()
        if not self.missing():
            self.close()


def _locked(folder: Path | RemotePath) -> FileLock | NoLock | None:
    return FileLock.acquire(folder / "lock") if isinstance(folder, Path) else NoLock()


def stated_layout(folder: Path | RemotePath) -> Layout | None:
    """Return the layout of the store that is there, by its manifest or else by any of its shards.

    Nothing is hashed; None where there is no store.
    """
    manifest = _read_manifest(folder)
    if manifest is not None:
        return Layout.from_json(manifest["layout"])
    for path in matching(folder, "shard-*.safetensors"):
        try:
            return read_shard(path, is_hashed=False).layout
        except StoreError:
            continue
    return None


def agreed(folder: Path | RemotePath, found: Layout | None, wanted: Layout) -> Layout:
    """Return the layout of the store that is there, if it is the wanted one.

    Raises:
        StoreError: It is another one.
    """
    if found is None:
        return wanted
    for name in ("key", "n_rows", "columns"):
        there, asked = getattr(found, name), getattr(wanted, name)
        if there != asked:
            raise StoreError(
                f"{folder} must hold the store with {name} {asked}, got {there}; "
                "delete the folder or choose another"
            )
    return found


def _read_manifest(folder: Path | RemotePath) -> dict[str, Any] | None:
    """Return the manifest, or None if it is absent or damaged."""
    try:
        manifest = read_json(folder / "manifest.json")
        content = {name: manifest[name] for name in ("layout", "shards")}
        is_true = manifest["sha256"] == digest(json.dumps(content))
    except (StoreError, KeyError, TypeError):
        return None
    return dict(manifest) if is_true else None


def _scan(
    folder: Path | RemotePath, is_checked: bool = True
) -> tuple[Layout | None, dict[int, Shard]]:
    """Return the layout of a store and its intact shards, whether the manifest lists them or not.

    A shard that the manifest lists must be the very one; one that it does not list was finished
    by a run that was then killed.
    """
    manifest = _read_manifest(folder)
    layout = None if manifest is None else Layout.from_json(manifest["layout"])
    listed = {} if manifest is None else manifest["shards"]
    shards = {}
    is_hashed = is_checked and isinstance(folder, Path)
    for path in matching(folder, "shard-*.safetensors"):
        try:
            shard = read_shard(path, is_hashed=is_hashed)
        except StoreError:
            continue
        layout = layout or shard.layout
        is_listed_so = listed.get(str(shard.number), {}).get("sha256") in (None, shard.sha256)
        is_in_place = path == shard.layout.path(folder, shard.number)
        if shard.layout == layout and is_listed_so and is_in_place:
            shards[shard.number] = shard
    return layout, shards
