"""Input check: is the network fed as it was trained? It is asked again, fed in other ways.

A part of a sample chooses among the ways, the rest measures the chosen one, so that a claim never
rests on the images that picked it.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from faultlens.analysis import Measurements
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.data.subset import stratified_order
from faultlens.errors import InputError
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize import compression
from faultlens.localize.compression import Compression
from faultlens.localize.inputs import (
    InputStatistics,
    InputTrial,
    InputTrials,
    best,
    decidedness,
    gain_of,
)
from faultlens.localize.variants import variants
from faultlens.models.classifier import Classifier

#: Images at most that choose among the ways, and that measure the chosen one.
N_CHOOSING, N_MEASURING = 256, 768
#: Images that are looked at for damage, and damaged ones whose JPEG quality is read.
N_LOOKED_AT, N_PROBED = 512, 64
#: Ways that lose on the first so many images are given up.
N_FIRST = 64
#: With fewer errors than this there is nothing to find.
MIN_ERRORS = 0.02

_THREADS = 8

Progress = Callable[[int, int], None]
Prepare = Callable[[Image.Image], FloatArray]


def check_inputs(
    model: Classifier,
    source: ImageSource,
    measurements: Measurements,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> InputTrials | None:
    """Feed the network in other ways, on a sample of the analysed images.

    Which images are taken follows from their names; every class keeps its share.

    Args:
        model: The classifier.
        source: N images.
        measurements: Of the same images.
        batch_size: Images at once through the network.
        progress: Called as `progress(done, total)`, four steps in all.

    Returns:
        None where at most 2 % of the analysed images are errors.
    """
    rows = np.flatnonzero(~measurements.is_reference)
    check = _Check(model, source, measurements, batch_size)
    if (~check.is_right(rows)).mean() <= MIN_ERRORS:
        return None
    report = progress or (lambda done, total: None)
    order = stratified_order([source.names[i] for i in rows], measurements.labels[rows])
    sample = np.asarray(rows[order[: N_CHOOSING + N_MEASURING]])
    # Every beginning of the order, and so the rest, holds the classes in their shares.
    choosing, measuring = np.split(sample, [min(N_CHOOSING, len(sample) // 2)])
    report(0, 4)
    look = check.look(sample[:N_LOOKED_AT])
    report(1, 4)
    tried, found = _search(check, choosing, look.own)
    report(2, 4)
    ways = {} if found is None else {found.name: found.preprocessing}
    chosen = next(iter(check.trials(measuring, ways)), None)
    report(3, 4)
    damaged = _compression(check, sample[:N_LOOKED_AT], look.blockiness)
    report(4, 4)
    return InputTrials(model.preprocessing, look.statistics, tried, chosen, damaged)


def _search(
    check: "_Check", rows: IntArray, own: tuple[Sequence[float], Sequence[float]]
) -> tuple[tuple[InputTrial, ...], InputTrial | None]:
    """Return all that was tried, and the best; two mistakes at once are undone one by one."""
    stated = check.model.preprocessing
    shape = getattr(check.model, "input_shape", (None,) * 4)
    labels, present = check.measurements.labels[rows], check.is_right(rows)
    tried = check.trials(rows, variants(stated, input_shape=shape, own=own), present)
    first = best(tried, labels, present, decidedness(check.measurements.logits[rows]))
    if first is None:
        return tuple(tried), None
    known = [stated, *(t.preprocessing for t in tried)]
    more = variants(first.preprocessing, input_shape=shape, own=own, tried=known)
    present = first.predictions == labels
    after = check.trials(rows, {f"{first.name} and {k}": p for k, p in more.items()}, present)
    second = best(after, labels, present, first.decided[0])
    return (*tried, *after), second or first


def _compression(check: "_Check", sample: IntArray, blockiness: FloatArray) -> Compression | None:
    is_blocky = blockiness >= compression.MIN_BLOCKINESS
    rows = sample[is_blocky]
    if len(rows) < max(MIN_IMAGES, compression.MIN_DAMAGED * len(sample)):
        return None
    found = [compression.quality_of(check.source.load(i)) for i in rows[:N_PROBED]]
    qualities = [q for q in found if q is not None]
    if len(qualities) < len(found) / 2:  # blocks of another making
        return None
    quality = int(np.median(qualities))

    def again(image: Image.Image) -> FloatArray:
        return check.model.prepare(compression.compressed_again(image, quality))

    right = check.logits(rows, {"": again})[""].argmax(axis=1) == check.measurements.labels[rows]
    cost = gain_of(check.is_right(rows), right)
    n_errors = int((~check.is_right(sample)).sum())
    return Compression(
        n=len(sample),
        rows=rows,
        quality=quality,
        blockiness=float(np.median(blockiness[is_blocky])),
        cost=cost,
        share=(cost.gained - cost.lost) / max(n_errors, 1),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What the pictures and the inputs are like.

    Attributes:
        statistics: Of the inputs.
        own: Mean and deviation of the pictures per RGB channel, scaled to 0–1.
        blockiness: (n,).
    """

    statistics: InputStatistics
    own: tuple[tuple[float, ...], tuple[float, ...]]
    blockiness: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Check:
    """A network that can be asked again about measured images."""

    model: Classifier
    source: ImageSource
    measurements: Measurements
    batch_size: int

    def is_right(self, rows: IntArray) -> BoolArray:
        """(n,) images that the network gets right as it is fed now."""
        m = self.measurements
        return np.asarray(m.logits[rows].argmax(axis=1) == m.labels[rows])

    def look(self, rows: IntArray) -> _Look:
        """Look at every picture and at the input it becomes."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self._look_at, rows))
        made, pictures, blockiness = zip(*found, strict=True)
        return _Look(
            InputStatistics(*_mean_std(made)), _mean_std(pictures), np.array(blockiness)
        )  # fmt: skip

    def _look_at(self, row: int) -> tuple[FloatArray, FloatArray, float]:
        image = self.source.load(row)
        p, made = self.model.preprocessing, self.model.prepare(image)
        last = made if p.layout == "nhwc" else made.transpose(1, 2, 0)
        picture = np.asarray(p.resized(image)) / 255
        return _moments(last), _moments(picture), compression.blockiness(image)

    def logits(self, rows: IntArray, ways: Mapping[str, Prepare]) -> dict[str, FloatArray]:
        """(n, K) of each way that the network can be fed in."""
        found: dict[str, list[FloatArray]] = {name: [] for name in ways}
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(rows), self.batch_size):
                images = list(pool.map(self.source.load, rows[start : start + self.batch_size]))
                for name in list(found):
                    try:
                        batch = np.stack(list(pool.map(ways[name], images)))
                        found[name].append(self.model.encode(batch)["logits"])
                    except InputError:  # a size or numbers that this network cannot take
                        del found[name]
        return {name: np.concatenate(parts) for name, parts in found.items() if parts}

    def trials(
        self, rows: IntArray, ways: Mapping[str, Preprocessing], present: BoolArray | None = None
    ) -> list[InputTrial]:
        """Try ways of feeding the network.

        Args:
            rows: (n,) images.
            ways: Name -> preprocessing.
            present: (n,) images that are right now: ways that lose against them on the first
                images are given up there; None tries all on all.
        """
        n_first = len(rows) if present is None else N_FIRST
        found = self.logits(rows[:n_first], ways)
        if present is not None and len(rows) > n_first:
            labels = self.measurements.labels[rows[:n_first]]
            right = {k: (v.argmax(axis=1) == labels).sum() for k, v in found.items()}
            kept = {k: ways[k] for k, n in right.items() if n >= present[:n_first].sum()}
            for name, rest in self.logits(rows[n_first:], kept).items():
                found[name] = np.concatenate([found[name], rest])
        return [self._trial(k, ways[k], rows[: len(v)], v) for k, v in found.items()]

    def _trial(
        self, name: str, way: Preprocessing, rows: IntArray, logits: FloatArray
    ) -> InputTrial:
        predictions = logits.argmax(axis=1)
        gain = gain_of(predictions == self.measurements.labels[rows], self.is_right(rows))
        decided = decidedness(logits), decidedness(self.measurements.logits[rows])
        return InputTrial(name, way, rows, predictions, gain, decided)


def _moments(x: FloatArray) -> FloatArray:
    """(2, channels) mean and mean square of a picture with its channels last."""
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return np.stack([flat.mean(axis=0), np.square(flat).mean(axis=0)])


def _mean_std(moments: Sequence[FloatArray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, square = np.mean(moments, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(map(float, mean)), tuple(map(float, std))
