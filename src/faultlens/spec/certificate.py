"""Check certificates of FaultLens: `python -m faultlens.spec.certificate FILE…`.

It shares no code with what made them and needs the standard library only. It negates the goal
itself and adds up exactly (roots alone are rounded: upwards), so that nothing false is accepted,
whatever the multipliers. Format and rules: `docs/guide/certificates.md`.
"""

import hashlib
import json
import math
import struct
import sys
from fractions import Fraction as Q
from functools import cache, reduce
from operator import mul
from pathlib import Path
from typing import Any

ALL = ["evidence", "format", "given", "goal", "readout", "region", "shapes", "unchecked", "verdict"]
BOUNDS = {"box": ("lower", "upper"), "ball": ("radius",), "simplex": ()}
UNIT = 1 << 149  # every float32 is a multiple of 1 / UNIT; arrays are kept as these multiples


def _need(condition: object, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def _index(node: Any, n: int, what: str) -> int:
    _need(type(node) is int and 0 <= node < n, f"there is no {what} {node!r}")
    return int(node)


def _weights(node: Any, n: int, what: str) -> dict[int, Q]:
    found = {_index(place, n, what): Q(float.fromhex(text)) for place, text in node}
    texts = [float(w).hex() for w in found.values()]
    _need(texts == [text for _, text in node], f"a {what} occurs twice or its weight is malformed")
    return found


def _formula(node: Any, n: int, sign: int) -> Any:  # its negation where the sign is -1
    first, parts = node
    if type(first) is bool:  # a comparison: whether it is strict
        return first == (sign > 0), {s: sign * w for s, w in _weights(parts, n, "signal").items()}
    _need(type(first) is int and type(parts) is list, "a formula is malformed")
    return first if sign > 0 else len(parts) - first + 1, [_formula(p, n, sign) for p in parts]


def _asserted(branch: Any, f: Any) -> Any:  # a branch: comparisons, choices, whether impossible
    (rows, choices, closed), (n, parts) = branch, f
    if type(n) is bool:
        return [*rows, f], choices, closed
    if n == len(parts):
        return reduce(_asserted, parts, branch)
    return rows, choices + [f] * (0 < n < len(parts)), closed or n > len(parts)


@cache
def _arrays(folder: Path, digest: str) -> dict[str, Any]:
    data, found = (folder / f"{digest}.safetensors").read_bytes(), {}
    _need(hashlib.sha256(data).hexdigest() == digest, f"the arrays {digest} have another SHA-256")
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            (begin, end), (*outer, n) = entry["data_offsets"], entry["shape"]
            form = f"<{math.prod(outer) * n}{ {'F32': 'f', 'F64': 'd'}[entry['dtype']] }"
            floats = [math.ldexp(x, 149) for x in struct.unpack(form, data[start:][begin:end])]
            row = [int(x) for x in floats]  # raises where one is not finite
            _need(row == floats and len(outer) < 2, f"the array {name} is malformed")
            found[name] = [row[i * n : i * n + n] for i in range(outer[0])] if outer else row
    return found


def _dot(a: Any, b: Any) -> Any:
    _need(len(a) == len(b), "arrays do not fit together")
    return sum(map(mul, a, b))


class _Body:
    def __init__(self, region: dict[str, Any], i: int, shape: str) -> None:
        self.shape, self.centre = shape, region.pop(f"centre_{i}")
        self.basis = region.pop(f"basis_{i}", None)
        self.columns = list(zip(*self.basis or [], strict=True))
        self.bounds = [region.pop(f"{name}_{i}") for name in BOUNDS[shape]]
        (self.radius,) = list[Any](self.bounds.pop() if shape == "ball" else [0])

    def maximum(self, row: list[int]) -> Q:  # of row @ z * UNIT
        u, unit = row, 1
        if self.basis is not None:
            u, unit = [_dot(row, column) for column in self.columns], UNIT
        if self.shape == "box":
            best = sum(w * (b if w > 0 else a) for w, a, b in zip(u, *self.bounds, strict=True))
        elif self.shape == "simplex":
            best = max(u) * UNIT
        else:
            n = _dot(u, u) * self.radius**2 << 128
            best = Q(math.isqrt(n - 1) + 1 if n else 0, 1 << 64)
        return Q(_dot(row, self.centre)) + Q(best) / unit

    def has(self, u: Any) -> bool:
        if self.shape == "box":
            return all(a <= x <= b for x, a, b in zip(u, *self.bounds, strict=True))
        if self.shape == "simplex":
            return bool(min(u) >= 0 and sum(u) == UNIT)
        return bool(self.radius >= 0 and _dot(u, u) <= self.radius**2)


class _Claim:
    def __init__(self, readout: dict[str, Any], region: dict[str, Any], shapes: list[str]) -> None:
        readout, region, self.size = dict(readout), dict(region), len(region["centre_0"])
        rows = list(zip(readout.pop("rows"), readout.pop("offsets"), strict=True))
        units = list(zip(readout.pop("unit_rows"), readout.pop("unit_offsets"), strict=True))
        halves = list(zip(region.pop("weights"), region.pop("offsets"), strict=True))
        self.one, blank = len(rows), [0] * (self.size + len(units))
        self.inputs = range(self.one + 1, self.one + 1 + len(units))  # signals: those of ReLUs
        outputs = [([*blank[:i], UNIT, *blank[i + 1 :]], 0) for i in range(self.size, len(blank))]
        self.rows = [*rows, (blank, UNIT), *units, *outputs]
        self.known = [(False, {len(self.rows) + i: 1}) for i in range(len(halves))]
        self.rows += [(row + blank[self.size :], offset) for row, offset in halves]
        self.bodies = [_Body(region, i, shape) for i, shape in enumerate(shapes)]
        _need(not region and not readout, "there are more arrays than needed")
        _need(all(len(row) == len(blank) for row, _ in self.rows), "arrays do not fit together")
        _ = [body.maximum(blank[: self.size]) for body in self.bodies]  # raises if they do not

    def bound(self, terms: dict[int, Q], body: _Body, ranges: list[tuple[Q, Q]]) -> Q:
        best, unit = Q(0), math.lcm(*(w.denominator for w in terms.values()))
        total = [0] * (self.size + len(self.inputs))
        for place, w in terms.items():
            (row, offset), factor = self.rows[place], int(w * unit)
            total = [a + factor * b for a, b in zip(total, row, strict=True)]
            best += factor * offset * UNIT
        _need(not any(total[self.size + len(ranges) :]), "a ReLU depends on a later one")
        for x, (low, high) in zip(total[self.size :], ranges, strict=False):
            best += x * max(high if x > 0 else low, Q(0)) * UNIT
        return (best + body.maximum(total[: self.size])) / (unit * UNIT**2)

    def relus(self, body: _Body) -> tuple[list[Any], list[tuple[Q, Q]]]:
        facts, ranges = list[Any](), list[tuple[Q, Q]]()
        for x in self.inputs:
            y = x + len(self.inputs)
            low, high = (sign * self.bound({x: Q(sign)}, body, ranges) for sign in (-1, 1))
            ranges.append((low, high))
            low, high = min(low, Q(0)), max(high, Q(0))
            rows = {y: 1}, {y: 1, x: -1}, {x: high, y: low - high, self.one: -high * low}
            facts += [(False, row) for row in rows]
            cases = [(False, {x: 1}), (False, {x: 1, y: -1})], [(False, {x: -1}), (False, {y: -1})]
            facts.append((1, [(2, case) for case in cases]))
        return facts, ranges

    def prove(self, f: Any, nodes: list[Any]) -> None:
        facts, ranges = self.relus(self.bodies[0])
        waiting: list[Any] = [reduce(_asserted, [*facts, *self.known, f], ([], [], False))]
        for node in nodes:
            rows, choices, closed = waiting.pop()
            if len(node) == 1:  # a split
                place = _index(node[0], len(choices), "choice")
                n, (part, *rest) = choices[place]
                left = rows, [*choices[:place], None, *choices[place + 1 :]], closed
                waiting.append(_asserted(left, (n, rest)))
                waiting.append(reduce(_asserted, [part, (n - 1, rest)], left))
                continue
            (body, weights), total, strict = node, dict[int, Q](), False
            for place, weight in _weights(weights, len(rows), "comparison").items():
                _need(weight >= 0, "a multiplier is negative")
                strict |= rows[place][0] and weight > 0
                for signal, w in rows[place][1].items():
                    total[signal] = total.get(signal, Q(0)) + weight * w
            bound = self.bound(total, self.bodies[_index(body, len(self.bodies), "body")], ranges)
            _need(closed or bound < 0 or (bound == 0 and strict), "a case is not closed")
        _need(not waiting, "a case is missing")

    def refute(self, f: Any, own: Any, u: list[int]) -> None:
        z: list[Any] = u
        if own is not None:
            body = self.bodies[_index(own, len(self.bodies), "body")]
            moved = u if body.basis is None else [Q(_dot(row, u), UNIT) for row in body.basis]
            z = [a + b for a, b in zip(body.centre, moved, strict=True)]
        for i, body in enumerate(self.bodies):
            _need(i == own or body.basis is None, "the point is not shown to be in a body")
            moved = u if i == own else [a - b for a, b in zip(z, body.centre, strict=True)]
            _need(body.has(moved), "the point is not in a body")
        here = _Body({"centre_0": z, "radius_0": [0]}, 0, "ball")
        values = self.relus(here)[1]
        shown = all(self.holds(part, here, values) for part in [*self.known, f])
        _need(shown, "the point is no counterexample")

    def holds(self, f: Any, point: _Body, ranges: list[tuple[Q, Q]]) -> bool:
        if type(f[0]) is bool:
            value = self.bound(f[1], point, ranges)
            return value > 0 or (value == 0 and not f[0])
        return sum(self.holds(part, point, ranges) for part in f[1]) >= int(f[0])


def check(path: Path) -> str:
    """Return the verdict that a certificate shows; raise where it does not show it."""
    document = json.loads(path.read_bytes())
    _need(type(document) is dict and sorted(document) == ALL, f"it must have just {ALL}")
    evidence, form, given, goal, readout, region, shapes, _, verdict = map(document.get, ALL)
    _need(form == "faultlens-certificate-1" and type(shapes) is list, "its format is unknown")
    claim = _Claim(_arrays(path.parent, readout), _arrays(path.parent, region), shapes)
    given, contrary = _formula(given, claim.one + 1, 1), _formula(goal, claim.one + 1, -1)
    if verdict == "REFUTED":
        own, digest = evidence
        claim.refute((2, [given, contrary]), own, _arrays(path.parent, digest)["point"])
    else:
        _need(verdict in ("PROVED", "VACUOUS"), f"there is no verdict {verdict!r}")
        claim.prove((2, [given, contrary]) if verdict == "PROVED" else given, evidence)
    return str(verdict)


def main(arguments: list[str] | None = None) -> int:
    """Check files; return 0 if all are accepted, 1 if one is rejected, 2 if one is unreadable."""
    files = sys.argv[1:] if arguments is None else arguments
    worst = 0 if files else 2
    _arrays.cache_clear()  # a file may have changed since
    for name in files:
        try:
            code, outcome = 0, f"accepted, {check(Path(name))}"
        except OSError as error:
            code, outcome = 2, f"unreadable, {error}"
        except Exception as error:  # whatever is wrong with it, it is not accepted
            code, outcome = 1, f"rejected, {type(error).__name__}: {error}"
        sys.stdout.write(f"{name}: {outcome}\n")
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
