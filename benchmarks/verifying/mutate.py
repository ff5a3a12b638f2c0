"""Certificates changed so that accepting them would be wrong.

A change is kept only if it is wrong beyond doubt: the file is malformed, an array no longer has
its hash, or `faultlens.spec.exact` and `branch` (which share no code with the checker) find that
the changed evidence does not show the changed claim. Changes that leave a true claim with valid
evidence are legitimate; they are counted in `Battery.harmless` and not yielded. A claim that a
sampled point of the changed region contradicts is false in itself, and marked so.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from faultlens.files import load_arrays
from faultlens.spec.certify import Claim, is_shown
from faultlens.spec.exact import Witness, shows, simplex_weights
from faultlens.spec.formula import AtLeast, Comparison, Formula
from faultlens.spec.proof import Leaf, Phase, Proof, Split
from faultlens.spec.region import Body, Readout, Region, Shape

Document = dict[str, Any]
BAD_NUMBERS = (
    "nan", "inf", "-inf", "-0x1.0000000000000p+0", "0x1p+0", "1.0", "", 1, 1.0, True, None, [],
    "0x1.0000000000000p+1024", "-0x0.0p+0", " 0x1.0000000000000p+0",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A certificate that must not be accepted.

    Attributes:
        kind: Which change was made.
        path: The changed certificate.
        is_false: A sampled point contradicts the changed claim.
    """

    kind: str
    path: Path
    is_false: bool


class Inexpressible(Exception):
    """The checker's format allows it, the package's values do not."""


@dataclass
class Battery:
    """Makes mutants in a folder of their own.

    Attributes:
        folder: Made when absent; files in it are overwritten.
        rng: Chooses certificates and changes.
        harmless: Changes that left a true claim with valid evidence, by kind.
    """

    folder: Path
    rng: np.random.Generator
    harmless: Counter[str] = field(default_factory=Counter)
    _copied: set[str] = field(default_factory=set)

    def mutants(self, certificates: Sequence[Path], n: int) -> Iterator[Mutant]:
        """Yield `n` mutants of given certificates; each file is valid until the next is asked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made = 0
        while made < n:
            source = certificates[int(self.rng.integers(len(certificates)))]
            kind = str(self.rng.choice(list(KINDS)))
            mutant = self._mutant(source, kind)
            if mutant is not None:
                made += 1
                yield mutant

    def _mutant(self, source: Path, kind: str) -> Mutant | None:
        document = json.loads(source.read_bytes())
        files = {d: source.parent / f"{d}.safetensors" for d in digests(document)}
        arrays = {digest: load_arrays(path)[0] for digest, path in files.items()}
        for digest in files.keys() - self._copied:
            copy_of = self.folder / f"{digest}.safetensors"
            copy_of.write_bytes(files[digest].read_bytes())
        self._copied |= files.keys()
        change = Change(copy.deepcopy(document), arrays, self.folder, self.rng)
        if not KINDS[kind](change):
            return None
        self._copied -= change.spoiled
        path = self.folder / "mutant.json"
        path.write_bytes(change.raw or json.dumps(change.document).encode())
        if change.is_malformed:
            return Mutant(kind, path, False)
        return None if change.document == document else self._judged(change, kind, path)

    def _judged(self, change: "Change", kind: str, path: Path) -> Mutant | None:
        """Return a changed certificate unless its evidence shows its claim."""
        try:
            claim, evidence = decode(change.document, self.folder)
            is_valid = is_shown(claim, evidence)
        except Inexpressible:
            return None
        except Exception:  # a change made it unreadable, so that no one may accept it
            return Mutant(kind, path, False)
        if is_valid:
            self.harmless[kind] += 1
            return None
        return Mutant(kind, path, is_false(claim, self.rng))


def digests(document: Document) -> list[str]:
    """Return the hashes of the array files that a certificate names."""
    witness = [document["evidence"][1]] if document["verdict"] == "REFUTED" else []
    return [document["readout"], document["region"], *witness]


@dataclass
class Change:
    """A certificate that is being changed."""

    document: Document
    arrays: dict[str, dict[str, Any]]
    folder: Path
    rng: np.random.Generator
    is_malformed: bool = False
    raw: bytes = b""
    spoiled: set[str] = field(default_factory=set)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def pairs(self, *names: str) -> list[list[Any]]:
        """Return all pairs of number and weight below the named parts."""
        return [pair for name in names for pair in _pairs(self.document[name])]

    def store(self, arrays: dict[str, Any]) -> str:
        """Write changed arrays under their own hash."""
        data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / f"{digest}.safetensors").write_bytes(data)
        return digest


def _pairs(node: Any) -> Iterator[list[Any]]:
    if isinstance(node, list):
        if len(node) == 2 and type(node[0]) is int and isinstance(node[1], str):
            yield node
        for part in node:
            yield from _pairs(part)


def _nodes(node: Any) -> Iterator[list[Any]]:
    """Yield the comparisons and `AtLeast` of a formula."""
    yield node
    if type(node[0]) is int:
        for part in node[1]:
            yield from _nodes(part)


def digit(change: Change) -> bool:
    """Flip a digit of a weight, of claim or evidence."""
    names = ["goal", "given"] + ["evidence"] * (change.document["verdict"] != "REFUTED")
    pairs = change.pairs(*names)
    if not pairs:
        return False
    pair = change.pick(pairs)
    text = list(pair[1])
    places = [i for i, c in enumerate(text) if c in "0123456789abcdef"]
    text[change.pick(places)] = change.pick("0123456789abcdef")
    pair[1] = "".join(text)
    return True


def scale(change: Change) -> bool:
    """Multiply a weight by a power of two, or change its sign."""
    pairs = change.pairs("goal", "given", *["evidence"] * (change.document["verdict"] != "REFUTED"))
    if not pairs:
        return False
    pair = change.pick(pairs)
    pair[1] = (float.fromhex(pair[1]) * change.pick([-1.0, 0.0, 0.25, 0.5, 2.0, 8.0]) + 0.0).hex()
    return True


def no_multipliers(change: Change) -> bool:
    """Set all multipliers of a leaf to zero, or drop them."""
    leaves = [n for n in change.document["evidence"] if isinstance(n, list) and len(n) == 2]
    if change.document["verdict"] == "REFUTED" or not leaves:
        return False
    leaf = change.pick(leaves)
    leaf[1] = change.pick([[], [[place, (0.0).hex()] for place, _ in leaf[1]]])
    return True


def place(change: Change) -> bool:
    """Move a weight to another signal or comparison."""
    pairs = change.pairs("goal", "given", *["evidence"] * (change.document["verdict"] != "REFUTED"))
    if not pairs:
        return False
    change.pick(pairs)[0] += change.pick([-2, -1, 1, 2, 1000])
    return True


def bad_number(change: Change) -> bool:
    """Put something in a weight's place that is no number of the format."""
    refuted = change.document["verdict"] == "REFUTED"
    pairs = change.pairs(*["goal", "given"] if refuted else ["evidence"])
    if not pairs:
        return False
    pair = change.pick(pairs)
    bad = change.pick(BAD_NUMBERS)
    change.is_malformed = not (refuted and isinstance(bad, str) and bad.startswith("-0x1.0"))
    pair[1] = bad
    return True


