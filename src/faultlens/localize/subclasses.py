"""Subclasses: which part of a class fails, and what is it called instead?

Training data that lack a part of a class, or mislabel it, leave a model that misses that part and
nothing else. What a part is, the pictures say as the vision-language model sees them: a class is
divided by every concept that it shows, and the two sides are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize.cues import MIN_DIFFERENCE, present
from faultlens.localize.gains import LEVEL, MIN_SLICE_GAP
from faultlens.stats import fisher_exact, newcombe, wilson

_Z = 1.959964


class Rate(NamedTuple):
    """A share of a group of images.

    Attributes:
        value: In [0, 1]; NaN without images.
        interval: 95 % interval.
        n: Images of the group.
    """

    value: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Subclass:
    """A part of a class that fails more often than the rest of it.

    Attributes:
        k: Class index.
        concepts: Indices of the one or two concepts that tell the part from the rest.
        presence: For each, whether the part is with it or without.
        group: (N,) its images.
        errors: Share of its images that are misclassified.
        rest: The same of the images of the class that are in no part found so far.
        gap: 95 % interval of the difference of the two.
        p_value: Fisher's exact test after Bonferroni over every cut of every class; with two
            concepts the larger of two tests.
        called: Class index that most of its errors are called.
        share: Share of its images that are called so.
        share_rest: The same of the images that `rest` is about.
        drawn: By how much images of other classes are called so more often with these concepts (or
            without, as `presence` says), pooled over classes; NaN where no class shows both.
    """

    k: int
    concepts: tuple[int, ...]
    presence: tuple[bool, ...]
    group: BoolArray
    errors: Rate
    rest: Rate
    gap: tuple[float, float]
    p_value: float
    called: int
    share: Rate
    share_rest: Rate
    drawn: Rate

    @property
    def is_cue(self) -> bool:
        """Whether other classes follow these concepts too: then it is no part of this class."""
        return self.drawn.interval[0] > MIN_DIFFERENCE


def subclasses(
    strengths: Strengths, labels: IntArray, predictions: IntArray, n_classes: int
) -> list[Subclass]:
    """Find the parts of classes that fail far more often than the rest of their class.

    A concept divides a class where enough of its images show it. It is cut where `present` cuts
    within the class, and again within either side: one cut misses what few images show strongly.
    The side that fails more is a part if it does so significantly and by more than
    `MIN_SLICE_GAP` at the lower bound; a second concept may narrow it down in the same way.

    Args:
        strengths: (N, C) of the vision-language model, of concepts that it knows here.
        labels: (N,).
        predictions: (N,).
        n_classes: K.

    Returns:
        The surest part of each class, then the next among its other images, until none is left.
        Most errors first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, text = rng.integers(0, 3, 900), rng.random(900) < 0.3
        >>> called = np.where((y == 1) & text, 2, y)
        >>> s = np.stack([text + rng.normal(0, 0.1, 900), rng.normal(size=900)], axis=1)
        >>> [(g.k, g.concepts, g.presence, g.called) for g in subclasses(s, y, called, 3)]
        [(1, (0,), (True,), 2)]

    References:
        The idea of failing subgroups that share a concept: Eyuboglu et al., Domino, ICLR 2022,
        arXiv:2203.14960. Deviation: Domino mixes Gaussians over embeddings, classes and errors;
        cuts along single concepts name themselves and need far fewer images.
    """
    if strengths.shape[1] == 0:
        return []
    shown = present(strengths)
    parts = [_Cuts.of(k, strengths, shown, labels, predictions) for k in range(n_classes)]
    cuts = [c for c in parts if c is not None]
    n_tests = sum(c.sides.shape[1] for c in cuts)
    found = [_subclass(c, s, shown, labels, predictions) for c in cuts for s in _splits(c, n_tests)]
    return sorted(found, key=lambda g: -round(g.errors.value * g.errors.n))


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """A class, divided in every way.

    Attributes:
        k: Class index.
        rows: (n,) its images.
        wrong: (n,) which of them are misclassified.
        sides: (n, S) where each cut's concept is.
        concepts: (S,) of each cut.
    """

    k: int
    rows: NDArray[np.int64]
    wrong: BoolArray
    sides: Bool[np.ndarray, "n S"]
    concepts: IntArray

    @classmethod
    def of(
        cls,
        k: int,
        strengths: Strengths,
        shown: Bool[np.ndarray, "N C"],
        labels: IntArray,
        predictions: IntArray,
    ) -> "_Cuts | None":
        """Cut a class; None where it has too few errors, or too few correct images."""
        rows = np.flatnonzero(labels == k)
        wrong = predictions[rows] != k
        concepts = np.flatnonzero(shown[rows].sum(axis=0) >= MIN_IMAGES)
        if min(wrong.sum(), (~wrong).sum()) < MIN_IMAGES or not len(concepts):
            return None
        levels = [_nested(strengths[rows, c]) for c in concepts]
        sides = np.concatenate(levels, axis=1)
        of = np.repeat(concepts, [level.shape[1] for level in levels])
        n = sides.sum(axis=0)
        is_large = (n >= MIN_IMAGES) & (n <= len(rows) - MIN_IMAGES)
        return cls(k, rows, wrong, sides[:, is_large], of[is_large])


def _nested(s: FloatArray) -> Bool[np.ndarray, "n 3"]:
    """Return where a concept is by three cuts: of all images, and of those on either side."""
    middle = present(s[:, None])[:, 0]
    high, low = middle.copy(), middle.copy()
    for side, out in ((middle, high), (~middle, low)):
        if side.sum() > 1:
            out[side] = present(s[side, None])[:, 0]
    return np.stack([middle, high, low], axis=1)


class _Split(NamedTuple):
    """A part of a class as positions in its `_Cuts`, and the images it is compared with."""

    cuts: tuple[int, ...]
    presence: tuple[bool, ...]
    inside: BoolArray
    outside: BoolArray
    p_value: float


def _splits(c: _Cuts, n_tests: int) -> Iterator[_Split]:
    left = np.ones(len(c.rows), bool)
    used: set[int] = set()
    while (first := _strongest(c, left, used, n_tests)) is not None:
        j, is_with, p = first
        inside = left & (c.sides[:, j] == is_with)
        split = _Split((j,), (is_with,), inside, left & ~inside, p)
        narrowed = _narrowed(c, split, n_tests)
        if narrowed is None:
            # What the cut leaves over is misread, not another part.
            used.add(int(c.concepts[j]))
        split = narrowed or split
        yield split
        left &= ~split.inside


def _narrowed(c: _Cuts, split: _Split, n_tests: int) -> _Split | None:
    """Narrow a part down by a second concept, where what it leaves out is as sound as the rest."""
    second = _strongest(c, split.inside, {int(c.concepts[split.cuts[0]])}, n_tests)
    if second is None:
        return None
    j, is_with, p = second
    inside = split.inside & (c.sides[:, j] == is_with)
    if _gap(c.wrong[split.inside & ~inside], c.wrong[split.outside])[0] > MIN_SLICE_GAP:
        return None
    return _Split(
        (*split.cuts, j),
        (*split.presence, is_with),
        inside,
        split.outside | (split.inside & ~inside),
        max(split.p_value, p),
    )


def _strongest(
    c: _Cuts, among: BoolArray, used: set[int], n_tests: int
) -> tuple[int, bool, float] | None:
    """Return the surest cut among some images, the side that fails more, and the p-value."""
    sides, wrong = c.sides[among], c.wrong[among]
    n1, s1 = sides.sum(axis=0), sides[wrong].sum(axis=0)
    n0, s0 = len(wrong) - n1, wrong.sum() - s1
    # No cut knows what is found later: every one pays for all.
    p = np.minimum(fisher_exact(s1, n1, s0, n0) * n_tests, 1.0)
    low, high = newcombe(s1, n1, s0, n0)
    worth = np.maximum(low, -high)
    is_open = (np.minimum(n1, n0) >= MIN_IMAGES) & ~np.isin(c.concepts, list(used))
    is_part = is_open & (p <= LEVEL) & (worth > MIN_SLICE_GAP)
    if not is_part.any():
        return None
    # Among p-values too small to tell apart, the larger gap.
    j = int(np.lexsort((-worth, np.where(is_part, p, np.inf)))[0])
    return j, bool(low[j] > 0), float(p[j])


def _subclass(
    c: _Cuts,
    split: _Split,
    shown: Bool[np.ndarray, "N C"],
    labels: IntArray,
    predictions: IntArray,
) -> Subclass:
    inside, outside = split.inside, split.outside
    answers, counts = np.unique(predictions[c.rows[inside & c.wrong]], return_counts=True)
    called = int(answers[np.argmax(counts)])
    is_called = predictions[c.rows] == called
    group = np.zeros(len(labels), bool)
    group[c.rows[inside]] = True
    concepts = tuple(int(c.concepts[j]) for j in split.cuts)
    others = (labels != c.k) & (labels != called)
    there = (shown[:, concepts] == split.presence).all(axis=1)
    return Subclass(
        k=c.k,
        concepts=concepts,
        presence=split.presence,
        group=group,
        errors=_rate(c.wrong[inside]),
        rest=_rate(c.wrong[outside]),
        gap=_gap(c.wrong[inside], c.wrong[outside]),
        p_value=split.p_value,
        called=called,
        share=_rate(is_called[inside]),
        share_rest=_rate(is_called[outside]),
        drawn=_drawn(there[others], labels[others], predictions[others] == called),
    )


def _gap(event: BoolArray, other: BoolArray) -> tuple[float, float]:
    low, high = newcombe(int(event.sum()), len(event), int(other.sum()), len(other))
    return float(low), float(high)


def _rate(event: BoolArray) -> Rate:
    n, s = len(event), int(event.sum())
    low, high = wilson(s, n)
    return Rate(s / n if n else float("nan"), (float(low), float(high)), n)


def _drawn(there: BoolArray, strata: IntArray, event: BoolArray) -> Rate:
    """Pool the difference that being there makes to an event over strata (Mantel-Haenszel)."""
    table = [
        np.bincount(strata, weights=w, minlength=1)
        for w in (there & event, there, ~there & event, ~there)
    ]
    s1, n1, s0, n0 = table
    weight = n1 * n0 / np.maximum(n1 + n0, 1)
    if not weight.any():
        return Rate(float("nan"), (-1.0, 1.0), len(event))
    weight /= weight.sum()
    value = float(weight @ (s1 / np.maximum(n1, 1) - s0 / np.maximum(n0, 1)))
    # Half a case in each cell keeps the variance of empty cells from vanishing.
    p1, p0 = (s1 + 0.5) / (n1 + 1), (s0 + 0.5) / (n0 + 1)
    spread = p1 * (1 - p1) / np.maximum(n1, 1) + p0 * (1 - p0) / np.maximum(n0, 1)
    half = _Z * float(np.sqrt(weight**2 @ spread))
    return Rate(value, (max(value - half, -1.0), min(value + half, 1.0)), len(event))
