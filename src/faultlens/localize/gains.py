"""Is there a fault at all, and in which module? Paired tests on groups of images.

Natural errors exist in every model. A fault is an error rate that something better removes: a head
refitted on the same embeddings (head fault), or another encoder, the VLM's, that no linear head on
this encoder can match (encoder fault); or one class or subclass far behind the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize.verdict import Evidence
from faultlens.stats import fisher_exact, holm, mcnemar_exact, newcombe, paired_gain

LEVEL = 0.05
#: A fault of a module explains at least these shares of the errors, net: of all of them, and of
#: those around one class. Any refit on the very kind of images it is tested on gains over a head
#: trained on others: on recompressed CIFAR-10 a sound ResNet-20 shows 0.23 and at most 0.56 in a
#: class, while exchanged or zeroed head rows show at least 0.49 and 0.72.
MIN_SHARE = 1 / 3
MIN_CLASS_SHARE = 2 / 3
#: The lower 95 % bound of a gain or gap must exceed these; less is not worth a person's day.
MIN_HEAD_GAIN = 0.02
MIN_ENCODER_GAP = 0.05
#: A gap this large is an encoder fault by itself; sound small networks on drawn pictures show up to
#: 0.06. Between the two a refitted head must gain too.
MIN_GAP_ALONE = 0.15
MIN_CLASS_GAIN = 0.05
MIN_SLICE_GAP = 0.10
#: Dead dimensions with less of the head's squared weight than this change nothing.
MIN_DEAD_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Gain:
    """What a better predictor would bring in one group of images.

    Attributes:
        subject: None for all images, else a class index.
        gained: Images only the better one gets right.
        lost: Images only the present one gets right.
        n: Images compared.
        gain: `(gained - lost) / n`.
        interval: 95 % interval of the gain.
        p_value: Exact McNemar test, after Holm over the family.
        share: `gained - lost` as a share of the present errors; NaN without any.
        is_significant: At 5 %, and the lower bound exceeds the least gain worth reporting.
        is_fault: Significant, and a large enough share of the errors.
    """

    subject: int | None
    gained: int
    lost: int
    n: int
    gain: float
    interval: tuple[float, float]
    p_value: float
    share: float
    is_significant: bool = False
    is_fault: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """One group's error rate against its complement.

    Attributes:
        subject: The group's name.
        n: Images of the group.
        n_errors: Errors among them.
        rest: Error rate of the complement.
        gap: Difference of the rates.
        interval: 95 % interval of the gap.
        p_value: Fisher's exact test, after Holm over the family.
        is_fault: As in `Gain`.
    """

    subject: str
    n: int
    n_errors: int
    rest: float
    gap: float
    interval: tuple[float, float]
    p_value: float
    is_fault: bool = False


def _gains(
    better: BoolArray, present: BoolArray, groups: Mapping[int | None, BoolArray], least: float
) -> list[Gain]:
    found = []
    for subject, group in groups.items():
        gained = int((group & better & ~present).sum())
        lost = int((group & present & ~better).sum())
        n = int(group.sum())
        n_errors = int((group & ~present).sum())
        gain, low, high = paired_gain(gained, lost, n)
        share = (gained - lost) / n_errors if n_errors else float("nan")
        p = mcnemar_exact(gained, lost)
        found.append(Gain(subject, gained, lost, n, gain, (low, high), p, share))
    adjusted = holm(np.array([g.p_value for g in found]))
    return [_judged(g, float(p), least) for g, p in zip(found, adjusted, strict=True)]


def _judged(gain: Gain, p_value: float, least: float) -> Gain:
    bound = least if gain.subject is None else MIN_CLASS_GAIN
    is_significant = p_value <= LEVEL and gain.n >= MIN_IMAGES and gain.interval[0] > bound
    least_share = MIN_SHARE if gain.subject is None else MIN_CLASS_SHARE
    is_fault = is_significant and gain.share >= least_share
    return replace(gain, p_value=p_value, is_significant=is_significant, is_fault=is_fault)


def _groups(e: Evidence, other: IntArray, classes: IntArray) -> dict[int | None, BoolArray]:
    """All images, and for each class those that truth or either predictor calls so.

    A class's group holds its false alarms too, so trading precision for recall gains nothing.
    """
    groups: dict[int | None, BoolArray] = {None: np.ones(len(e.labels), bool)}
    for k in classes:
        groups[int(k)] = (e.labels == k) | (e.predictions == k) | (other == k)
    return groups


def head_gains(e: Evidence) -> list[Gain]:
    """Gain of the refitted head over the shipped one: all images first, then each class.

    Each image is predicted by a head that was fitted without it, and both heads choose among the
    classes that the refit has seen.
    """
    present = np.unique(e.labels)
    return _gains(
        e.refit == e.labels, e.closed == e.labels, _groups(e, e.refit, present), MIN_HEAD_GAIN
    )


def best_linear(e: Evidence) -> IntArray:
    """(N,) classes of the refitted or the shipped head, whichever is right more often."""
    refit_is_better = (e.refit == e.labels).sum() >= (~e.is_error).sum()
    return e.refit if refit_is_better else e.predictions


def encoder_gaps(e: Evidence, class_is_valid: BoolArray) -> list[Gain]:
    """Gain of the VLM's zero-shot answer over the best linear head on this encoder.

    The best head is the shipped or the refitted one, whichever is right more often, so that a
    broken head is not blamed on the encoder. Only labels that the VLM knows and the refitted head
    has seen are asked.
    """
    best = best_linear(e)
    seen = np.isfinite(e.refit_logits[np.arange(len(e.labels)), e.labels])
    judged = class_is_valid[e.labels] & seen
    groups = {k: g & judged for k, g in _groups(e, e.vlm, np.flatnonzero(class_is_valid)).items()}
    return _gains(e.vlm == e.labels, best == e.labels, groups, MIN_ENCODER_GAP)


@dataclass(frozen=True, slots=True)
class Meaning:
    """How often the oracle finds the right meaning, in three groups of one run.

    Attributes:
        repaired: Errors that the refitted head repairs.
        correct: Correct images of the same classes (of all where these have fewer than 10).
        natural: Errors of the refitted head itself, likewise; 0 without any.
        is_kept: Whether the first rate is nearer to the second than to the third, or within 10
            points of the second.
    """

    repaired: float
    correct: float
    natural: float
    is_kept: bool


def meaning(e: Evidence, group: BoolArray | None = None) -> Meaning | None:
    """Does the embedding of the errors that a refitted head repairs carry the right meaning?

    A refit also adapts to a broken or shifted encoder. It speaks against the shipped head only if
    the oracle finds the right meaning in the repaired errors about as often as in correct images,
    and not as seldom as in natural errors.

    Args:
        e: Evidence.
        group: (N,) which images to look at; all of them if None.

    Returns:
        None where fewer than 10 repaired errors could be judged.
    """
    gated = e.is_gated if group is None else e.is_gated & group
    right, fixed = e.mapped == e.labels, e.refit == e.labels
    repaired = gated & e.is_error & fixed
    same = gated & np.isin(e.labels, np.unique(e.labels[repaired]))
    if repaired.sum() < MIN_IMAGES:
        return None
    # A broken head may leave its classes hardly a correct image: then all classes stand in.
    correct = _enough(same & ~e.is_error, e.is_gated & ~e.is_error)
    natural = _enough(same & ~fixed, e.is_gated & ~fixed)
    upper = float(right[correct].mean()) if correct.any() else 1.0
    lower = float(right[natural].mean()) if natural.any() else 0.0
    rate = float(right[repaired].mean())
    # Where natural errors keep their meaning too, being as good as correct images is enough.
    is_kept = rate >= min((upper + lower) / 2, upper - 0.1)
    return Meaning(rate, upper, lower, is_kept)


def _enough(group: BoolArray, instead: BoolArray) -> BoolArray:
    return group if group.sum() >= MIN_IMAGES else instead


def rate_gaps(
    groups: Mapping[str, tuple[BoolArray, BoolArray]], is_error: BoolArray, least: float
) -> list[Gap]:
    """Compare each group's error rate with its complement's.

    Args:
        groups: name -> (group, complement), masks over the images.
        is_error: (N,).
        least: The gap's lower bound must exceed this for a fault.
    """
    counts = [
        (int((g & is_error).sum()), int(g.sum()), int((r & is_error).sum()), int(r.sum()))
        for g, r in groups.values()
    ]
    if not counts:
        return []
    s1, n1, s2, n2 = np.array(counts).T
    p = holm(fisher_exact(s1, n1, s2, n2))
    low, high = newcombe(s1, n1, s2, n2)
    found = []
    for i, name in enumerate(groups):
        rest = float(s2[i] / max(n2[i], 1))
        gap = float(s1[i] / max(n1[i], 1)) - rest
        is_fault = bool(p[i] <= LEVEL and n1[i] >= MIN_IMAGES and low[i] > least)
        found.append(
            Gap(name, int(n1[i]), int(s1[i]), rest, gap, (float(low[i]), float(high[i])),
                float(p[i]), is_fault)
        )  # fmt: skip
    return found


def class_gaps(e: Evidence, classes: tuple[str, ...]) -> list[Gap]:
    """Each class's error rate against all other classes together."""
    groups = {
        name: (e.labels == k, e.labels != k)
        for k, name in enumerate(classes)
        if (e.labels == k).any()
    }
    return rate_gaps(groups, e.is_error, MIN_SLICE_GAP)


