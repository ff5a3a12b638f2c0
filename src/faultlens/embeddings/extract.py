"""extract: the one loop that turns pictures into a store's columns, for every kind of encoder."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from faultlens.arrays import Array, FloatArray
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


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Consecutive rows, ready for the encoder.

    `inputs` and `extras` have a row for each of `good`, the rows whose picture could be read;
    `notes` say why the others could not.
    """

    good: list[int]
    inputs: FloatArray | None
    extras: Mapping[str, Array]
    notes: Mapping[int, str]


def extract(  # noqa: PLR0913 (three arguments and four knobs that have defaults)
    encoder: Encoder,
    source: Source,
    store: EmbeddingStore,
    *,
    batch_size: int = 32,
    n_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    extras: Mapping[str, Callable[[Image.Image], Array]] | None = None,
) -> None:
    """Fill the missing rows of a store, one finished shard after another.

    Threads read and prepare the next batches while the encoder computes, at most `n_workers + 1`
    batches ahead. A picture that cannot be read becomes a row of zeros with a note in
    `store.failures`. However the run ends, finished shards stay and are not computed again.

    Args:
        encoder: Computes the columns; arrays that the store has no column for are dropped.
        source: The pictures; row i of the store is `source.load(i)`.
        store: Where the rows go; it names the columns.
        batch_size: Pictures the encoder sees at once; the values do not depend on it, other than
            by the encoder's own rounding.
        n_workers: Threads that read pictures; more than one helps only where the encoder leaves
            processors idle, such as on a GPU, or pictures are large.
        progress: Called with the rows done and their total: at the start, where rows of an
            earlier run count as done, and after every batch.
        extras: More columns, computed from the loaded picture: name to function of the picture,
            which returns one row.

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
    _check(source, store, batch_size, n_workers)
    report = progress or (lambda done, total: None)
    missing = store.missing()
    total = store.layout.n_rows
    done = total - sum(map(len, missing.values()))
    report(done, total)

    def read(rows: range, stop: threading.Event) -> _Batch:
        return _read(encoder, source, extras or {}, rows, stop)

    plan = [part for rows in missing.values() for part in _parts(rows, batch_size)]
    with closing(_ahead(read, plan, n_workers)) as batches:
        for shard, rows in missing.items():
            columns = _zeros(store, len(rows))
            notes: dict[int, str] = {}
            for part in _parts(rows, batch_size):
                batch = next(batches)
                notes |= batch.notes
                if batch.inputs is not None:
                    outputs = {**encoder.encode(batch.inputs), **batch.extras}
                    _fill(columns, outputs, batch.good, rows.start, source.names)
                done += len(part)
                report(done, total)
            store.write(shard, columns, notes)


def _check(source: Source, store: EmbeddingStore, batch_size: int, n_workers: int) -> None:
    for name, number in (("batch_size", batch_size), ("n_workers", n_workers)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    if len(source) != store.layout.n_rows:
        raise InputError(
            f"source must have {store.layout.n_rows} pictures, as the store has rows, "
            f"got {len(source)}; use another store for other pictures"
        )


def _parts(rows: range, size: int) -> list[range]:
    """Cut rows into batches."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _zeros(store: EmbeddingStore, n: int) -> dict[str, Array]:
    columns = store.layout.columns.items()
    return {name: np.zeros((n, length), dtype) for name, (length, dtype) in columns}


def _ahead(
    read: Callable[[range, threading.Event], _Batch], plan: Iterable[range], n_workers: int
) -> Generator[_Batch, None, None]:
    """Yield the batches of a plan in order while threads read the next ones."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="faultlens-read")
    waiting: deque[Future[_Batch]] = deque()
    try:
        for rows in plan:
            waiting.append(pool.submit(read, rows, stop))
            if len(waiting) > n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()  # at most one more picture a thread
        pool.shutdown(cancel_futures=True)


def _read(
    encoder: Encoder,
    source: Source,
    extras: Mapping[str, Callable[[Image.Image], Array]],
    rows: range,
    stop: threading.Event,
) -> _Batch:
    """Load and prepare some rows; pictures that cannot be read become notes."""
    inputs: dict[int, FloatArray] = {}
    more: dict[str, list[Array]] = {name: [] for name in extras}
    notes: dict[int, str] = {}
    for row in rows:
        if stop.is_set():
            break
        try:
            image = source.load(row)
        except InputError as error:
            notes[row] = str(error)
            continue
        inputs[row] = encoder.prepare(image)
        for name, function in extras.items():
            more[name].append(function(image))
    if not inputs:
        return _Batch([], None, {}, notes)
    extra_columns = {name: np.stack(values) for name, values in more.items()}
    return _Batch(list(inputs), _stack(inputs, source.names), extra_columns, notes)


def _stack(inputs: Mapping[int, FloatArray], names: Sequence[str]) -> FloatArray:
    first, *_ = inputs.values()
    for row, value in inputs.items():
        if value.shape != first.shape:
            raise InputError(
                f"prepared pictures must have one shape, got {first.shape} and, for {names[row]}, "
                f"{value.shape}; set an exact resize or a crop"
            )
    return np.stack(list(inputs.values()))


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
