"""extract: the one loop that turns pictures into a store's columns, for every kind of encoder."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray
from faultlens.embeddings.shard import Layout
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError, ShapeError, nearest


@runtime_checkable
class Encoder(Protocol):
    """What turns pictures into numbers: a classifier or a vision-language model."""

    def prepare(self, image: Image.Image, /) -> FloatArray:
        """Return one picture as the network's input (thread-safe)."""
        ...

    def encode(self, batch: FloatArray, /) -> Mapping[str, FloatArray]:
        """Return named arrays with one row per prepared picture."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where pictures come from, such as `faultlens.data.images.ImageSource`."""

    @property
    def names(self) -> Sequence[str]:
        """N names, for messages."""
        ...

    def __len__(self) -> int:
        """Return N."""
        ...

    def load(self, index: int, /) -> Image.Image:
        """Return one picture (thread-safe); InputError if it cannot be read."""
        ...


Extras = Mapping[str, Callable[[Image.Image], Array]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How pictures are read.

    Attributes:
        batch_size: Pictures the encoder sees at once; the values do not depend on it, other than
            by the encoder's own rounding. PyTorch likes small batches on a CPU and large ones on
            a GPU.
        n_threads: Threads that read pictures; None takes as many as there are processors, at
            most 8.
        extras: More columns, computed from the loaded picture: name to function of the picture,
            which returns one row.
    """

    batch_size: int = 16
    n_threads: int | None = None
    extras: Extras = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One picture, ready for the encoder, or the reason why there is none."""

    row: int
    input: FloatArray | None
    extras: Mapping[str, Array]
    note: str = ""


def extract(  # noqa: PLR0913 (three arguments and four knobs that have defaults)
    encoder: Encoder,
    source: Source,
    store: EmbeddingStore,
    *,
    batch_size: int = 16,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    extras: Extras | None = None,
) -> None:
    """Fill the missing rows of a store, one finished shard after another.

    Threads read and prepare up to two batches ahead while the encoder computes. A picture that
    cannot be read becomes a row of zeros with a note in `store.failures`. However the run ends,
    finished shards stay and are not computed again.

    Args:
        encoder: Computes the columns; arrays that the store has no column for are dropped.
        source: The pictures; row i of the store is `source.load(i)`.
        store: Where the rows go; it names the columns.
        batch_size: See `Reading`.
        n_workers: Threads that read pictures; see `Reading`.
        progress: Called with the rows done and their total: at the start, where rows of an
            earlier run count as done, and after every batch.
        extras: See `Reading`.

    Raises:
        InputError: The source has another length than the store, inputs differ in shape, or the
            encoder's arrays are absent, of another shape or not finite; the first picture
            concerned is named.

    Example:
        >>> import tempfile
        >>> class Grey:
        ...     def prepare(self, image): return np.asarray(image.convert("L"), np.float32)
        ...     def encode(self, batch): return {"mean": batch.mean((1, 2))[:, None]}
        >>> class Shades:
        ...     names = ("black", "coal", "soot")
        ...     def __len__(self): return 3
        ...     def load(self, index): return Image.new("RGB", (2, 2), (index,) * 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns = {"mean": (1, "float32")}
        ...     with EmbeddingStore.create_or_open(folder, "key", 3, columns) as store:
        ...         extract(Grey(), Shades(), store)
        ...     store.column("mean").ravel().tolist()
        [0.0, 1.0, 2.0]
    """
    reading = Reading(batch_size, n_workers, extras or {})
    missing = store.missing()
    total = store.layout.n_rows
    done = total - sum(map(len, missing.values()))
    report = progress or (lambda done, total: None)

    def count(n: int) -> None:
        nonlocal done
        done += n
        report(done, total)

    check_source(source, store.layout, reading)
    count(0)
    for shard, columns, notes in encoded(encoder, source, store.layout, missing, reading, count):
        store.write(shard, columns, notes)


def encoded(
    encoder: Encoder,
    source: Source,
    layout: Layout,
    shards: Mapping[int, range],
    reading: Reading,
    count: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[int, dict[str, Array], dict[int, str]]]:
    """Yield shards one after another: number, columns, and notes on rows that could not be read.

    Args:
        encoder: Computes the columns.
        source: The pictures.
        layout: Of the store.
        shards: Which of its shards, with their rows.
        reading: How pictures are read.
        count: Called with the number of rows after every batch.

    Raises:
        InputError: See `extract`.
    """

    def prepare(row: int) -> _Prepared:
        return _prepare(encoder, source, reading.extras, row)

    size = reading.batch_size
    n_threads = reading.n_threads or min(8, os.cpu_count() or 1)
    wanted = (row for rows in shards.values() for row in rows)
    with closing(_ahead(prepare, wanted, n_threads, 2 * size)) as prepared:
        for shard, rows in shards.items():
            columns = _zeros(layout, len(rows))
            notes: dict[int, str] = {}
            for start in range(0, len(rows), size):
                batch = list(islice(prepared, len(rows[start : start + size])))
                notes |= {picture.row: picture.note for picture in batch if picture.note}
                good = [picture for picture in batch if not picture.note]
                if good:
                    outputs = _encode(encoder, good, source.names)
                    _fill(columns, outputs, [p.row for p in good], rows.start, source.names)
                count(len(batch))
            yield shard, columns, notes


def check_source(source: Source, layout: Layout, reading: Reading) -> None:
    """Raise InputError unless a source can fill a store of this layout."""
    for name, number in (("batch_size", reading.batch_size), ("n_workers", reading.n_threads)):
        if number is not None and number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    if len(source) != layout.n_rows:
        raise InputError(
            f"source must have {layout.n_rows} pictures, as the store has rows, "
            f"got {len(source)}; use another store for other pictures"
        )


def _zeros(layout: Layout, n: int) -> dict[str, Array]:
    columns = layout.columns.items()
    return {name: np.zeros((n, length), dtype) for name, (length, dtype) in columns}


def _ahead(
    function: Callable[[int], _Prepared], rows: Iterable[int], n_workers: int, n_ahead: int
) -> Generator[_Prepared, None, None]:
    """Yield `function(row)` in order while threads work on at most `n_ahead` further rows."""
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="faultlens-read")
    waiting: deque[Future[_Prepared]] = deque()
    try:
        for row in rows:
            waiting.append(pool.submit(function, row))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # waits for one picture a thread