def slice_gaps(e: Evidence, slices: Mapping[str, IntArray]) -> list[Gap]:
    """Each named slice against the other images of its classes, class by class.

    A slice that spans classes is compared within each and the differences are pooled
    (Mantel-Haenszel weights), so that hard classes do not make a slice look bad.

    Args:
        e: Evidence.
        slices: name -> (N,) 1 in the slice, 0 outside, -1 unknown.
    """
    found = []
    for name, member in slices.items():
        strata = []
        for k in np.unique(e.labels[member == 1]):
            inside, outside = (e.labels == k) & (member == 1), (e.labels == k) & (member == 0)
            if inside.any() and outside.any():
                strata.append(
                    (int((inside & e.is_error).sum()), int(inside.sum()),
                     int((outside & e.is_error).sum()), int(outside.sum()))
                )  # fmt: skip
        if strata:
            found.append(_pooled(name, strata))
    adjusted = holm(np.array([g.p_value for g in found]))
    return [
        replace(
            g,
            p_value=float(p),
            is_fault=bool(p <= LEVEL and g.n >= MIN_IMAGES and g.interval[0] > MIN_SLICE_GAP),
        )
        for g, p in zip(found, adjusted, strict=True)
    ]


def _pooled(name: str, strata: list[tuple[int, int, int, int]]) -> Gap:
    s1, n1, s2, n2 = np.array(strata, float).T
    n, n_errors, rest = int(n1.sum()), int(s1.sum()), float(s2.sum() / n2.sum())
    if len(strata) == 1:
        low, high = (float(bound[0]) for bound in newcombe(s1, n1, s2, n2))
        p = float(fisher_exact(int(s1[0]), int(n1[0]), int(s2[0]), int(n2[0])))
        gap = float(s1[0] / n1[0] - s2[0] / n2[0])
        return Gap(name, n, n_errors, rest, gap, (low, high), p)
    weight = n1 * n2 / (n1 + n2)
    gap = float((weight * (s1 / n1 - s2 / n2)).sum() / weight.sum())
    # Half a case in each cell keeps the variance of empty cells from vanishing.
    p1, p2 = (s1 + 0.5) / (n1 + 1), (s2 + 0.5) / (n2 + 1)
    variance = (weight**2 * (p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2)).sum() / weight.sum() ** 2
    se = float(np.sqrt(variance))
    p = float(2 * sps.norm.sf(abs(gap) / se))
    half = 1.959964 * se
    # What the rest of the same classes, mixed as the slice is, would show.
    return Gap(name, n, n_errors, n_errors / n - gap, gap, (gap - half, gap + half), p)


