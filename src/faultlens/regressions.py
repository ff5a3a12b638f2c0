"""Regressions: whether one classifier is worse than another, and what its heatmaps say differently.

On images that both have seen the comparison is paired (McNemar's exact test): only the images on
which the two disagree count, and small changes are seen. On different images it is that of two
independent samples (Fisher's exact test). The chance that any group is wrongly called worse is
kept below the level over all groups together (Holm), and so it is for better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray, Strengths, read_only
from faultlens.heatmaps import MIN_IMAGES, DifferentialHeatmap, Heatmap, differential
from faultlens.stats import (
    CONFIDENCE,
    benjamini_hochberg,
    fisher_exact,
    holm,
    mcnemar_exact,
    newcombe,
    paired_gain,
)

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the accuracy on one group of images.

    Attributes:
        kind: `all`, `class` or `subclass`.
        name: Of the group.
        n_first: Images of the first classifier.
        n_second: Of the second; the same images where the comparison is paired.
        first: Accuracy of the first, in [0, 1]; NaN without images.
        second: Accuracy of the second.
        gain: `second - first`.
        interval: Of the gain, 95 %, of this group alone.
        n_gained: Images that only the second gets right; None where it is not paired.
        n_lost: Images that only the first gets right; None where it is not paired.
        p_worse: That the second is not worse, adjusted over the groups; NaN where not tested.
        p_better: That it is not better, likewise.
        verdict: `worse`, `better`, `same` (no significant change) or `few` (too few images).
    """

    kind: str
    name: str
    n_first: int
    n_second: int
    first: float
    second: float
    gain: float
    interval: tuple[float, float]
    n_gained: int | None
    n_lost: int | None
    p_worse: float
    p_better: float
    verdict: str = "few"


def paired(kind: str, name: str, first: BoolArray, second: BoolArray) -> Change:
    """Compare two classifiers on the same images.

    Args:
        kind: Of the group.
        name: Of the group.
        first: (n,) which images the first gets right.
        second: (n,) which images the second gets right.

    Returns:
        The change, p-values not yet adjusted.

    Example:
        >>> a, b = np.ones(30, bool), np.ones(30, bool)
        >>> b[:9] = False
        >>> found = paired("all", "all images", a, b)
        >>> round(found.gain, 2), found.n_lost, round(found.p_worse, 4)
        (-0.3, 9, 0.002)
    """
    gained, lost, n = int((second & ~first).sum()), int((first & ~second).sum()), len(first)
    gain, low, high = paired_gain(gained, lost, n)
    at = (float(first.mean()), float(second.mean())) if n else (float("nan"),) * 2
    return Change(
        kind, name, n, n, *at, gain, (low, high), gained, lost,
        mcnemar_exact(lost, gained), mcnemar_exact(gained, lost),
    )  # fmt: skip


def unpaired(kind: str, name: str, first: BoolArray, second: BoolArray) -> Change:
    """Compare two classifiers on different images; arguments as for `paired`.

    Example:
        >>> found = unpaired("all", "all images", np.ones(30, bool), np.arange(30) > 8)
        >>> round(found.gain, 2), found.n_lost, round(found.p_worse, 4)
        (-0.3, None, 0.001)
    """
    (s1, n1), (s2, n2) = ((int(x.sum()), len(x)) for x in (first, second))
    if not n1 or not n2:
        nan = float("nan")
        at = (s1 / n1 if n1 else nan, s2 / n2 if n2 else nan)
        return Change(kind, name, n1, n2, *at, nan, (-1.0, 1.0), None, None, nan, nan)
    low, high = newcombe(s2, n2, s1, n1)
    right = sps.hypergeom(n1 + n2, s1 + s2, n2)
    return Change(
        kind, name, n1, n2, s1 / n1, s2 / n2, s2 / n2 - s1 / n1, (float(low), float(high)),
        None, None, float(right.cdf(s2)), float(right.sf(s2 - 1)),
    )  # fmt: skip


