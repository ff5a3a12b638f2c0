"""ExtractJob: a store of embeddings, one shard a part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import DTypeLike

from faultlens.embeddings.extract import Encoder, Reading, Source, check_source, encoded
from faultlens.embeddings.lock import FileLock
from faultlens.embeddings.shard import Layout, read_shard, write_shard
from faultlens.embeddings.store import EmbeddingStore, agreed, stated_layout
from faultlens.errors import StoreError
from faultlens.remote import RemotePath, place


@dataclass(frozen=True, slots=True, eq=False)
class ExtractJob:
    """The rows of a store that are missing.

    Every worker loads the encoder once and computes whole shards with the loop of
    `faultlens.embeddings.extract.extract`, so the store is the one that a single process makes.

    Attributes:
        folder: The store's folder or URL.
        layout: Of the store.
        encoder: Called once a worker, such as `partial(load_model, "onnx:net.onnx")`.
        source: Called once a worker, such as `partial(open_images, "s3://bucket/photos")`.
        reading: Batch size, threads of each worker, more columns.
    """

    folder: str | Path | RemotePath
    layout: Layout
    encoder: Callable[[], Encoder]
    source: Callable[[], Source]
    reading: Reading = Reading()  # noqa: RUF009 (frozen)

    @classmethod
    def of(
        cls,
        folder: str | Path | RemotePath,
        store: tuple[str, int, Mapping[str, tuple[int, DTypeLike]]],
        encoder: Callable[[], Encoder],
        source: Callable[[], Source],
        reading: Reading = Reading(),  # noqa: B008 (frozen)
        shard_rows: int | None = None,
    ) -> "ExtractJob":
        """Begin a store, or go on with the one that is there.

        Args:
            folder: The store's folder or URL.
            store: Its key, number of rows and columns, as in `EmbeddingStore.create_or_open`.
            encoder: See the class.
            source: See the class.
            reading: See the class.
            shard_rows: Rows a shard; a store that is there keeps its own.

        Raises:
            InputError: A number below 1 or an unknown data type.
            StoreError: The folder holds another store.
        """
        key, n_rows, columns = store
        found = stated_layout(place(folder))
        layout = agreed(place(folder), found, Layout.of(key, n_rows, columns, shard_rows))
        return cls(folder, layout, encoder, source, reading)

    @property
    def n_parts(self) -> int:
        """Number of shards."""
        return self.layout.n_shards

    def is_done(self, part: int) -> bool:
        """Whether a shard is there and intact; behind a URL by its header and size."""
        folder = place(self.folder)
        try:
            shard = read_shard(self.layout.path(folder, part), is_hashed=isinstance(folder, Path))
        except StoreError:
            return False
        return shard.layout == self.layout and shard.number == part

    def open(self) -> Callable[[int], None]:
        """Load the encoder and return what computes and writes a shard."""
        encoder, source, folder = self.encoder(), self.source(), place(self.folder)
        check_source(source, self.layout, self.reading)

        def work(part: int) -> None:
            shards = {part: self.layout.rows(part)}
            for number, columns, notes in encoded(
                encoder, source, self.layout, shards, self.reading
            ):
                write_shard(folder, self.layout, number, columns, notes)

        return work

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the store's lock; behind a URL there is none."""
        folder = place(self.folder)
        if not isinstance(folder, Path):
            yield
            return
        lock = FileLock.acquire(folder / "lock")
        if lock is None:
            raise StoreError(
                f"{folder} must be free to write, got one that "
                f"{FileLock.owner(folder / 'lock')} is writing; wait for it, or end it"
            )
        try:
            yield
        finally:
            lock.release()

    def collect(self) -> EmbeddingStore:
        """Write the manifest and return the finished store."""
        columns = dict(self.layout.columns)
        key, n_rows = self.layout.key, self.layout.n_rows
        EmbeddingStore.create_or_open(
            self.folder, key, n_rows, columns, self.layout.shard_rows
        ).close()
        return EmbeddingStore.open(self.folder, is_checked=False)
