"""Lazy search for a point of a region where a formula holds, or for a proof that there is none.

A branch asks one linear program for a point that obeys all its comparisons. Only a choice that
this point violates is split. Comparisons whose interval over the region has one sign close a
branch, or settle a choice, without any program.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.spec import exact
from faultlens.spec.bounds import Total, largest
from faultlens.spec.branch import Branch
from faultlens.spec.exact import Witness
from faultlens.spec.formula import Formula, comparisons
from faultlens.spec.interval import Truths, margins
from faultlens.spec.linear import Solution
from faultlens.spec.proof import Leaf, Proof, Split
from faultlens.spec.region import Shape
from faultlens.spec.setting import Setting, stack, surely_inside, witness_at
from faultlens.spec.support import Doubles, Rows, gamma

#: Points that lie this far inside every comparison, in error bounds, need no new program.
_SAFE = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a search ended with: a proof, a witness, or a reason why neither.

    Attributes:
        proof: That the formula holds nowhere.
        witness: A point where it holds, re-evaluated with rigorous errors or exactly.
        reason: `timeout`, `boundary`, `unsupported: …`; empty where the search succeeded.
        slack: The least amount by which the leaves, of multipliers that sum to one, stay below
            zero; or the witness's margin.
        n_cases: Branches looked at.
    """

    proof: Proof | None = None
    witness: Witness | None = None
    reason: str = ""
    slack: float | None = None
    n_cases: int = 0


class _Found(Exception):
    """Ends a search: a witness was found."""


class _Late(Exception):
    """Ends a search: the time is over."""


class Unsure(Exception):
    """Ends a search: nothing can tell on which side of zero a branch is."""