def bad_place(change: Change) -> bool:
    """Put something in a place that is no place."""
    pairs = change.pairs("goal", "given", *["evidence"] * (change.document["verdict"] != "REFUTED"))
    if not pairs:
        return False
    change.pick(pairs)[0] = change.pick([-1, 10**6, 0.0, 1.0, True, False, "0", None, [0]])
    change.is_malformed = True
    return True


def strictness(change: Change) -> bool:
    """Make a strict comparison not strict, or the other way round."""
    nodes = [n for name in ("goal", "given") for n in _nodes(change.document[name])]
    nodes = [n for n in nodes if type(n[0]) is bool]
    if not nodes:
        return False
    node = change.pick(nodes)
    node[0] = not node[0]
    return True


def count(change: Change) -> bool:
    """Change how many parts must hold, or drop or swap parts."""
    nodes = [n for name in ("goal", "given") for n in _nodes(change.document[name])]
    nodes = [n for n in nodes if type(n[0]) is int]
    if not nodes:
        return False
    node = change.pick(nodes)
    if node[1] and change.rng.random() < 0.4:
        node[1].pop(int(change.rng.integers(len(node[1]))))
    else:
        node[0] += change.pick([-1, 1, 2])
    return True


def constant(change: Change) -> bool:
    """Add to the constant of a comparison of the goal, or give it one."""
    nodes = [n for n in _nodes(change.document["goal"]) if type(n[0]) is bool]
    if not nodes:
        return False
    node, one = change.pick(nodes), _n_signals(change)
    old = [float.fromhex(w) for s, w in node[1] if s == one]
    moved = (old[0] if old else 0.0) + change.rng.normal() * change.pick([1e-3, 1.0, 100.0])
    node[1] = [pair for pair in node[1] if pair[0] != one] + [[one, float(moved).hex()]]
    return True


def _n_signals(change: Change) -> int:
    return len(change.arrays[change.document["readout"]]["rows"])


