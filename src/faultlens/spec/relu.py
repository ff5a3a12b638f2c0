"""Heads of affine and ReLU layers: hidden units become bounded variables, split on their phases.

A hidden unit adds its output y to the coordinates, between the bounds that interval propagation
gives, with the three comparisons of `proof` that every ReLU obeys. Units whose input has one sign
everywhere are exact by these alone; another is split, active or inactive, once a program's point
uses the slack that they leave.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from faultlens.arrays import FloatArray
from faultlens.spec.branch import Branch
from faultlens.spec.proof import Phase, Proof
from faultlens.spec.region import Readout, Region
from faultlens.spec.search import Search, Unsure
from faultlens.spec.setting import Setting
from faultlens.spec.support import (
    Doubles,
    Frame,
    Rows,
    Space,
    gamma,
    rows_over,
    space_of,
)  # fmt: skip

_GAP = 1e-7


def relu_setting(region: Region, readout: Readout) -> Setting:
    """Return the setting of a head with hidden layers, seen from the region's first body."""
    return ReluSetting(region, readout, [_frame(region, readout)])


class ReluSetting(Setting):
    """A setting whose further coordinates are the outputs of hidden units."""

    def complete(self, points: Doubles) -> Doubles:
        """Return points (n, R) with the outputs that their own coordinates lead to."""
        frame = self.frames[0]
        points = points.copy()
        start = points.shape[1] - self.n_hidden
        inputs = len(frame.signals.offsets) - 2 * self.n_hidden
        for layer in _layers(self.readout):
            rows = frame.signals.take(inputs + 2 * layer)
            outputs = np.maximum(points @ rows.weights.T + rows.offsets, 0.0)
            points[:, start + layer] = outputs
        return points


def _layers(readout: Readout) -> list[NDArray[np.integer]]:
    """Return the numbers of the hidden units of each layer."""
    sizes = [len(b) for b in readout.head_biases[:-1]]
    starts = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in itertools.pairwise(starts)]


def _frame(region: Region, readout: Readout) -> Frame:
    """Return everything affine in a body's coordinates and the hidden units' outputs."""
    body = region.bodies[0]
    own = space_of(body)
    layers = _layers(readout)
    n_hidden, n_own = sum(map(len, layers)), len(own.middle())
    n_terms = own.n_terms + n_hidden + 8
    inputs: list[Rows] = []
    y_low, y_high = np.zeros(0), np.zeros(0)
    for i, units in enumerate(layers):
        weights, biases = readout.head_weights[i], readout.head_biases[i]
        rows, low, high = _inputs(i, weights, biases, own, (y_low, y_high))
        rows = _placed(rows, n_own, n_hidden, layers[i - 1][0] if i else None)
        room = gamma(n_terms) * rows.sizes + 1e-290
        inputs.append(rows)
        if i == 0:
            all_low, all_high = low - room, high + room
        else:
            all_low = np.concatenate([all_low, low - room])
            all_high = np.concatenate([all_high, high + room])
        y_low, y_high = np.maximum(all_low[units], 0.0), np.maximum(all_high[units], 0.0)
    space = Space(
        body, np.concatenate([own.lower, np.maximum(all_low, 0.0)]),
        np.concatenate([own.upper, np.maximum(all_high, 0.0)]), n_terms,
    )  # fmt: skip
    x = _below(inputs)
    y = _outputs(all_high, n_own)
    concepts = _placed(
        rows_over(body, readout.concept_rows, readout.concept_offsets), n_own, n_hidden, None
    )
    logits, _, _ = _inputs(
        len(layers), readout.head_weights[-1], readout.head_biases[-1], own, (y_low, y_high)
    )
    logits = _placed(logits, n_own, n_hidden, layers[-1][0])
    both = _below([x, y]).take(np.arange(2 * n_hidden).reshape(2, -1).T.ravel())
    halves = _placed(rows_over(body, region.weights, region.offsets), n_own, n_hidden, None)
    return Frame(space, _below([concepts, logits, both]), _fixed(x, y, all_low, all_high), halves)