def dead_dimensions(embeddings: FloatArray, weight: FloatArray | None) -> list[int]:
    """Return embedding dimensions that never change although the head listens to them.

    Training drives the weights of a dimension that is always constant towards zero, so a constant
    one with ordinary weights broke after the head was trained.

    Args:
        embeddings: (N, D).
        weight: (K, D) of a linear head; None if the head is not linear or not known.

    Example:
        >>> z = np.c_[np.zeros(50), np.arange(50.0)]
        >>> dead_dimensions(z, np.array([[0.5, 1.0], [-0.5, 0.0]]))
        [0]
    """
    if weight is None:
        return []
    low = embeddings.min(axis=0)
    constant = embeddings.max(axis=0) == low
    # Only differences between rows reach the prediction.
    listens = np.linalg.norm(weight - weight.mean(axis=0), axis=0)
    if constant.all():
        return [int(d) for d in np.flatnonzero(listens > 0)]
    # Sparse features can be silent by chance: ask how likely that is for the least active ones.
    active = np.quantile((embeddings != low).mean(axis=0)[~constant], 0.05)
    if len(low) * (1 - active) ** len(embeddings) > LEVEL:
        return []
    usual = float(np.median(listens[~constant]))
    dead = constant & (listens > 0.25 * usual)
    if (listens[dead] ** 2).sum() < MIN_DEAD_SHARE * (listens**2).sum():
        return []
    return [int(d) for d in np.flatnonzero(dead)]