class Search:
    """One search for a point where `formula` holds.

    Args:
        setting: Region and readout.
        formula: In negation normal form.
        deadline: On the clock of `time.monotonic`.
    """

    def __init__(self, setting: Setting, formula: Formula, deadline: float) -> None:
        self.setting = setting
        self.formula = formula
        self.deadline = deadline
        occurrences = list(comparisons(formula))
        self.leaves = list(dict.fromkeys(occurrences))
        setting.forget()
        self.keys = setting.register(self.leaves)
        number = {leaf: i for i, leaf in enumerate(self.leaves)}
        # By identity: hashing a comparison each time it is met would take longer than all else.
        self.local = {id(leaf): number[leaf] for leaf in occurrences}
        self.rows = setting.rows(self.keys)
        intervals = map(setting.interval, self.keys)
        self.truths = Truths(dict(zip(self.leaves, intervals, strict=True)))
        self.witness: Witness | None = None
        self.margin = 0.0
        self.slack = np.inf
        self.n_cases = 0
        self._errors = gamma(setting.frames[0].space.n_terms + 4) * self.rows.sizes + 1e-290

    def run(self, points: Doubles | None = None) -> Outcome:
        """Search; points (n, R) in the first body's coordinates are tried at once."""
        try:
            if self.truths.of(self.formula) is not False:
                self._try_points(points)
            proof = self._visit(Branch().asserting(self.formula), None, ())
        except _Found:
            return Outcome(None, self.witness, "", self.margin, self.n_cases)
        except _Late:
            return Outcome(reason="timeout", n_cases=self.n_cases)
        except Unsure as error:
            return Outcome(reason=str(error), n_cases=self.n_cases)
        except RecursionError:
            reason = "unsupported: the formula has too many cases in a row"
            return Outcome(reason=reason, n_cases=self.n_cases)
        return Outcome(proof, None, "", float(self.slack), self.n_cases)

    def _try_points(self, points: Doubles | None) -> None:
        """Try given points first, then the middle and the corners that favour one comparison."""
        space = self.setting.frames[0].space
        if points is not None and len(points):
            self.try_all(self.setting.complete(points))
        tried = space.middle()[None]
        if space.body.shape is Shape.BOX:
            corners = np.where(self.rows.weights > 0, space.upper, space.lower)
            tried = np.concatenate([tried, corners])
        self.try_all(self.setting.complete(tried))

    def try_all(self, points: Doubles) -> None:
        """End the search if the formula holds, beyond doubt, at one of the points (n, R)."""
        values = points @ self.rows.weights.T + self.rows.offsets
        sure = margins(self.formula, self.local, (values - self._errors).T)
        inside = self._in_halfspaces(points)
        for i in np.argsort(-np.where(inside, sure, -np.inf))[:2]:
            if inside[i] and sure[i] > 0:
                self._confirm(points[i])

    def _in_halfspaces(self, points: Doubles) -> FloatArray:
        halves = self.setting.frames[0].halfspaces
        return np.asarray((points @ halves.weights.T + halves.offsets >= 0).all(axis=1))

    def _confirm(self, u: Doubles) -> None:
        """End the search if the point, rounded to what a witness can hold, is beyond doubt."""
        for kind in (np.float32, np.float64):
            witness = witness_at(self.setting, u, kind)
            if self._is_sure(witness) or self._is_exact(witness):
                self.witness = witness
                raise _Found

    def _is_sure(self, witness: Witness) -> bool:
        """Whether floats alone show that the formula holds at a point of the region."""
        frame = self.setting.frames[0]
        if len(self.setting.frames) > 1 or self.setting.n_hidden:
            return False
        u = witness.point.astype(np.float64)
        if not surely_inside(frame.space, u):
            return False
        halves = frame.halfspaces
        room = gamma(frame.space.n_terms + 4) * halves.sizes
        if not (halves.weights @ u + halves.offsets >= room).all():
            return False
        values = self.rows.weights @ u + self.rows.offsets - self._errors
        self.margin = float(margins(self.formula, self.local, values[:, None])[0])
        return self.margin > 0

    def _is_exact(self, witness: Witness) -> bool:
        region, readout = self.setting.region, self.setting.readout
        if not exact.contains(region, witness):
            return False
        reading = exact.Reading(readout, exact.embedding(region, witness))
        if not reading.holds(self.formula):
            return False
        values = np.array([float(reading.value(leaf)) for leaf in self.leaves]).reshape(-1, 1)
        self.margin = max(float(margins(self.formula, self.local, values)[0]), 0.0)
        return True

    def _visit(self, branch: Branch, hint: Doubles | None, phases: tuple[int, ...]) -> Proof:
        """Return a proof that a branch holds nowhere.

        Args:
            branch: What was asserted.
            hint: A point that obeyed the branch above.
            phases: Hidden units that were split already.
        """
        self.n_cases += 1
        if branch.is_closed:
            return Leaf()
        if time.monotonic() > self.deadline:
            raise _Late
        n_fixed = self.setting.n_fixed
        keys = self.setting.register(branch.comparisons)
        for place, key in enumerate(keys):
            upper = self.setting.interval(key)[1]
            if upper < 0:
                self.slack = min(self.slack, -upper)
                return Leaf(((n_fixed + place, 1.0),), (), self.setting.closing_body(key))
        forced = self._forced(branch)
        if forced is not None:
            return self._split(branch, forced, hint, phases)
        rows = self._asserted(branch, keys)
        solution = None
        if hint is None or not self._obeys(rows, hint):
            solution = self._solve(keys, rows)
            if solution is not None and (leaf := self._close(branch, keys, rows, solution)):
                return leaf
            hint = solution.u if solution is not None else self.setting.frames[0].space.middle()
        violated = self._violated(branch, hint)
        if violated is not None:
            return self._split(branch, violated, hint, phases)
        return self._end(branch, hint, phases)

    def _end(self, branch: Branch, hint: Doubles, phases: tuple[int, ...]) -> Proof:
        """Nothing is left to split: the point is a witness, or the branch cannot be decided."""
        self._confirm(hint)
        raise Unsure("boundary")

    def _asserted(self, branch: Branch, keys: Sequence[int]) -> Rows:
        """Return hidden units' comparisons, the branch's and the region's half-spaces."""
        frame = self.setting.frames[0]
        return stack([frame.fixed, self.setting.rows(keys), frame.halfspaces], frame)

    def _obeys(self, rows: Rows, u: Doubles) -> bool:
        room = _SAFE * gamma(self.setting.frames[0].space.n_terms + 4) * rows.sizes
        return bool((rows.weights @ u + rows.offsets > room).all())

    def _solve(self, keys: Sequence[int], rows: Rows) -> Solution | None:
        if not len(rows.offsets):
            return None
        setting = self.setting
        fixed, halves = setting.n_fixed, len(setting.region.offsets)
        # Half-spaces stay from program to program, as the fixed rows do: they come first.
        order = np.concatenate(
            [np.arange(fixed), np.arange(halves) + fixed + len(keys), np.arange(len(keys)) + fixed]
        ).astype(int)
        numbers = [*range(-1, -1 - fixed - halves, -1), *keys]
        hard = np.array([setting.is_hard(number) for number in numbers], bool)
        solution = setting.program.solve(numbers, rows.take(order), self.deadline, hard)
        if solution is None:
            raise _Late
        multipliers = np.empty_like(solution.multipliers)
        multipliers[order] = solution.multipliers
        return Solution(solution.value, multipliers, solution.u)

    def _close(
        self, branch: Branch, keys: Sequence[int], rows: Rows, solution: Solution
    ) -> Leaf | None:
        """Return the leaf that the multipliers make, if it holds beyond doubt."""
        x = solution.multipliers
        space = self.setting.frames[0].space
        if solution.value > 1e-6 or not x.any():
            return None
        x = np.where(x < 1e-12 * x.max(), 0.0, x) / x.sum()
        total = Rows((x @ rows.weights)[None], (x @ rows.offsets)[None], (x @ rows.sizes)[None])
        bound = float(space.bound(total, len(x))[0])
        n = self.setting.n_fixed + len(keys)
        leaf = Leaf(_pairs(x[:n]), _pairs(x[n:]))
        room = 2 * gamma(space.n_terms + len(x)) * float(total.sizes[0]) + 1e-12
        if bound < 0 or (bound <= room and self._closes_exactly(branch, leaf)):
            self.slack = min(self.slack, max(-bound, 0.0))
            return leaf
        return None

    def _closes_exactly(self, branch: Branch, leaf: Leaf) -> bool:
        total, setting = Total(), self.setting
        is_strict = False
        for place, weight in leaf.multipliers:
            if place < setting.n_fixed:
                total.add_unit(place, Fraction(weight), setting.region, setting.readout)
                continue
            comparison = branch.comparisons[place - setting.n_fixed]
            total.add(comparison, Fraction(weight))
            is_strict |= comparison.is_strict
        for place, weight in leaf.halfspaces:
            total.halfspaces[place] += Fraction(weight)
        bound = largest(total, setting.region, 0, setting.readout)
        return bound < 0 or (bound == 0 and is_strict)

    def _split(
        self, branch: Branch, place: int, hint: Doubles | None, phases: tuple[int, ...]
    ) -> Proof:
        first, second = branch.split(place)
        then = self._visit(first, hint, phases)
        return Split(place, then, self._visit(second, hint, phases))

    def _forced(self, branch: Branch) -> int | None:
        """Return a choice of which no part that may hold can be spared."""
        for place, choice in enumerate(branch.choices):
            if choice is not None and self.truths.of(choice) is not True:
                alive = sum(self.truths.of(part) is not False for part in choice.parts)
                if alive <= choice.n:
                    return place
        return None

    def _violated(self, branch: Branch, u: Doubles) -> int | None:
        """Return the choice with the fewest open parts among those that a point violates."""
        values = (self.rows.weights @ u + self.rows.offsets)[:, None]
        best, fewest = None, np.inf
        for place, choice in enumerate(branch.choices):
            if choice is None or self.truths.of(choice) is True:
                continue
            if margins(choice, self.local, values)[0] <= 0:
                alive = sum(self.truths.of(part) is not False for part in choice.parts)
                if alive - choice.n < fewest:
                    best, fewest = place, alive - choice.n
        return best


def _pairs(x: Doubles) -> tuple[tuple[int, float], ...]:
    return tuple((int(i), float(x[i])) for i in np.flatnonzero(x))
