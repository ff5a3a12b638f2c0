"""The box of one class: the stages that decide all its pairs of concepts. See `pairs`."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from faultlens.arrays import FloatArray, IntArray
from faultlens.errors import InputError
from faultlens.spec.formula import FALSE, TRUE, Comparison, Formula, all_of
from faultlens.spec.region import Readout, Region, Shape
from faultlens.spec.support import Doubles, gamma, reach
from faultlens.spec.verify import PROVED, REFUTED, UNKNOWN, VACUOUS, Verdict, Verifier

#: Meaning of `Sheet.status`; 0 stands on the diagonal.
STATUSES = ("", PROVED, REFUTED, VACUOUS, UNKNOWN)
#: Meaning of `Sheet.stage`.
STAGES = ("", "interval", "degenerate", "anchor", "segment", "dual", "program")
_N_ANCHORS = 32
_N_STEPS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """What is known of every ordered pair of concepts for every class; filled in box by box.

    Attributes:
        status: (K, C, C) index into `STATUSES`.
        stage: (K, C, C) index into `STAGES`: what decided.
        slack: (K, C, C) PROVED: a rigorous lower bound of `a - b`, weighted comparisons of the
            class added. REFUTED: a rigorous lower bound of `b - a` at the witness.
        anchor: (K, C, C) which anchor the witness starts from.
        step: (K, C, C) how far it goes towards the corner, in [0, 1].
        anchors: (n, D) float32 of each class.
        multipliers: (class, a, b) to (K - 1,) where a dual decided.
        others: (class, a, b) to the verdict of `verify`.
        regions: The box of each class.
        readout: What the signals mean.
        is_conditional: Whether `predict(class)` is assumed.
    """

    status: NDArray[np.uint8]
    stage: NDArray[np.uint8]
    slack: Doubles
    anchor: NDArray[np.int16]
    step: Doubles
    anchors: list[FloatArray]
    multipliers: dict[tuple[int, int, int], Doubles]
    others: dict[tuple[int, int, int], Verdict]
    regions: tuple[Region, ...]
    readout: Readout
    is_conditional: bool


def stronger(a: int, b: int) -> Comparison:
    """Return `a > b` for two concepts.

    Example:
        >>> stronger(3, 1).terms
        ((1, -1.0), (3, 1.0))
    """
    return Comparison(((a, 1.0), (b, -1.0)) if a < b else ((b, -1.0), (a, 1.0)))


def predicts(readout: Readout, cls: int) -> Formula:
    """Return `predict(cls)`: its logit strictly above every other."""
    first = len(readout.concept_rows)
    others = [k for k in range(len(readout.head_biases[-1])) if k != cls]
    return all_of(*(stronger(first + cls, first + k) for k in others))


def formulas(sheet: Sheet, cls: int, a: int, b: int) -> tuple[Formula, Formula]:
    """Return goal and hypotheses of one specification."""
    return stronger(a, b), predicts(sheet.readout, cls) if sheet.is_conditional else TRUE


def sides(region: Region) -> tuple[Doubles, Doubles]:
    """Return lower and upper bounds of a region that is one box about zero, else raise."""
    body = region.bodies[0] if region.bodies else None
    is_box = body is not None and body.shape is Shape.BOX and body.basis is None
    if body is None or not is_box or len(region.bodies) > 1 or len(region.offsets):
        raise InputError(f"regions must be boxes along the axes, got {region.name}; use verify")
    if body.lower is None or body.upper is None or body.centre.any():
        raise InputError(f"regions must be boxes about zero, got {region.name}; use axis_box")
    return body.lower.astype(np.float64), body.upper.astype(np.float64)


def margins_of(readout: Readout, cls: int) -> tuple[Doubles, Doubles]:
    """Return `logit(cls) - logit(k)` for the other classes: (K - 1, D) and (K - 1,)."""
    rows = readout.head_weights[-1].astype(np.float64)
    biases = readout.head_biases[-1].astype(np.float64)
    return np.delete(rows[cls] - rows, cls, 0), np.delete(biases[cls] - biases, cls)


class Box:
    """All pairs over the box of one class."""

    def __init__(self, sheet: Sheet, cls: int, deadline: float) -> None:
        self.out, self.cls, self.deadline = sheet, cls, deadline
        readout, region = sheet.readout, sheet.regions[cls]
        self.lower, self.upper = sides(region)
        self.middle, self.half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        self.rows32 = readout.concept_rows
        self.rows = readout.concept_rows.astype(np.float64)
        self.offsets = readout.concept_offsets.astype(np.float64)
        self.margins, self.margin_offsets = margins_of(readout, cls)
        if not sheet.is_conditional:
            self.margins, self.margin_offsets = self.margins[:0], self.margin_offsets[:0]
        # Margins at a corner: of the lower one, plus these for each bound that is the upper one.
        self.climb = np.ascontiguousarray((2 * self.half * self.margins).T)
        self.base = self.margins @ self.lower + self.margin_offsets
        far = reach(region.bodies[0])
        factor = gamma(2 * len(far) + 32)
        self.errors = factor * (np.abs(self.rows) @ far + np.abs(self.offsets)) + 1e-290
        self.margin_errors = (
            factor * (np.abs(self.margins) @ far + np.abs(self.margin_offsets)) * 2 + 1e-290
        )

    def decide(self, samples: FloatArray | None) -> None:
        """Fill in the verdicts of the class."""
        out, cls = self.out, self.cls
        status, stage, slack = out.status[cls], out.stage[cls], out.slack[cls]
        points = self._anchors(samples)
        out.anchors.append(points)
        if not len(points) and not self._is_satisfiable():
            return
        points = out.anchors[-1]
        values = self.rows @ self.middle + self.offsets
        distance = squareform(pdist(self.rows * self.half, "cityblock"))
        errors = self.errors[:, None] + self.errors
        ahead = values[:, None] - values
        least = ahead - distance - errors
        sure = least > 0
        status[sure], stage[sure], slack[sure] = 1, 1, least[sure]
        self._tie(status, stage)
        at_anchors = points @ self.rows.T + self.offsets
        best, which = self._at_anchors(at_anchors)
        out.anchor[cls] = which
        bad = (best > 0) & (status == 0)
        status[bad], stage[bad], slack[bad] = 2, 3, best[bad]
        open_ = status == 0
        np.fill_diagonal(open_, False)
        most = distance - ahead  # of b - a, over the box
        margins = points @ self.margins.T + self.margin_offsets
        for a in np.flatnonzero(open_.any(axis=1)):
            if time.monotonic() > self.deadline:
                break
            others = np.flatnonzero(open_[a])
            row = _Row(int(a), others, most[a, others], at_anchors, margins)
            self._segments(row)
            self._dual(row)
        self._finish(status, stage, slack)

    def _anchors(self, samples: FloatArray | None) -> FloatArray:
        """Return points of the box that the head gives to the class beyond doubt."""
        tried = [self.middle[None]]
        if samples is not None and len(samples):
            tried.append(samples.astype(np.float64))
        if len(self.margins):
            tried += [np.where(self.margins > 0, self.upper, self.lower), self._deepest()[None]]
        points = np.clip(np.concatenate(tried), self.lower, self.upper).astype(np.float32)
        if not len(self.margins):
            return points[:_N_ANCHORS]
        values = points @ self.margins.T + self.margin_offsets - self.margin_errors
        least = values.min(axis=1)
        order = np.argsort(-least, kind="stable")[: int((least > 0).sum())]
        # The deepest first; of the others an even sample.
        last = max(len(order) - 1, 0)
        chosen = np.unique(np.linspace(0, last, _N_ANCHORS).astype(int))[: len(order)]
        return np.asarray(points[order[chosen]])

    def _deepest(self) -> Doubles:
        """Return a point deep inside the class, by subgradient steps on its worst margin."""
        mix = np.full(len(self.margins), 1.0 / len(self.margins))
        total = np.zeros_like(self.middle)
        for i in range(_N_STEPS):
            corner = np.where(mix @ self.margins > 0, self.upper, self.lower)
            total += corner
            margin = self.margins @ (total / (i + 1)) + self.margin_offsets
            mix = np.exp(-8 * (margin - margin.min()) / (np.ptp(margin) + 1e-300))
            mix /= mix.sum()
        return total / _N_STEPS

    def _is_satisfiable(self) -> bool:
        """Ask `verify` for an anchor; without one the class's verdicts are filled in."""
        region, readout = self.out.regions[self.cls], self.out.readout
        given = predicts(readout, self.cls)
        left = max(self.deadline - time.monotonic(), 0.0)
        found = Verifier(region, readout).verify(FALSE, given, timeout_s=left)
        if found.status == REFUTED and found.witness is not None:
            self.out.anchors[-1] = found.witness[None]
            return True
        code = STATUSES.index(VACUOUS if found.status == VACUOUS else UNKNOWN)
        self.out.status[self.cls] = code
        np.fill_diagonal(self.out.status[self.cls], 0)
        for a, b in np.argwhere(~np.eye(len(self.rows), dtype=bool)).tolist():
            self.out.others[self.cls, a, b] = found
        return False

    def _tie(self, status: NDArray[np.uint8], stage: NDArray[np.uint8]) -> None:
        """Refute pairs of concepts with the same row and offset: a tie everywhere."""
        seen: dict[bytes, list[int]] = {}
        both = np.column_stack([self.rows32, self.out.readout.concept_offsets]) + np.float32(0)
        for i, row in enumerate(both):
            seen.setdefault(row.tobytes(), []).append(i)
        for equal in seen.values():
            for a in equal:
                others = [b for b in equal if b != a]
                status[a, others], stage[a, others] = 2, 2

    def _at_anchors(self, values: Doubles) -> tuple[Doubles, NDArray[np.int16]]:
        """Return the greatest rigorous `b - a` at an anchor, and which anchor: (C, C) each."""
        low, high = values - self.errors, values + self.errors
        best = low[0] - high[0][:, None]
        which = np.zeros(best.shape, np.int16)
        for i in range(1, len(values)):
            here = low[i] - high[i][:, None]
            better = here > best
            best[better] = here[better]
            which[better] = i
        return best, which

    def _segments(self, row: "_Row", weights: Doubles | None = None) -> None:
        """Refute pairs of one concept on the way from an anchor to the best corner."""
        if not len(row.others):
            return
        if weights is None:
            is_up = self.rows32[row.others] > self.rows32[row.a]
            most = row.most
        else:
            pull = self.rows[row.others] - self.rows[row.a] + weights @ self.margins
            is_up = pull > 0
            most = self._difference(row, is_up)
        margins = is_up.astype(np.float64) @ self.climb + self.base
        room = 2 * (self.errors[row.others] + self.errors[row.a])
        done = np.zeros(len(row.others), bool)
        for anchor in (np.zeros(len(done), int), self.out.anchor[self.cls, row.a, row.others]):
            todo = np.flatnonzero(~done)
            if not len(todo):
                break
            at, b = anchor[todo], row.others[todo]
            first = row.values[at, b] - row.values[at, row.a]
            step, gain = self._step(first, most[todo], row.margins[at], margins[todo], room[todo])
            good = gain > 0
            done[todo] = good
            x = None if weights is None else weights[todo[good]]
            self._refute((row.a, b[good]), at[good], step[good], gain[good], x)
        row.keep(~done)

    def _difference(self, row: "_Row", is_up: NDArray[np.bool_]) -> Doubles:
        """Return `b - a` at corners (n, D)."""
        pull = self.rows[row.others] - self.rows[row.a]
        base = pull @ self.lower + self.offsets[row.others] - self.offsets[row.a]
        return np.asarray(base + np.einsum("nd,nd,d->n", pull, is_up, 2 * self.half))

    def _step(
        self, first: Doubles, most: Doubles, inside: Doubles, beyond: Doubles, room: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Return a step (n,) between violating `a > b` and leaving the class, and the violation.

        Args:
            first: (n,) `b - a` at the anchors.
            most: (n,) at the corners.
            inside: (n, K - 1) margins at the anchors.
            beyond: (n, K - 1) at the corners.
            room: (n,) rounding errors of `b - a`.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            need = np.clip((room - first) / (most - first), 0.0, 1.0)
            leaves = np.where(beyond < inside, inside / (inside - beyond), np.inf)
        last = np.minimum(leaves.min(axis=1, initial=np.inf), 1.0)
        step = np.where(last >= 1.0, 1.0, (need + last) / 2)
        gain = (1 - step) * first + step * most - room
        left = (1 - step)[:, None] * inside + step[:, None] * beyond - 2 * self.margin_errors
        is_bad = (left <= 0).any(axis=1) | (most <= first)
        return step, np.where(is_bad, -np.inf, gain)

    def _refute(
        self,
        pairs: tuple[int, IntArray],
        anchor: IntArray,
        step: Doubles,
        gain: Doubles,
        weights: Doubles | None,
    ) -> None:
        out, cls, (a, others) = self.out, self.cls, pairs
        out.status[cls, a, others], out.stage[cls, a, others] = 2, 4
        out.slack[cls, a, others] = gain
        out.anchor[cls, a, others], out.step[cls, a, others] = anchor, step
        if weights is not None:
            for b, x in zip(others.tolist(), weights, strict=True):
                out.multipliers[cls, a, b] = x.copy()

    def _dual(self, row: "_Row") -> None:
        """Prove what is left of one concept with multipliers, or refute it at their corners."""
        out, cls = self.out, self.cls
        x = np.zeros((len(row.others), len(self.margins)))
        for _ in range(_N_STEPS if len(self.margins) else 0):
            if not len(row.others):
                return
            pull = self.rows[row.others] - self.rows[row.a] + x @ self.margins
            offsets = self.offsets[row.others] - self.offsets[row.a] + x @ self.margin_offsets
            value = offsets + pull @ self.middle + np.abs(pull) @ self.half
            room = 2 * (self.errors[row.others] + self.errors[row.a] + x @ self.margin_errors)
            proved = value + room < 0
            chosen = row.others[proved]
            out.status[cls, row.a, chosen], out.stage[cls, row.a, chosen] = 1, 5
            out.slack[cls, row.a, chosen] = -(value + room)[proved]
            for b, weights in zip(chosen.tolist(), x[proved], strict=True):
                out.multipliers[cls, row.a, b] = weights.copy()
            x, pull, value = x[~proved], pull[~proved], value[~proved]
            row.keep(~proved)
            n = len(row.others)
            before = row.others
            self._segments(row, x)
            if len(row.others) < n:
                stay = np.isin(before, row.others)
                x, pull, value = x[stay], pull[stay], value[stay]
            slope = (pull > 0).astype(np.float64) @ self.climb + self.base
            square = (slope * slope).sum(axis=1) + 1e-300
            x = np.maximum(x - (1.01 * np.maximum(value, 0.0) / square)[:, None] * slope, 0.0)

    def _finish(self, status: NDArray[np.uint8], stage: NDArray[np.uint8], slack: Doubles) -> None:
        """Give what is left to `verify`."""
        left = status == 0
        np.fill_diagonal(left, False)
        if not left.any():
            return
        out = self.out
        verifier = Verifier(out.regions[self.cls], out.readout)
        for a, b in np.argwhere(left).tolist():
            goal, given = formulas(out, self.cls, a, b)
            left_s = max(self.deadline - time.monotonic(), 0.0)
            found = verifier.verify(goal, given, timeout_s=left_s)
            out.others[self.cls, a, b] = found
            status[a, b], stage[a, b] = STATUSES.index(found.status), 6
            slack[a, b] = found.slack or 0.0


class _Row:
    """The open pairs (a, b) of one concept a."""

    def __init__(
        self, a: int, others: IntArray, most: Doubles, values: Doubles, margins: Doubles
    ) -> None:
        self.a, self.others, self.most = a, others, most
        self.values, self.margins = values, margins

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the pairs that are decided."""
        self.others, self.most = self.others[which], self.most[which]