def swap(change: Change) -> bool:
    """Use the goal as hypothesis and the hypothesis as goal, or another verdict."""
    document = change.document
    if change.rng.random() < 0.3:
        document["goal"], document["given"] = document["given"], document["goal"]
        return True
    others = [v for v in ("PROVED", "REFUTED", "VACUOUS") if v != document["verdict"]]
    document["verdict"] = change.pick([*others, "UNKNOWN", "proved", None, True])
    return True


def cases(change: Change) -> bool:
    """Drop, repeat or exchange cases of a proof."""
    nodes = change.document["evidence"]
    if change.document["verdict"] == "REFUTED":
        return False
    at = int(change.rng.integers(len(nodes)))
    match change.pick(["drop", "repeat", "swap", "all", "split"]):
        case "drop":
            nodes.pop(at)
            change.is_malformed = True
        case "repeat":
            nodes.insert(at, copy.deepcopy(nodes[at]))
            change.is_malformed = True
        case "swap":
            other = int(change.rng.integers(len(nodes)))
            nodes[at], nodes[other] = nodes[other], nodes[at]
        case "all":
            nodes.clear()
            change.is_malformed = True
        case "split":
            splits = [n for n in nodes if len(n) == 1]
            if not splits:
                return False
            change.pick(splits)[0] += change.pick([-1, 1, 50])
    return True


def body(change: Change) -> bool:
    """Bound a leaf over another body, or say that the witness is of another one."""
    document = change.document
    if document["verdict"] == "REFUTED":
        document["evidence"][0] = change.pick([None, 0, 1, -1, True, 7, "0"])
        return True
    leaves = [n for n in document["evidence"] if len(n) == 2]
    change.pick(leaves)[0] = change.pick([1, -1, True, 7, "0", None])
    return True


def shapes(change: Change) -> bool:
    """Call a body another shape, or leave one out."""
    own = change.document["shapes"]
    if change.rng.random() < 0.3:
        own.pop()
    else:
        own[int(change.rng.integers(len(own)))] = change.pick([*Shape, "Box", "", None])
    return True


def keys(change: Change) -> bool:
    """Leave a key out, add one, or use another format."""
    document, change.is_malformed = change.document, True
    match change.pick(["drop", "add", "format", "list"]):
        case "drop":
            del document[change.pick(sorted(document))]
        case "add":
            document["negation"] = document["goal"]
        case "format":
            document["format"] = change.pick(["faultlens-certificate-2", "", 1, None])
        case "list":
            change.raw = json.dumps([document]).encode()
    return True


def text(change: Change) -> bool:
    """Cut the file short, or put a byte into it that is not UTF-8."""
    data, change.is_malformed = json.dumps(change.document).encode(), True
    at = int(change.rng.integers(1, len(data) - 1))
    change.raw = change.pick([data[:at], data[:at] + b"\xff" + data[at:], data + b"]"])
    return True


def stale_array(change: Change) -> bool:
    """Change a byte of an array file and leave its name."""
    digest = change.pick(digests(change.document))
    path = change.folder / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[int(change.rng.integers(len(data)))] ^= 1 << int(change.rng.integers(8))
    path.write_bytes(bytes(data))
    change.spoiled = {digest}
    change.is_malformed = True
    return True


def wrong_hash(change: Change) -> bool:
    """Name another array file, or none that exists."""
    name = change.pick(["readout", "region"])
    others = [d for d in digests(change.document) if d != change.document[name]]
    change.document[name] = change.pick([*others, "0" * 64, "", "../" + others[0], None, 5])
    return True


def array(change: Change) -> bool:
    """Change one number of an array and name the file by its new hash."""
    document = change.document
    names = ["readout", "region"]
    name = change.pick([*names, "witness"] if document["verdict"] == "REFUTED" else names)
    digest = document["evidence"][1] if name == "witness" else document[name]
    arrays = {key: np.array(value) for key, value in change.arrays[digest].items()}
    filled = [key for key, value in arrays.items() if value.size]
    chosen = arrays[change.pick(filled)].reshape(-1)
    at = int(change.rng.integers(len(chosen)))
    moved = float(chosen[at]) + change.rng.normal() * change.pick([1e-3, 1.0, 50.0])
    chosen[at] = change.pick([moved, moved, moved, -float(chosen[at]), np.nan, np.inf])
    digest = change.store(arrays)
    if name == "witness":
        document["evidence"][1] = digest
    else:
        document[name] = digest
    return True


