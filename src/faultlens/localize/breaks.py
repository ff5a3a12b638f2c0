"""Breaks: where inside an encoder is the first stage that is off?

A fault shows at its own stage and at all later ones, so the first stage that is off is the one.
Off is a stage, against a healthy twin, whose channels or numbers differ from the twin's. Without
one, neighbours are compared: training keeps the channels of a stage alike in size, and what is
known of labels and concepts grows with depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats as sps

from faultlens.arrays import BoolArray
from faultlens.errors import InputError
from faultlens.localize.stages import Stage
from faultlens.stats import holm, mcnemar_exact, paired_gain

LEVEL = 0.05
#: A break must cost the network this much of what its stages could tell (lower 95 % bound).
MIN_LOSS = 0.01
#: Unevenness from a stage on, against before it: in healthy networks it rises by up to 0.1, or by
#: 0.2 where that is a factor of 1.7; in broken ones by 0.15 and a factor of 2 in nearly all cases.
MIN_UNEVEN, MIN_UNEVEN_RATIO = 0.1, 1.8
#: The same of the first watched stage, which has no neighbour before it: healthy below 0.3.
MIN_FIRST_UNEVEN = 0.32
#: Share of dead channels above that of all earlier stages; healthy below 0.06.
MIN_DEAD = 0.2
#: Change of scale from one stage to the next, as a factor; healthy below 2.5.
MIN_SCALE = 4.5
#: Drop of the labels' probe and of R² that counts (lower 95 % bound).
MIN_DROP = 0.03
#: Against a twin: channel sizes of twins trained apart differ by up to 0.17 (root mean square
#: of logarithms), and the probe of one stage by up to 0.11.
MIN_DEVIATION, MIN_TWIN_DROP = 0.2, 0.1
#: A twin with the same weights agrees to rounding.
_SAME = 1e-3

_TINY = 1e-30
_NOTHING = float("nan")

Sign = Literal["twin", "channels", "dead", "scale", "information", "map"]


@dataclass(frozen=True, slots=True)
class Break:
    """The first stage that is off.

    Attributes:
        index: Its place among the watched stages.
        sign: How it shows: `twin`, against a healthy one; else `channels` of uneven size, `dead`
            ones, another `scale`, lost `information` about the labels, or a worse `map`.
        value: The number behind the sign at this stage.
        usual: The same number where all is well: at the stage before, or at the twin's.
        loss: Accuracy that the network loses against the best probe of any stage.
        interval: Its 95 % interval.
        p_value: Of the loss (McNemar); of the drop, after Holm over the stages, where the sign
            is `information` or `map`.
    """

    index: int
    sign: Sign
    value: float
    usual: float
    loss: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """All stages of one encoder, in order.

    Attributes:
        stages: What each tells.
        accuracy: Of the classifier itself on the same images.
        found: The break, if there is one.
        n: Images.
    """

    stages: tuple[Stage, ...]
    accuracy: float
    found: Break | None
    n: int


def find_break(
    stages: Sequence[Stage], is_right: BoolArray, reference: Sequence[Stage] | None = None
) -> Stages:
    """Name the first stage that is off, where the network fails for it.

    Nothing is named unless the classifier is right on fewer images than a linear probe of its
    best stage (or of the twin's): a network that loses nothing is not broken.

    Args:
        stages: From `measure_stages`, in the order of the encoder.
        is_right: (n,) images of `sample(N)` that the classifier itself gets right.
        reference: The same stages of a healthy twin on the same images.

    Raises:
        InputError: The reference has other stages or images.
    """
    best = max([*stages, *(reference or ())], key=lambda s: s.accuracy).is_right
    won, lost = _changed(best, is_right)
    loss, low, high = paired_gain(won, lost, len(is_right))
    p = mcnemar_exact(won, lost)
    found = None
    if low > MIN_LOSS and p <= LEVEL:
        hit = _against(stages, reference) if reference is not None else _first_off(stages)
        if hit is not None:
            p = p if hit.p_value is None else hit.p_value
            found = Break(hit.index, hit.sign, hit.value, hit.usual, loss, (low, high), p)
    return Stages(tuple(stages), float(is_right.mean()), found, len(is_right))


@dataclass(frozen=True, slots=True)
class _Hit:
    """Where a stage is off, how, and a p-value where that sign has one."""

    index: int
    sign: Sign
    value: float
    usual: float
    p_value: float | None = None


def _first_off(stages: Sequence[Stage]) -> _Hit | None:
    """Return the first stage that differs from those before it."""
    # A fault stays visible, so what counts is how even the evenest later stage is.
    uneven = np.minimum.accumulate([s.unevenness for s in stages][::-1])[::-1].tolist()
    drops = _drops(stages)
    hits = (
        _by_channels(i, stages, uneven) or _by_size(i, stages) or drops.get(i)
        for i in range(len(stages))
    )
    return next((hit for hit in hits if hit is not None), None)


def _by_channels(i: int, stages: Sequence[Stage], uneven: Sequence[float]) -> _Hit | None:
    value = stages[i].unevenness
    if i == 0:
        return _Hit(0, "channels", value, _NOTHING) if uneven[0] >= MIN_FIRST_UNEVEN else None
    is_more = uneven[i] - uneven[i - 1] >= MIN_UNEVEN
    if is_more and uneven[i] >= MIN_UNEVEN_RATIO * uneven[i - 1]:
        return _Hit(i, "channels", value, stages[i - 1].unevenness)
    return None


def _by_size(i: int, stages: Sequence[Stage]) -> _Hit | None:
    stage = stages[i]
    dead = max((s.dead for s in stages[:i]), default=0.0)
    if stage.dead - dead >= MIN_DEAD:
        return _Hit(i, "dead", stage.dead, dead)
    scales = [np.log(max(s.scale, _TINY)) for s in stages[max(i - 1, 0) : i + 1]]
    if abs(scales[-1] - scales[0]) >= np.log(MIN_SCALE):
        return _Hit(i, "scale", stage.scale, stages[i - 1].scale)
    return None


def _drops(stages: Sequence[Stage]) -> dict[int, _Hit]:
    """Stages where information clearly fell below that of the best one before.

    Where the probe of the labels does not clearly rise, a fall of R² counts as well.
    """
    found = [_drop(i, stages) for i in range(1, len(stages))]
    adjusted = holm(np.array([hit.p_value for hit, _ in found], float))
    return {
        hit.index: replace(hit, p_value=float(p))
        for (hit, is_large), p in zip(found, adjusted, strict=True)
        if is_large and p <= LEVEL
    }


def _drop(i: int, stages: Sequence[Stage]) -> tuple[_Hit, bool]:
    stage, best = stages[i], max(stages[:i], key=lambda s: s.accuracy)
    lost, won = _changed(best.is_right, stage.is_right)
    n = len(stage.is_right)
    is_large = paired_gain(lost, won, n)[1] > MIN_DROP
    if is_large or paired_gain(won, lost, n)[1] > 0:
        p = mcnemar_exact(lost, won)
        return _Hit(i, "information", stage.accuracy, best.accuracy, p), is_large
    richest = max(stages[:i], key=lambda s: s.r2)
    worse = stage.error - richest.error
    se = max(float(worse.std(ddof=1)) / np.sqrt(n), _TINY)
    p = float(sps.norm.sf(worse.mean() / se))
    is_large = bool(worse.mean() - 1.96 * se > MIN_DROP)
    return _Hit(i, "map", stage.r2, richest.r2, p), is_large


def _changed(before: BoolArray, after: BoolArray) -> tuple[int, int]:
    """Images that only the first and only the second gets right."""
    return int((before & ~after).sum()), int((after & ~before).sum())


def _against(stages: Sequence[Stage], reference: Sequence[Stage]) -> _Hit | None:
    """Return the first stage that differs from a healthy twin's."""
    if [s.name for s in stages] != [s.name for s in reference] or len(
        {len(s.is_right) for s in (*stages, *reference)}
    ) > 1:
        raise InputError(
            f"reference must have the stages {[s.name for s in stages]} on the same images, got "
            f"{[s.name for s in reference]}; measure both on one set"
        )
    deviations = [deviation(s, r) for s, r in zip(stages, reference, strict=True)]
    # Equal weights up to some stage leave no room for chance.
    is_copy = min(deviations) < _SAME
    for i, (stage, twin) in enumerate(zip(stages, reference, strict=True)):
        if deviations[i] >= (_SAME if is_copy else MIN_DEVIATION):
            return _Hit(i, "twin", deviations[i], 0.0)
        lost, won = _changed(twin.is_right, stage.is_right)
        if not is_copy and paired_gain(lost, won, len(stage.is_right))[1] > MIN_TWIN_DROP:
            p = min(1.0, mcnemar_exact(lost, won) * len(stages))
            return _Hit(i, "information", stage.accuracy, twin.accuracy, p)
    return None


def deviation(stage: Stage, twin: Stage) -> float:
    """How far the channels' sizes lie apart: root mean square of logarithms, each sorted.

    Sorting makes twins comparable that were trained apart, where no channel matches another.

    Example:
        >>> def of(sizes):
        ...     one = np.ones(4, bool)
        ...     return Stage("s", 3, 0.0, 0.5, one, np.ones(4), np.array(sizes), 0.0)
        >>> deviation(of([1.0, 2.0, 3.0]), of([1.0, 2.0, 3.0]))
        0.0
    """
    at = np.linspace(0, 1, min(len(stage.sizes), len(twin.sizes)))
    floor = 1e-3 * max(float(np.median(twin.sizes)), 1e-30)
    a, b = (np.log(np.maximum(np.quantile(s.sizes, at), floor)) for s in (stage, twin))
    return float(np.sqrt(((a - b) ** 2).mean()))