def _inputs(
    layer: int, weights: FloatArray, biases: FloatArray, own: Space, y: tuple[Doubles, Doubles]
) -> tuple[Rows, Doubles, Doubles]:
    """Return a layer's inputs over the coordinates it reads, and their plain bounds."""
    if layer == 0:
        rows = rows_over(own.body, weights, biases)
        low = -own.maxima(-rows.weights, -rows.offsets)
        return rows, low, own.maxima(rows.weights, rows.offsets)
    w, b = weights.astype(np.float64), biases.astype(np.float64)
    sizes = (np.abs(w) @ y[1] + np.abs(b)) * (1 + 1e-9)
    up, down = np.maximum(w, 0.0), np.minimum(w, 0.0)
    return Rows(w, b, sizes), b + up @ y[0] + down @ y[1], b + up @ y[1] + down @ y[0]


def _placed(rows: Rows, n_own: int, n_hidden: int, start: int | None) -> Rows:
    """Return rows over all coordinates: own ones first (`start` None), then hidden outputs."""
    weights = np.zeros((len(rows.offsets), n_own + n_hidden))
    first = 0 if start is None else n_own + start
    weights[:, first : first + rows.weights.shape[1]] = rows.weights
    return Rows(weights, rows.offsets, rows.sizes)


def _outputs(high: Doubles, n_own: int) -> Rows:
    n = len(high)
    weights = np.concatenate([np.zeros((n, n_own)), np.eye(n)], axis=1)
    return Rows(weights, np.zeros(n), np.maximum(high, 0.0))


def _below(parts: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.offsets for p in parts]),
        np.concatenate([p.sizes for p in parts]),
    )


def _fixed(x: Rows, y: Rows, low: Doubles, high: Doubles) -> Rows:
    """Return `y >= 0`, `y - x >= 0` and `u (x - l) - (u - l) y >= 0`, unit by unit."""
    n = len(low)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    above = Rows(y.weights - x.weights, y.offsets - x.offsets, y.sizes + x.sizes)
    upper = Rows(
        high[:, None] * x.weights - (high - low)[:, None] * y.weights,
        high * (x.offsets - low),
        # The exact bounds u and l differ from these by rounding, relative to the input's size.
        8 * (x.sizes + y.sizes) ** 2,
    )
    return _below([y, above, upper]).take(np.arange(3 * n).reshape(3, -1).T.ravel())


class ReluSearch(Search):
    """A search that also splits hidden units on their phases."""

    def _end(self, branch: Branch, hint: Doubles, phases: tuple[int, ...]) -> Proof:
        self._confirm(hint)
        unit = self._loosest(hint, phases)
        if unit is None:
            raise Unsure("boundary")
        layer, place = self._place(unit)
        setting = self.setting
        source = len(setting.frames[0].signals.offsets) - 2 * setting.n_hidden + 2 * unit
        first, second = branch.phase(source, source + 1)
        done = (*phases, unit)
        active = self._visit(first, None, done)
        return Phase(layer, place, active, self._visit(second, None, done))

    def _loosest(self, point: Doubles, phases: tuple[int, ...]) -> int | None:
        """Return the hidden unit whose output is furthest from its ReLU, if any is off."""
        setting = self.setting
        signals = setting.frames[0].signals
        inputs = np.arange(len(signals.offsets) - 2 * setting.n_hidden, len(signals.offsets), 2)
        rows = signals.take(inputs)
        x = rows.weights @ point + rows.offsets
        gap = np.abs(point[len(point) - setting.n_hidden :] - np.maximum(x, 0.0))
        gap = gap / (rows.sizes + 1e-300)
        gap[list(phases)] = 0.0
        best = int(gap.argmax())
        return best if gap[best] > _GAP else None

    def _place(self, unit: int) -> tuple[int, int]:
        for layer, units in enumerate(_layers(self.setting.readout)):
            if unit in units:
                return layer, unit - int(units[0])
        raise IndexError(unit)
