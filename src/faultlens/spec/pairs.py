"""All specifications `predict(class) => a > b` over one box a class, at once.

No pair needs a program as a rule. Over a box the least difference of two strengths has a closed
form, and all of them are one weighted L1 distance between concept rows. What that leaves open is
refuted at anchors (points of the box that the head gives to the class), on the segment from an
anchor to the corner that favours `b`, or proved with multipliers on the class's own comparisons,
found by subgradient steps for a whole batch. The rest goes to `verify`, one by one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.errors import InputError
from faultlens.spec import exact
from faultlens.spec.boxes import STAGES, STATUSES, Box, Sheet, formulas, margins_of, sides
from faultlens.spec.formula import Formula
from faultlens.spec.proof import Leaf
from faultlens.spec.region import Readout, Region
from faultlens.spec.support import Doubles, check_readout, check_region
from faultlens.spec.verify import PROVED, REFUTED, SYNTHETIC, Verdict, Verifier


@dataclass(frozen=True, slots=True, eq=False)
class PairVerdicts(Sheet):
    """Verdicts on every ordered pair of concepts for every class.

    Attributes:
        seconds: Of wall time.
    """

    seconds: float = 0.0

    def counts(self) -> dict[str, int]:
        """Return how many pairs have each status."""
        counts = np.bincount(self.status.ravel(), minlength=len(STATUSES))
        return {name: int(n) for name, n in zip(STATUSES, counts, strict=True) if name}

    def formulas(self, cls: int, a: int, b: int) -> tuple[Formula, Formula]:
        """Return goal and hypotheses of one specification."""
        return formulas(self, cls, a, b)

    def verdict(self, cls: int, a: int, b: int) -> Verdict:
        """Return the whole verdict on one pair, with proof or witness.

        The witness is re-evaluated exactly. One that float32 and float64 are too coarse for is
        sought anew by `verify`.
        """
        key = (cls, a, b)
        status = STATUSES[self.status[key]]
        if key in self.others:
            return self.others[key]
        if status == PROVED:
            n = len(self.readout.head_biases[-1]) - 1 if self.is_conditional else 0
            weights = self.multipliers.get(key, np.zeros(0))
            pairs = tuple((int(i), float(weights[i])) for i in np.flatnonzero(weights))
            return Verdict(
                PROVED, slack=float(self.slack[key]), proof=Leaf((*pairs, (n, 1.0))), n_cases=1
            )
        if status == REFUTED:
            return self._refuted(key)
        return Verdict(status, n_cases=1)

    def _refuted(self, key: tuple[int, int, int]) -> Verdict:
        cls, a, b = key
        region = self.regions[cls]
        goal, given = self.formulas(*key)
        weights = _pull(self.readout, cls, a, b, self.multipliers.get(key))
        lower, upper = sides(region)
        start = self.anchors[cls][self.anchor[key]].astype(np.float64)
        corner = np.where(weights > 0, upper, lower)
        point = np.clip(start + self.step[key] * (corner - start), lower, upper)
        for kind in (np.float32, np.float64):
            witness = exact.Witness(point.astype(kind))
            if exact.shows(goal, given, region, self.readout, witness):
                reason = "degenerate" if STAGES[self.stage[key]] == "degenerate" else ""
                return Verdict(
                    REFUTED, reason, float(self.slack[key]), witness=witness.point,
                    evidence=witness, witness_kind=SYNTHETIC, n_cases=1,
                )  # fmt: skip
        return Verifier(region, self.readout).verify(goal, given)


def verify_pairs(
    readout: Readout,
    regions: Sequence[Region],
    *,
    is_conditional: bool = True,
    samples: Sequence[FloatArray] | None = None,
    timeout_s: float = 60.0,
) -> PairVerdicts:
    """Decide `predict(class) => a > b` for all ordered pairs of concepts and all classes.

    Args:
        readout: With an affine head.
        regions: One box along the axes for each class.
        is_conditional: Whether `predict(class)` is assumed.
        samples: For each class (n, D) embeddings; clipped to the box they serve as anchors.
        timeout_s: What is not decided by then is UNKNOWN.

    Raises:
        ShapeError: NaN, infinity or shapes that do not fit.
        InputError: Not one box a class, or a head with hidden layers.
    """
    start = time.monotonic()
    n_classes, n_concepts = len(readout.head_biases[-1]), len(readout.concept_rows)
    if len(readout.head_weights) > 1 or len(regions) != n_classes:
        raise InputError(
            f"regions must be {n_classes} boxes for an affine head, got {len(regions)} for "
            f"{len(readout.head_weights)} layers; use verify for anything else"
        )
    for region in regions:
        sides(region)
        check_region(region)
        check_readout(readout, len(region.bodies[0].centre))
    shape = (n_classes, n_concepts, n_concepts)
    verdicts = PairVerdicts(
        np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape),
        np.zeros(shape, np.int16), np.zeros(shape), [], {}, {}, tuple(regions), readout,
        is_conditional,
    )  # fmt: skip
    for cls in range(n_classes):
        given = None if samples is None else samples[cls]
        Box(verdicts, cls, start + timeout_s).decide(given)
    object.__setattr__(verdicts, "seconds", time.monotonic() - start)
    return verdicts


def _pull(readout: Readout, cls: int, a: int, b: int, weights: Doubles | None) -> Doubles:
    """Return the direction `b - a` plus weighted margins of a class's logit: (D,)."""
    rows = readout.concept_rows.astype(np.float64)
    total = rows[b] - rows[a]
    if weights is not None:
        total = total + weights @ margins_of(readout, cls)[0]
    return np.asarray(total)
