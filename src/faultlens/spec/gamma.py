"""How far a specification can be proved: gamma*, the largest scale of a region that has a proof.

Every gamma* reported is one that was proved; the least scale without a proof is reported beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform

from faultlens.arrays import FloatArray, check_array
from faultlens.errors import InputError, ShapeError
from faultlens.spec.region import Readout, Region
from faultlens.spec.support import Doubles, gamma
from faultlens.spec.verify import PROVED, VACUOUS, Verdict

#: Bounds in float32 lie this much further out, relative to their size.
_ROUNDING = 2.0**-22


@dataclass(frozen=True, slots=True, eq=False)
class GammaStar:
    """The largest scale with a proof.

    Attributes:
        gamma: It; None if not even the least scale tried has a proof.
        verdict: PROVED or VACUOUS, at `gamma`.
        fails_at: The least scale tried that has no proof; None if all have one.
        beyond: The verdict there.
    """

    gamma: float | None
    verdict: Verdict | None
    fails_at: float | None
    beyond: Verdict | None


def gamma_star(
    at: Callable[[float], Region],
    decide: Callable[[Region], Verdict],
    *,
    first: float = 1.0,
    most: float = 64.0,
    tolerance: float = 1e-3,
) -> GammaStar:
    """Search the largest scale that is proved, by doubling or halving and then bisection.

    Args:
        at: Nested regions: the region of each scale, such as `regions.Family.at`.
        decide: The verdict over a region. VACUOUS counts as proved.
        first: Scale to begin with; a good guess saves verdicts.
        most: Scale beyond which none is tried; `most * 2**-20` is the least.
        tolerance: Relative width at which bisection ends.

    Raises:
        InputError: Scales that are not positive.

    Example:
        >>> from faultlens.spec.formula import TRUE, Comparison
        >>> from faultlens.spec.regions import axis_box
        >>> from faultlens.spec.verify import verify
        >>> eye, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
        >>> readout = Readout(eye, zero, (eye,), (zero,))
        >>> goal = Comparison(((0, 1.0), (1, -1.0)))
        >>> mean = np.array([2.0, 1.0])
        >>> star = gamma_star(
        ...     lambda g: axis_box(mean - g, mean + g), lambda r: verify(goal, TRUE, r, readout))
        >>> 0.499 < star.gamma < 0.5 <= star.fails_at < 0.501
        True
    """
    if not 0 < first <= most or not tolerance > 0:
        raise InputError(
            f"first must be above 0 and at most {most}, tolerance above 0, "
            f"got {first} and {tolerance}"
        )
    good: tuple[float, Verdict] | None = None
    bad: tuple[float, Verdict] | None = None
    scale, least = first, most * 2.0**-20
    while True:
        verdict = decide(at(scale))
        if verdict.status in (PROVED, VACUOUS):
            good = scale, verdict
        else:
            bad = scale, verdict
        if good is None:
            if scale <= least:
                break
            scale = max(scale / 2, least)
        elif bad is None:
            if scale >= most:
                break
            scale = min(scale * 2, most)
        elif bad[0] <= good[0] * (1 + tolerance):
            break
        else:
            scale = (good[0] + bad[0]) / 2
    return GammaStar(*(good or (None, None)), *(bad or (None, None)))


def pair_gammas(readout: Readout, mean: FloatArray, std: FloatArray) -> Doubles:
    """Return gamma* of `a > b`, without hypotheses, for all pairs over `mean ± gamma std`.

    Args:
        readout: Its concept rows are used.
        mean: (D,) of the box.
        std: (D,) >= 0.

    Returns:
        (C, C) a scale at which `a > b` is proved, rounding included, and next to the largest
        one; negative where there is none, infinite where every scale has a proof.

    Example:
        >>> eye, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
        >>> readout = Readout(eye, zero, (eye,), (zero,))
        >>> pair_gammas(readout, np.array([2.0, 1.0]), np.ones(2))[0, 1].round(4).item()
        0.5
    """
    mean = check_array(mean, "D", name="mean").astype(np.float64)
    std = check_array(std, "D", name="std").astype(np.float64)
    if mean.shape != std.shape or (std < 0).any():
        raise ShapeError(f"std must have {len(mean)} values, none negative; got {std.shape}")
    rows = readout.concept_rows.astype(np.float64)
    values = rows @ mean + readout.concept_offsets
    sizes = np.abs(rows) @ np.abs(mean) + np.abs(readout.concept_offsets)
    spread = squareform(pdist(rows * std, "cityblock"))
    # Rounding of the sums, and of the box's bounds to float32: of the mean and of the spread.
    relative = _ROUNDING + 2 * gamma(2 * len(mean) + 32)
    room = relative * (sizes[:, None] + sizes)
    extra = relative * (np.abs(rows) @ std)
    ahead = values[:, None] - values - room
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = ahead / (spread + extra[:, None] + extra)
    np.fill_diagonal(scale, -np.inf)
    return np.asarray(np.nan_to_num(scale, nan=-np.inf, posinf=np.inf, neginf=-np.inf))