def larger(change: Change) -> bool:
    """Enlarge the region: wider bounds, a greater radius, looser half-spaces."""
    arrays = {k: np.array(v) for k, v in change.arrays[change.document["region"]].items()}
    factor = change.pick([0.5, 5.0, 1000.0])
    for key in arrays:
        kind = key.split("_")[0]
        if kind in ("upper", "radius", "offsets"):
            arrays[key] += np.float32(factor)
        elif kind == "lower":
            arrays[key] -= np.float32(factor)
        elif kind == "basis":
            arrays[key] *= np.float32(1 + factor)
    change.document["region"] = change.store(arrays)
    return True


def array_names(change: Change) -> bool:
    """Leave an array out, add one, or change its shape or type."""
    name = change.pick(["readout", "region"])
    arrays = {k: np.array(v) for k, v in change.arrays[change.document[name]].items()}
    key = change.pick([k for k, v in arrays.items() if v.size])
    match change.pick(["drop", "add", "shape", "type"]):
        case "drop":
            del arrays[key]
        case "add":
            arrays["radius_9"] = np.ones(1, np.float32)
        case "shape":
            arrays[key] = np.concatenate([arrays[key], arrays[key]])
        case "type":
            arrays[key] = arrays[key].astype(np.int32)
    change.document[name] = change.store(arrays)
    return True


KINDS: dict[str, Callable[[Change], bool]] = {
    f.__name__: f
    for f in (
        digit, scale, no_multipliers, place, bad_number, bad_place, strictness, count, constant,
        swap, cases, body, shapes, keys, text, stale_array, wrong_hash, array, larger, array_names,
    )
}  # fmt: skip


def decode(document: Document, folder: Path) -> tuple[Claim, Proof | Witness]:
    """Return the claim and the evidence that a certificate states.

    Raises:
        Exception: It is malformed.
    """
    readout, hidden = _decode_readout(_load(folder, document["readout"]))
    region = _decode_region(_load(folder, document["region"]), document["shapes"])
    n_signals = len(readout.concept_rows) + len(readout.head_biases[-1])
    if readout.head_weights[0].shape[1] != len(region.bodies[0].centre):
        raise ValueError("readout and region differ in size")
    goal, given = (_decode_formula(document[k], n_signals) for k in ("goal", "given"))
    claim = Claim(document["verdict"], goal, given, region, readout)
    if document["verdict"] == "REFUTED":
        own, digest = document["evidence"]
        if own is not None and (type(own) is not int or not 0 <= own < len(region.bodies)):
            raise ValueError("no such body")
        return claim, Witness(_load(folder, digest)["point"], own)
    nodes = iter(document["evidence"])
    proof = _decode_proof(nodes, hidden, len(region.weights))
    if next(nodes, None) is not None:
        raise ValueError("cases left over")
    return claim, proof


def _load(folder: Path, digest: str) -> dict[str, Any]:
    path = folder / f"{digest}.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise ValueError("another hash")
    arrays = load_arrays(path)[0]
    for value in arrays.values():
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise ValueError("not finite numbers")
    return arrays


def _decode_readout(arrays: dict[str, Any]) -> tuple[Readout, list[int]]:
    """Return the readout and its head's hidden layers.

    Raises:
        Inexpressible: Not a chain of layers, though the checker reads it.
    """
    names = ("rows", "offsets", "unit_rows", "unit_offsets")
    rows, offsets, unit_rows, unit_offsets = (arrays.pop(name) for name in names)
    size = rows.shape[1] - len(unit_rows)
    if arrays or len(rows) != len(offsets) or unit_rows.shape != (len(unit_offsets), rows.shape[1]):
        raise ValueError("the readout is malformed")
    if not len(unit_rows):
        none = np.empty((0, size), np.float32)
        return Readout(none, none[:, 0], (rows,), (offsets,)), []
    starts = [0]  # a unit that sees one of its own layer begins the next
    for unit in range(1, len(unit_rows)):
        if unit_rows[unit][size + starts[-1] : size + unit].any():
            starts.append(unit)
    ends = [*starts[1:], len(unit_rows)]
    hidden = [end - start for start, end in zip(starts, ends, strict=True)]
    n_concepts = next((i for i, row in enumerate(rows) if row[size:].any()), len(rows))
    columns = [(0, size), *((size + a, size + b) for a, b in zip(starts, ends, strict=True))]
    blocks = [unit_rows[a:b] for a, b in zip(starts, ends, strict=True)] + [rows[n_concepts:]]
    for (a, b), block in zip(columns, blocks, strict=True):
        if block[:, :a].any() or block[:, b:].any():
            raise Inexpressible
    weights = tuple(k[:, a:b] for (a, b), k in zip(columns, blocks, strict=True))
    biases = [unit_offsets[a:b] for a, b in zip(starts, ends, strict=True)]
    return Readout(
        rows[:n_concepts, :size], offsets[:n_concepts], weights, (*biases, offsets[n_concepts:])
    ), hidden