def _prepare(encoder: Encoder, source: Source, extras: Extras, row: int) -> _Prepared:
    try:
        image = source.load(row)
    except InputError as error:
        return _Prepared(row, None, {}, str(error) or "cannot be read")
    more = {name: function(image) for name, function in extras.items()}
    return _Prepared(row, encoder.prepare(image), more)


def _encode(encoder: Encoder, batch: Sequence[_Prepared], names: Sequence[str]) -> dict[str, Array]:
    """Return the columns of a batch, the encoder's and the extra ones."""
    inputs = [picture.input for picture in batch if picture.input is not None]
    for picture, value in zip(batch, inputs, strict=True):
        if value.shape != inputs[0].shape:
            raise InputError(
                f"prepared pictures must have one shape, got {inputs[0].shape} and, for "
                f"{names[picture.row]}, {value.shape}; set an exact resize or a crop"
            )
    outputs = dict(encoder.encode(np.stack(inputs)))
    extras = {name: np.stack([p.extras[name] for p in batch]) for name in batch[0].extras}
    return outputs | extras


def _fill(
    columns: Mapping[str, Array],
    outputs: Mapping[str, Array],
    good: list[int],
    first: int,
    names: Sequence[str],
) -> None:
    """Put the encoder's arrays in their rows of the shard that begins at row `first`."""
    places = np.asarray(good) - first
    for name, column in columns.items():
        if name not in outputs:
            raise InputError(f"encoder must return '{name}', got none; {nearest(name, outputs)}")
        values = np.asarray(outputs[name])
        expected = (len(good), column.shape[1])
        if values.shape != expected or not np.can_cast(values.dtype, column.dtype, "same_kind"):
            raise ShapeError(
                f"'{name}' of the encoder must be {column.dtype} of shape {expected}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        with np.errstate(over="ignore"):  # found in the next line
            values = values.astype(column.dtype)
        if not (finite := np.isfinite(values).all(axis=1)).all():
            bad = names[good[int(np.argmin(finite))]]
            raise InputError(
                f"'{name}' of the encoder must be finite in {column.dtype}, got NaN or infinity "
                f"for {bad}; check the model's weights and preprocessing"
            )
        column[places] = values