def judged(changes: Sequence[Change], level: float = LEVEL) -> tuple[Change, ...]:
    """Adjust the p-values over all groups (Holm) and say which are worse or better.

    Groups of fewer than 10 images are not tested.

    Example:
        >>> a, b = np.ones(30, bool), np.arange(30) > 8
        >>> few = paired("class", "ship", a[:5], b[:5])
        >>> [c.verdict for c in judged([paired("all", "all images", a, b), few])]
        ['worse', 'few']
    """
    tested = [i for i, c in enumerate(changes) if min(c.n_first, c.n_second) >= MIN_IMAGES]
    worse = holm(np.array([changes[i].p_worse for i in tested]))
    better = holm(np.array([changes[i].p_better for i in tested]))
    nan = float("nan")
    out = [replace(c, p_worse=nan, p_better=nan) for c in changes]
    for i, p, q in zip(tested, worse.tolist(), better.tolist(), strict=True):
        verdict = "worse" if p <= level else "better" if q <= level else "same"
        out[i] = replace(out[i], p_worse=p, p_better=q, verdict=verdict)
    return tuple(out)


def heatmap_shifts(
    first: Mapping[str, Heatmap], second: Mapping[str, Heatmap]
) -> dict[str, DifferentialHeatmap]:
    """Return `second - first` for every class, of different images.

    The cells of all classes are controlled together (Benjamini-Hochberg).
    """
    found = {k: differential(second[k], first[k], k) for k in first}
    p = {k: _independent(first[k], second[k]) for k in found}
    return _adjusted(found, p)


def paired_shifts(
    first: Strengths,
    second: Strengths,
    groups: Mapping[str, IntArray],
    concepts: tuple[str, ...],
) -> dict[str, DifferentialHeatmap]:
    """Return `second - first` for groups of the same images, each pair of concepts by McNemar.

    Args:
        first: (N, C) strengths in the first session.
        second: (N, C) strengths of the same images in the second.
        groups: Name -> rows.
        concepts: C names.

    Returns:
        Per group the differential heatmap; the cells of all groups are controlled together.
    """
    found: dict[str, DifferentialHeatmap] = {}
    p: dict[str, FloatArray] = {}
    for name, rows in groups.items():
        found[name], p[name] = _paired(first[rows], second[rows], name, concepts)
    return _adjusted(found, p)


def _paired(
    first: Strengths, second: Strengths, name: str, concepts: tuple[str, ...]
) -> tuple[DifferentialHeatmap, FloatArray]:
    n, c = first.shape
    gained, lost = np.zeros((c, c), np.int64), np.zeros((c, c), np.int64)
    for a in range(c):
        before, after = first[:, a, None] > first, second[:, a, None] > second
        gained[a], lost[a] = (after & ~before).sum(axis=0), (before & ~after).sum(axis=0)
    values = (gained - lost) / n if n else np.full((c, c), np.nan)
    low, high = _paired_interval(gained, lost, n)
    upper = np.triu_indices(c, 1)
    up, down = gained[upper], lost[upper]
    tail = sps.binom.sf(np.maximum(up, down) - 1, up + down, 0.5)
    p = np.where(up + down > 0, np.minimum(1.0, 2 * tail), 1.0)
    delta = DifferentialHeatmap(
        name, concepts, read_only(values), read_only(low), read_only(high),
        read_only(np.ones((c, c))), n, n,
    )  # fmt: skip
    return delta, p


def _paired_interval(gained: IntArray, lost: IntArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Agresti and Min's interval of a paired difference, as `stats.paired_gain`, elementwise."""
    won, gone, m = gained + 0.5, lost + 0.5, n + 2.0
    centre = (won - gone) / m
    z = float(sps.norm.ppf(0.5 + CONFIDENCE / 2))
    half = z * np.sqrt(won + gone - (won - gone) ** 2 / m) / m
    return np.maximum(-1.0, centre - half), np.minimum(1.0, centre + half)


def _independent(first: Heatmap, second: Heatmap) -> FloatArray:
    upper = np.triu_indices(len(first.concepts), 1)
    if not first.n or not second.n:
        return np.ones(len(upper[0]))
    return fisher_exact(first.wins[upper], first.n, second.wins[upper], second.n)


def _adjusted(
    found: Mapping[str, DifferentialHeatmap], p: Mapping[str, FloatArray]
) -> dict[str, DifferentialHeatmap]:
    """Replace the q-values by those over the cells of every group with enough images."""
    enough = [k for k, d in found.items() if d.is_enough]
    adjusted = benjamini_hochberg(np.concatenate([p[k] for k in enough] or [np.zeros(0)]))
    q_values = dict(zip(enough, np.split(adjusted, len(enough)) if enough else [], strict=True))
    out = {}
    for name, delta in found.items():
        q = np.ones(delta.values.shape)
        if name in q_values:
            upper = np.triu_indices(len(delta.concepts), 1)
            q[upper] = q_values[name]
            q.T[upper] = q_values[name]
        out[name] = replace(delta, q_values=read_only(q))
    return out