def _decode_region(arrays: dict[str, Any], kinds: list[str]) -> Region:
    weights, offsets = arrays.pop("weights"), arrays.pop("offsets")
    if len(weights) != len(offsets) or not kinds:
        raise ValueError("the region is malformed")
    bodies = []
    for i, kind in enumerate(kinds):
        shape, centre, basis = (
            Shape(kind),
            arrays.pop(f"centre_{i}"),
            arrays.pop(f"basis_{i}", None),
        )
        rank = len(centre) if basis is None else basis.shape[1]
        lower = upper = None
        radius = 0.0
        if shape is Shape.BOX:
            lower, upper = arrays.pop(f"lower_{i}"), arrays.pop(f"upper_{i}")
            if not lower.shape == upper.shape == (rank,):
                raise ValueError("a box is malformed")
        elif shape is Shape.BALL:
            radius = float(arrays.pop(f"radius_{i}").reshape(()))
        if centre.shape != (weights.shape[1],) or (basis is not None and len(basis) != len(centre)):
            raise ValueError("a body is malformed")
        bodies.append(Body(shape, centre, basis, lower, upper, radius))
    if arrays:
        raise ValueError("arrays left over")
    return Region("changed", tuple(bodies), weights, offsets)


def _decode_formula(node: Any, n_signals: int) -> Formula:
    first, parts = node
    if type(first) is not bool:
        return AtLeast(int(first), tuple(_decode_formula(part, n_signals) for part in parts))
    weights = {_place(p, n_signals + 1): _float(w) for p, w in parts}
    if len(weights) < len(parts):
        raise ValueError("a signal occurs twice")
    constant = weights.pop(n_signals, 0.0)
    return Comparison(tuple(sorted(weights.items())), constant, first)


def _place(node: Any, n: int) -> int:
    if type(node) is not int or not 0 <= node < n:
        raise ValueError("no such place")
    return node


def _float(text: str) -> float:
    value = float.fromhex(text)
    if value.hex() != text or text.startswith("-0x0.0p"):
        raise ValueError("not as floats are written")
    return value


def _decode_proof(nodes: Iterator[Any], hidden: list[int], n_halfspaces: int) -> Proof:
    node = next(nodes)
    n_units = sum(hidden)
    if len(node) == 1:
        place = _place(node[0], 10**9)
        first, second = (_decode_proof(nodes, hidden, n_halfspaces) for _ in range(2))
        if place >= n_units:
            return Split(place - n_units, first, second)
        layer = int(np.searchsorted(np.cumsum(hidden), place, side="right"))
        return Phase(layer, place - sum(hidden[:layer]), first, second)
    own, pairs = node
    multipliers, halfspaces = [], []
    for p, text in pairs:
        pair = (_place(p, 10**9), _float(text))
        start = pair[0] - 3 * n_units
        if 0 <= start < n_halfspaces:
            halfspaces.append((start, pair[1]))
        else:
            multipliers.append((pair[0] - n_halfspaces * (start >= 0), pair[1]))
    return Leaf(tuple(multipliers), tuple(halfspaces), _place(own, 10**9))


def is_false(claim: Claim, rng: np.random.Generator, n: int = 32) -> bool:
    """Return whether a sampled point contradicts a claim of `PROVED` or `VACUOUS`."""
    if claim.verdict not in ("PROVED", "VACUOUS"):
        return False
    # A vacuous claim is contradicted by a point where the hypotheses hold: where FALSE fails.
    goal = claim.goal if claim.verdict == "PROVED" else AtLeast(1, ())
    return any(
        shows(goal, claim.given, claim.region, claim.readout, Witness(_sample(body, rng), 0))
        for body in claim.region.bodies[:1]
        for _ in range(n)
    )


def _sample(body: Body, rng: np.random.Generator) -> Any:
    rank = len(body.centre) if body.basis is None else body.basis.shape[1]
    if body.shape is Shape.BOX and body.lower is not None and body.upper is not None:
        share = rng.random(rank) if rng.random() < 0.5 else rng.integers(0, 2, rank)
        inside = body.lower + share * (body.upper - body.lower)
        return np.clip(inside, body.lower, body.upper).astype(np.float32)
    if body.shape is Shape.BALL:
        direction = rng.normal(size=rank)
        length = 0.99 * body.radius * rng.random() / max(float(np.linalg.norm(direction)), 1e-9)
        return (direction * length).astype(np.float32)
    return simplex_weights(rng.exponential(size=rank) ** 3)
