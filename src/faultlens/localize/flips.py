"""Label flips: was a class trained with a part of its images under another class's name?

A network trained with cross-entropy tells how often it was told so: where a share r of class a was
labelled b, it gives b a probability of about r on *every* image of a. Confusable classes differ:
there some images are doubtful and most are not. So the floor is read, the probability of b that
nine in ten images of a exceed, long before the flips cost a single error.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy import stats as sps

from faultlens.arrays import BoolArray, FloatArray, IntArray

#: The floor is this quantile of the probabilities.
QUANTILE = 0.10
#: Floors below this (lower 95 % bound) are what sound networks show.
MIN_FLOOR = 0.015
#: The floor exceeds that of the class's next other class so many times: a head that knows nothing
#: of a class spreads it over several.
MIN_RATIO = 4.0
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Flip:
    """Labels of one class that seem to have been given to another in training.

    Attributes:
        label: Class index of the truth.
        given: Class index that its images were given.
        rate: Estimated share: the mean probability of `given` over the images of `label`.
        interval: 95 % interval of the mean.
        floor: Probability of `given` that nine in ten images exceed.
        floor_low: Its lower 95 % bound.
        next_floor: The largest floor among the other classes.
        probability: (n,) probability of `given` for the images of `label`.
        images: (N,) images of `label`.
        errors: (N,) images of `label` that are called `given`.
    """

    label: int
    given: int
    rate: float
    interval: tuple[float, float]
    floor: float
    floor_low: float
    next_floor: float
    probability: FloatArray
    images: BoolArray
    errors: BoolArray


def flips(logits: FloatArray, labels: IntArray) -> list[Flip]:
    """Find pairs of classes between which training labels were flipped.

    Args:
        logits: (N, K) of the classifier as it is shipped.
        labels: (N,) truth.

    Returns:
        Largest floor first; none where a class has fewer than 40 images, which give no bound.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> p = np.eye(3)[y] * 0.98 + 0.01
        >>> p[y == 0] = [0.78, 0.01, 0.21]  # a fifth of class 0 was labelled 2
        >>> [(f.label, f.given, round(f.rate, 2)) for f in flips(np.log(p), y)]
        [(0, 2, 0.21)]
    """
    p = special.softmax(logits.astype(np.float64), axis=1)
    predictions = logits.argmax(axis=1)
    found = []
    for a in np.unique(labels):
        images = labels == a
        rank = _rank(int(images.sum()))
        if rank is None or logits.shape[1] < 3:
            continue
        ordered = np.sort(p[images], axis=0)
        floors = ordered[int(QUANTILE * len(ordered))]
        floors[a] = -1.0
        b, second = (int(i) for i in np.argsort(-floors)[:2])
        low = float(ordered[rank, b])
        if low < MIN_FLOOR or floors[b] < MIN_RATIO * floors[second]:
            continue
        given = p[images, b]
        half = 1.96 * float(given.std(ddof=1)) / np.sqrt(len(given))
        rate = float(given.mean())
        found.append(
            Flip(
                label=int(a),
                given=b,
                rate=rate,
                interval=(max(rate - half, 0.0), min(rate + half, 1.0)),
                floor=float(floors[b]),
                floor_low=low,
                next_floor=float(floors[second]),
                probability=given,
                images=images,
                errors=images & (predictions == b),
            )
        )
    return sorted(found, key=lambda f: -f.floor)


def _rank(n: int) -> int | None:
    """Place of the order statistic that is below the quantile with 95 % certainty; None if none.

    References:
        Distribution-free bounds of quantiles (Hahn and Meeker, Statistical Intervals, 5.2.3).
    """
    rank = int(sps.binom.ppf(_LEVEL, n, QUANTILE)) - 1
    return rank if rank >= 0 else None
