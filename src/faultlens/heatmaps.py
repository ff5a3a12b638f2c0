"""Semantic heatmaps: for every pair of concepts, in which share of images one is stronger.

`h(x)[a, b] = 1` where `s_a(x) > s_b(x)`; a class's heatmap is its mean over images (Hu et al.,
CAIN 2025, arXiv:2503.17416). Counts are integers that add up, so shards merge in any order.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths, check_array, read_only
from faultlens.errors import InputError, ShapeError
from faultlens.stats import benjamini_hochberg, fisher_exact, newcombe, wilson

#: Fewer images than this in a group: no statement about it.
MIN_IMAGES = 10
# A block of images lies in memory as `_RUNS` runs of about `_RUN` numbers. Shorter runs NumPy would
# copy before it compares them; with larger blocks, or more flags at a time, the cache overflows.
# Each call gives the interpreter's lock away and takes it back: short ones would make threads wait.
_RUN = 6400
_RUNS = 16
_DISTANCES = 5  # compared in one call
_BLOCKS_A_THREAD = 8  # fewer are not worth a thread


def single(strengths: FloatArray) -> Bool[np.ndarray, "C C"]:
    """Return the heatmap of one image: `[a, b]` is True where `s_a > s_b`.

    Example:
        >>> single(np.array([0.2, 0.7])).tolist()
        [[False, False], [True, False]]
    """
    s = check_array(strengths, "C", name="strengths")
    return np.asarray(s[:, None] > s[None, :])


def _lanes(n_concepts: int) -> int:
    """Return the images whose strengths make one run."""
    return -(-_RUN // n_concepts)


def _count_blocks(
    strengths: Strengths, n_groups: int, blocks: Sequence[tuple[int, IntArray]]
) -> Int[np.ndarray, "G C C"]:
    """Count over blocks of images, each a group and its rows, in the order of the groups."""
    c = strengths.shape[1]
    first = np.arange(c)
    second = (first + np.arange(1, c // 2 + 1)[:, None]) % c
    wins = np.zeros((n_groups, c, c), np.int64)
    for k, of_group in groupby(blocks, itemgetter(0)):
        counts = (_count(strengths[rows]) for _, rows in of_group)
        wins[k, first, second], wins[k, second, first] = reduce(np.add, counts)
    return wins


def _count(rows: Strengths) -> Int[np.ndarray, "2 H C"]:
    """Count in how many rows concepts win, and in how many they lose.

    Concept i is held against those 1 … H = C // 2 further on, the first following the last: so each
    pair is met, and all concepts of a block are compared in one run.
    """
    wins = _pairs(np.greater, rows)
    losses = len(rows) - wins
    # What is neither won nor lost is a tie; few images have any.
    ordered = np.sort(rows, axis=1)
    is_tie = ordered[:, 1:] == ordered[:, :-1]
    if is_tie.any():
        losses -= _pairs(np.equal, rows[is_tie.any(axis=1)])
    return np.stack([wins, losses])


def _pairs(compare: np.ufunc, rows: Strengths) -> Int[np.ndarray, "H C"]:
    """Count the rows in which `compare` holds between concepts i and i + h + 1: `[h, i]`."""
    c = rows.shape[1]
    lanes = _lanes(c)
    x = _runs(rows)
    width = c * lanes
    further = sliding_window_view(x, width, axis=1)[:, lanes::lanes]
    counts = np.empty((c // 2, c), np.int64)
    for h in range(0, c // 2, _DISTANCES):
        flags = compare(x[:, None, :width], further[:, h : h + _DISTANCES])
        # Bytes hold the sum of _RUNS flags, 16 bits that of a block.
        sums = np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8)
        counts[h : h + _DISTANCES] = sums.reshape(-1, c, lanes).sum(axis=2, dtype=np.uint16)
    return counts


def _runs(rows: Strengths) -> Float[np.ndarray, "M W"]:
    """Lay out rows concept by concept, `_lanes` images a run; half of the concepts follow again.

    The last run is filled up with NaN, which is neither more than a number nor equal to it.
    """
    n, c = rows.shape
    lanes = _lanes(c)
    n_full, n_rest = divmod(n, lanes)
    x = np.full((n_full + (n_rest > 0), c + c // 2, lanes), np.nan, rows.dtype)
    x[:n_full, :c] = rows[: n - n_rest].reshape(n_full, lanes, c).transpose(0, 2, 1)
    x[n_full:, :c, :n_rest] = rows[n - n_rest :].T
    x[:, c:] = x[:, : c // 2]
    return x.reshape(len(x), -1)


@dataclass(frozen=True, slots=True, eq=False)
class HeatmapCounts:
    """Pairwise wins per group of images.

    Attributes:
        wins: (G, C, C) int64, images of the group in which concept a beats concept b.
        n: (G,) int64, images of the group.

    Example:
        >>> s = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.5]], np.float32)
        >>> counts = HeatmapCounts.of(s, np.array([0, 0, 1]), n_groups=2)
        >>> counts.wins[:, 0, 1].tolist(), counts.n.tolist()
        ([2, 0], [2, 1])
    """

    wins: Int[np.ndarray, "G C C"]
    n: Int[np.ndarray, "G"]

    @classmethod
    def of(
        cls, strengths: Strengths, groups: IntArray, n_groups: int, n_threads: int | None = None
    ) -> "HeatmapCounts":
        """Count wins over images.

        Args:
            strengths: (N, C).
            groups: (N,) group of each image in [0, n_groups), or -1 for none.
            n_groups: G.
            n_threads: Threads that count; None takes as many as there are processors.

        Raises:
            ShapeError: Shapes that do not match, values not finite, or a group out of range.
        """
        s = check_array(strengths, "N C", name="strengths")
        g = check_array(groups, "N", name="groups", kind="int")
        if len(g) != len(s):
            raise ShapeError(f"groups must have one entry an image, got {len(g)} for {len(s)}")
        if g.max() >= n_groups or g.min() < -1:
            wrong = g.max() if g.max() >= n_groups else g.min()
            raise ShapeError(f"groups must be below n_groups = {n_groups} or -1, got {wrong}")
        g = g.astype(np.min_scalar_type(-n_groups))  # short numbers are sorted faster
        order = np.argsort(g, kind="stable")
        bounds = np.searchsorted(g[order], np.arange(n_groups + 1))
        size = _RUNS * _lanes(s.shape[1])
        blocks = [
            (k, order[i : min(i + size, stop)])
            for k, (start, stop) in enumerate(pairwise(bounds))
            for i in range(start, stop, size)
        ]
        n_threads = n_threads or len(os.sched_getaffinity(0))
        n_threads = max(1, min(n_threads, len(blocks) // _BLOCKS_A_THREAD))
        count = partial(_count_blocks, s, n_groups)
        if n_threads == 1:
            wins = count(blocks)
        else:
            with ThreadPoolExecutor(n_threads, thread_name_prefix="faultlens-count") as pool:
                parts = pool.map(count, [blocks[i::n_threads] for i in range(n_threads)])
                wins = reduce(np.add, parts)
        return cls(read_only(wins), read_only(np.diff(bounds)))

    def merge(self, other: "HeatmapCounts") -> "HeatmapCounts":
        """Return the counts of both sets of images together."""
        return type(self)(self.wins + other.wins, self.n + other.n)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """One semantic heatmap.

    Attributes:
        kind: `ground-truth`, `output-label`, `correct`, `incorrect` or `single`.
        subject: The class, confusion or image it is about.
        concepts: C names, the order of both axes.
        wins: (C, C) images in which concept a (row) beats concept b (column).
        n: Images.
    """

    kind: str
    subject: str
    concepts: tuple[str, ...]
    wins: Int[np.ndarray, "C C"]
    n: int

    @property
    def values(self) -> Float[np.ndarray, "C C"]:
        """(C, C) in [0, 1]: the share of images; NaN where there is no image."""
        return np.asarray(self.wins / self.n if self.n else np.full(self.wins.shape, np.nan))

    @property
    def ties(self) -> Float[np.ndarray, "C C"]:
        """(C, C) share of images with equal strengths; `values + values.T + ties == 1`."""
        return np.asarray(1 - self.values - self.values.T)

    @property
    def is_enough(self) -> bool:
        """Whether there are enough images for a statement."""
        return self.n >= MIN_IMAGES

    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Return the Wilson interval of every cell: two (C, C) arrays in [0, 1]."""
        return wilson(self.wins, self.n)

    def binarized(self, threshold: float = 0.5) -> NDArray[np.int8]:
        """Return 1 where `H >= threshold`, 0 where `H <= 1 - threshold`, -1 between.

        Args:
            threshold: τ in [0.5, 1].

        Raises:
            InputError: τ outside [0.5, 1], where both rules would hold at once.
        """
        if not 0.5 <= threshold <= 1:
            raise InputError(f"threshold must be in [0.5, 1], got {threshold}")
        h = self.values
        return np.where(h >= threshold, 1, np.where(h <= 1 - threshold, 0, -1)).astype(np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class DifferentialHeatmap:
    """Difference of two heatmaps, `Δ = H_first - H_second`, with its significance.

    Attributes:
        subject: What is compared.
        concepts: C names.
        values: (C, C) in [-1, 1]; NaN where a group is empty.
        low: (C, C) lower bound of the interval (Newcombe).
        high: (C, C) upper bound.
        q_values: (C, C) Fisher's exact test after Benjamini-Hochberg over the matrix.
        n_first: Images of the first group.
        n_second: Images of the second group.
    """

    subject: str
    concepts: tuple[str, ...]
    values: Float[np.ndarray, "C C"]
    low: Float[np.ndarray, "C C"]
    high: Float[np.ndarray, "C C"]
    q_values: Float[np.ndarray, "C C"]
    n_first: int
    n_second: int

    @property
    def is_enough(self) -> bool:
        """Whether both groups have enough images for a statement."""
        return min(self.n_first, self.n_second) >= MIN_IMAGES

    def significant(self, level: float = 0.05) -> BoolArray:
        """(C, C) cells that differ at false discovery rate `level`; none with few images."""
        return np.asarray((self.q_values <= level) & self.is_enough)


def differential(first: Heatmap, second: Heatmap, subject: str = "") -> DifferentialHeatmap:
    """Compare two heatmaps over the same concepts, such as correct against incorrect images.

    Each unordered pair of concepts is tested once: `[a, b]` and `[b, a]` ask the same question
    (exactly so without ties), and counting it twice would loosen the control.

    Raises:
        InputError: Heatmaps over different concepts.

    Example:
        >>> a = Heatmap("correct", "ship", ("wet", "wings"), np.array([[0, 19], [1, 0]]), 20)
        >>> b = Heatmap("incorrect", "ship", ("wet", "wings"), np.array([[0, 3], [17, 0]]), 20)
        >>> delta = differential(a, b)
        >>> round(float(delta.values[0, 1]), 2), bool(delta.significant()[0, 1])
        (0.8, True)
    """
    if first.concepts != second.concepts:
        raise InputError("heatmaps must have the same concepts; use one concepts file for both")
    low, high = newcombe(first.wins, first.n, second.wins, second.n)
    upper = np.triu_indices(len(first.concepts), 1)
    q = np.ones(first.wins.shape)
    if min(first.n, second.n) > 0:
        p = fisher_exact(first.wins[upper], first.n, second.wins[upper], second.n)
        q[upper] = benjamini_hochberg(p)
        q.T[upper] = q[upper]
    return DifferentialHeatmap(
        subject=subject or first.subject,
        concepts=first.concepts,
        values=read_only(first.values - second.values),
        low=read_only(low),
        high=read_only(high),
        q_values=read_only(q),
        n_first=first.n,
        n_second=second.n,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ClassCounts:
    """Counts for every class: right, missed (its label, another prediction), and wrongly claimed.

    Attributes:
        concepts: C names.
        classes: K names.
        correct: Images labelled and predicted as the class.
        false_negative: Images labelled as the class, predicted otherwise.
        false_positive: Images predicted as the class, labelled otherwise.
    """

    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    correct: HeatmapCounts
    false_negative: HeatmapCounts
    false_positive: HeatmapCounts

    @classmethod
    def of(
        cls,
        strengths: Strengths,
        labels: IntArray,
        predictions: IntArray,
        concepts: tuple[str, ...],
        classes: tuple[str, ...],
        n_threads: int | None = None,
    ) -> "ClassCounts":
        """Count over images; memory is O(C² K) whatever the number of images."""
        k, right = len(classes), labels == predictions
        groups = np.where(right, labels, labels + k)
        by_label = HeatmapCounts.of(strengths, groups, 2 * k, n_threads)
        claimed = np.where(right, -1, predictions)
        return cls(
            concepts,
            classes,
            HeatmapCounts(by_label.wins[:k], by_label.n[:k]),
            HeatmapCounts(by_label.wins[k:], by_label.n[k:]),
            HeatmapCounts.of(strengths, claimed, k, n_threads),
        )

    def merge(self, other: "ClassCounts") -> "ClassCounts":
        """Return the counts of both sets of images together."""
        return type(self)(
            self.concepts, self.classes, self.correct.merge(other.correct),
            self.false_negative.merge(other.false_negative),
            self.false_positive.merge(other.false_positive),
        )  # fmt: skip

    def heatmap(self, kind: str, k: int) -> Heatmap:
        """Return one heatmap of class index `k`.

        Args:
            kind: `ground-truth` (labelled k), `output-label` (predicted k), `correct`,
                `incorrect` (labelled k, predicted otherwise) or `incorrect-output`
                (predicted k, labelled otherwise).
            k: Class index.

        Raises:
            InputError: Unknown kind.
        """
        parts = {
            "ground-truth": (self.correct, self.false_negative),
            "output-label": (self.correct, self.false_positive),
            "correct": (self.correct,),
            "incorrect": (self.false_negative,),
            "incorrect-output": (self.false_positive,),
        }
        if kind not in parts:
            raise InputError(f"kind must be one of {', '.join(parts)}, got '{kind}'")
        wins = sum((p.wins[k] for p in parts[kind]), np.zeros_like(self.correct.wins[k]))
        n = int(sum(p.n[k] for p in parts[kind]))
        return Heatmap(kind, self.classes[k], self.concepts, read_only(wins), n)

    def differential(self, k: int) -> DifferentialHeatmap:
        """Return Δ between the correct and the incorrect images labelled `k`."""
        return differential(self.heatmap("correct", k), self.heatmap("incorrect", k))
