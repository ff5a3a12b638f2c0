"""A region and a readout, with what every search over them shares: intervals, rows, a program."""

import math
from collections.abc import Sequence

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.errors import InputError
from faultlens.spec import exact
from faultlens.spec.exact import Witness
from faultlens.spec.formula import Comparison
from faultlens.spec.linear import Program
from faultlens.spec.region import Readout, Region, Shape
from faultlens.spec.support import Doubles, Frame, Rows, Space, combine, gamma

#: Numbers (8 bytes each) in the rows that are kept from search to search.
_MAX_KEPT = 20_000_000


class Setting:
    """A region and a readout, with what all searches over them share.

    Args:
        region: Where.
        readout: What the signals mean.
        frames: One a body; the first is searched, the others only bound.
    """

    def __init__(self, region: Region, readout: Readout, frames: Sequence[Frame]) -> None:
        self.region = region
        self.readout = readout
        self.frames = tuple(frames)
        self.program = Program(frames[0].space)
        self.keys: dict[Comparison, int] = {}
        self._rows: list[list[Rows]] = [[] for _ in frames]
        self._uppers: list[float] = []
        self._lowers: list[float] = []
        self._bodies: list[int] = []
        self._hard: set[int] = set()
        self.n_fixed = len(frames[0].fixed.offsets)
        self.n_hidden = self.n_fixed // 3

    def forget(self) -> None:
        """Drop what is kept if it is much; only between searches, whose numbers become invalid."""
        if len(self.keys) * len(self.frames[0].space.middle()) <= _MAX_KEPT:
            return
        self.program = Program(self.frames[0].space)
        self.keys.clear()
        self._hard.clear()
        self._uppers, self._lowers, self._bodies = [], [], []
        self._rows = [[] for _ in self.frames]

    def register(self, leaves: Sequence[Comparison]) -> list[int]:
        """Return a number for each comparison, after bounding those that are new."""
        new = [leaf for leaf in dict.fromkeys(leaves) if leaf not in self.keys]
        if new:
            self._check(new)
            self._bound(new)
        return [self.keys[leaf] for leaf in leaves]

    def _check(self, new: Sequence[Comparison]) -> None:
        n = len(self.frames[0].signals.offsets)
        for leaf in new:
            numbers = [leaf.constant, *(weight for _, weight in leaf.terms)]
            if not all(0 <= signal < n for signal, _ in leaf.terms):
                raise InputError(f"goal must use the signals 0 … {n - 1}, got {leaf.terms}")
            if not all(map(math.isfinite, numbers)):
                raise InputError(f"goal must have finite weights and constants, got {leaf}")

    def _bound(self, new: list[Comparison]) -> None:
        highs, lows = [], []
        for frame, kept in zip(self.frames, self._rows, strict=True):
            rows = combine(frame.signals, new)
            highs.append(frame.space.bound(rows, 4))
            lows.append(-frame.space.bound(Rows(-rows.weights, -rows.offsets, rows.sizes), 4))
            kept.extend(rows.take([i]) for i in range(len(new)))
        n_plain = len(self.readout.concept_rows) + len(self.readout.head_biases[-1])
        for comparison in new:
            if comparison.terms and comparison.terms[-1][0] >= n_plain:
                self._hard.add(len(self.keys))
            self.keys[comparison] = len(self.keys)
        self._uppers.extend(np.min(highs, axis=0).tolist())
        self._bodies.extend(np.argmin(highs, axis=0).tolist())
        self._lowers.extend(np.max(lows, axis=0).tolist())

    def complete(self, points: Doubles) -> Doubles:
        """Return points (n, R) with what follows from a body's own coordinates made to follow."""
        return points

    def is_hard(self, number: int) -> bool:
        """Whether a row of a program is about hidden units, which nothing lies strictly inside."""
        return -self.n_fixed <= number < 0 or number in self._hard

    def interval(self, key: int) -> tuple[float, float]:
        """Return rigorous bounds of a comparison's left side over the region's bodies."""
        return self._lowers[key], self._uppers[key]

    def closing_body(self, key: int) -> int:
        """Return the body over which a comparison's upper bound is least."""
        return self._bodies[key]

    def rows(self, keys: Sequence[int], body: int = 0) -> Rows:
        """Return comparisons as affine functions over a body."""
        return stack([self._rows[body][key] for key in keys], self.frames[body])


def stack(parts: Sequence[Rows], frame: Frame) -> Rows:
    """Return rows one below the other."""
    if not parts:
        return frame.fixed.take([])
    return Rows(
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


def surely_inside(space: Space, u: Doubles) -> bool:
    """Whether floats alone show that coordinates lie in the body's shape."""
    free, boxed = u[: space.n_free], u[space.n_free :]
    if space.body.shape is Shape.BALL:
        square = float(free @ free) * (1 + 2 * gamma(len(free) + 4))
        return square <= space.body.radius**2 * (1 - 1e-15)
    if space.body.shape is Shape.SIMPLEX:  # its weights are multiples of 2**-24: the sum is exact
        return bool((free >= 0).all() and free.sum() == 1)
    return bool(((boxed >= space.lower) & (boxed <= space.upper)).all())


def witness_at(setting: Setting, u: Doubles, kind: type) -> Witness:
    """Return coordinates as a witness of one float type, inside the first body."""
    frame, body = setting.frames[0], setting.region.bodies[0]
    own = u[: len(u) - setting.n_hidden]
    if body.shape is Shape.SIMPLEX:
        return Witness(exact.simplex_weights(own), 0)
    if body.shape is Shape.BALL:
        norm = float(np.linalg.norm(own))
        limit = body.radius * (1 - 4 * float(np.finfo(kind).eps))
        return Witness((own * (limit / max(norm, limit, 1e-300))).astype(kind), 0)
    n = len(own)
    clipped: FloatArray = np.clip(own, frame.space.lower[:n], frame.space.upper[:n]).astype(kind)
    if body.basis is None and not body.centre.any():
        return Witness(clipped)
    return Witness(clipped, 0)
