"""The planted faults: 13 rows of 20 instances, each with its truth, fixed by row and index alone.

Instances with an even index are for development, odd ones for scoring: the two halves share no
picture, no network and no seed. The odd ones below 20 were scored once, looked at, and served to
develop since; those that score now are new. Truth is stated in the words of the demo's vocabulary.
"""

from dataclasses import dataclass, field

import numpy as np

from faultlens.data.world.names import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLASSES,
    FREQUENCIES,
    LIGHTS,
    OCCLUDERS,
)

ROWS = ("D1", "D2", "D3", "D4", "D5", "H1", "H2", "H3", "E1", "E2", "E3", "A1", "N0")
#: Indices of the instances of a row.
HALVES = {"development": range(0, 20, 2), "scoring": range(21, 40, 2)}
STAGES = ("stage1", "stage2", "stage3", "stage4")
ATTACKS = ("fgsm", "pgd", "cw", "deepfool", "square", "patch")
INPUT_FAULTS = ("bgr", "unnormalised", "size", "jpeg")

#: Attributes that change an object's outline.
OUTLINE = ("wheels", "wings", "beak", "long-snout", "mane", "tail", "ears", "horns", "long", "tall")
#: Modules that count as right.
MODULES = {
    "D1": {"encoder", "data"}, "D2": {"head", "data"}, "D3": {"data"}, "D4": {"encoder", "data"},
    "D5": {"encoder", "data"}, "H1": {"head"}, "H2": {"head"}, "H3": {"head"}, "E1": {"encoder"},
    "E2": {"encoder"}, "E3": {"input"}, "A1": {"encoder"}, "N0": {"none"},
}  # fmt: skip
#: Words of the vocabulary that name the same thing in these pictures.
SYNONYMS = ({"ears", "floppy-ears"},)
#: The vocabulary's words for lights.
LIGHT_WORDS = {
    "dark": "dark", "bright": "bright light", "warm": "warm light", "cold": "cold light",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cue:
    """A nuisance or attribute that training ties to a class.

    Attributes:
        kind: `background`, `light`, `occluder`, `watermark` or `attribute`.
        value: Its name.
        label: The class.
        correlation: Pearson's, between having the cue and being of the class.
    """

    kind: str
    value: str
    label: str
    correlation: float

    @property
    def word(self) -> str:
        """The vocabulary's word for it."""
        return LIGHT_WORDS.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class Instance:
    """One classifier with one known fault, or none.

    Attributes:
        row: Of the table.
        index: Even: development; odd: scoring.
        fault: What is planted, as a JSON object: enough to make it again.
        concepts: Words that are right; empty where the row asks for none.
        classes: Classes that are right, where the row asks for classes.
        needs_all: Whether each of `concepts` should be found, not just one (two cues at once).
    """

    row: str
    index: int
    fault: dict = field(hash=False)
    concepts: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    needs_all: bool = False

    @property
    def name(self) -> str:
        """Such as `D1-07`."""
        return f"{self.row}-{self.index:02d}"

    @property
    def is_scoring(self) -> bool:
        """Whether it may only be scored, never used to choose anything."""
        return self.index % 2 == 1

    @property
    def modules(self) -> set[str]:
        """Modules that count as right."""
        return MODULES[self.row]


def separating(a: str, b: str, least: float = 0.4) -> frozenset[str]:
    """Attributes that one class shows much more often than the other."""
    gap = {x: abs(FREQUENCIES[a].get(x, 0) - FREQUENCIES[b].get(x, 0)) for x in ATTRIBUTES}
    return frozenset(x for x, g in gap.items() if g >= least)


def usual(label: str, least: float = 0.5) -> frozenset[str]:
    """Attributes that most pictures of a class show."""
    return frozenset(a for a, f in FREQUENCIES[label].items() if f >= least)


def subclasses(low: float = 0.3, high: float = 0.66) -> list[tuple[str, str]]:
    """Class and attribute, where a fair share of the class shows it and a fair share does not."""
    return [(k, a) for k in CLASSES for a, f in FREQUENCIES[k].items() if low <= f <= high]


def _pair(rng: np.random.Generator) -> tuple[str, str]:
    a, b = rng.choice(CLASSES, 2, replace=False)
    return str(a), str(b)


def _cue(rng: np.random.Generator, turn: int, correlation: float, taken: str = "") -> Cue:
    """Kinds of cues take turns; the class is drawn."""
    kind = ("background", "light", "attribute", "background", "watermark", "occluder")[turn % 6]
    labels = [k for k in CLASSES if k != taken]
    label = str(rng.choice(labels))
    if kind == "background":
        value = str(rng.choice(BACKGROUNDS))
    elif kind == "light":
        value = str(rng.choice([x for x in LIGHTS if x != "neutral"]))
    elif kind == "occluder":
        value = str(rng.choice(OCCLUDERS))
    elif kind == "watermark":
        value = "watermark"
    else:
        shared = [(k, a) for k, a in subclasses(0.15, 0.66) if k in labels and _is_shared(a)]
        label, value = shared[int(rng.integers(len(shared)))]
    return Cue(kind, value, label, correlation)


def _is_shared(attribute: str) -> bool:
    return sum(attribute in shown for shown in FREQUENCIES.values()) >= 4


def _cue_fault(*cues: Cue) -> dict:
    names = ("kind", "value", "label", "correlation")
    return {"cues": [{n: getattr(c, n) for n in names} for c in cues]}


def instance(row: str, index: int) -> Instance:
    """Return one instance; the same arguments always give the same one."""
    rng = np.random.default_rng([ROWS.index(row), index])
    # Both halves see every strength: counted within the half.
    turn = index // 2
    return _MAKERS[row](row, index, turn, rng)


def _d1(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    cue = _cue(rng, turn, (0.8, 0.95, 1.0)[(turn + turn // 6) % 3])
    return Instance(row, index, _cue_fault(cue), frozenset({cue.word}), frozenset({cue.label}))


def _d2(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    a, b = _pair(rng)
    while not separating(a, b):
        a, b = _pair(rng)
    fault = {"flip": {"from": a, "to": b, "rate": (0.1, 0.2, 0.4)[turn % 3], "attribute": None}}
    return Instance(row, index, fault, separating(a, b), frozenset({a, b}))


def _d3(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    options = subclasses()
    a, attribute = options[int(rng.integers(len(options)))]
    b = str(rng.choice([k for k in CLASSES if k != a]))
    rate = (0.6, 0.8, 1.0)[turn % 3]
    fault = {"flip": {"from": a, "to": b, "rate": rate, "attribute": attribute}}
    return Instance(row, index, fault, frozenset({attribute}), frozenset({a, b}))


def _d4(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    # Only what changes the outline: networks that never saw patterned or metallic pictures of a
    # class read them all the same (on the development half), so leaving those out is no fault.
    options = [(k, a) for k, a in subclasses(0.35, 0.9) if a in OUTLINE]
    a, attribute = options[int(rng.integers(len(options)))]
    fault = {"missing": {"label": a, "attribute": attribute}}
    return Instance(row, index, fault, frozenset({attribute}), frozenset({a}))


def _d5(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    correlation = (0.95, 1.0)[turn % 2]
    first = _cue(rng, turn, correlation)
    second = first
    while second.value == first.value or second.label == first.label:
        second = _cue(rng, turn + 1 + int(rng.integers(5)), correlation, first.label)
    words, labels = {first.word, second.word}, {first.label, second.label}
    fault = _cue_fault(first, second)
    return Instance(row, index, fault, frozenset(words), frozenset(labels), needs_all=True)


def _h1(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    # Rows with their biases: biases alone are so alike in these heads that swapping two of them
    # changes no prediction (on the development half).
    a, b = _pair(rng)
    return Instance(row, index, {"swap": {"pair": [a, b]}}, classes=frozenset({a, b}))


def _h2(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    concept = str(rng.choice([*ATTRIBUTES, *BACKGROUNDS]))
    fault = {"push": {"label": str(rng.choice(CLASSES)), "concept": concept,
                      "strength": (1.0, 2.0, 3.0)[turn % 3]}}  # fmt: skip
    label = fault["push"]["label"]
    return Instance(row, index, fault, frozenset({concept}), frozenset({label}))


def _h3(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    what = ("noise", "zero", "stale")[turn % 3]
    label = str(rng.choice(CLASSES))
    strength = float(rng.choice([2.0, 3.0, 4.0]))
    fault = {"head": {"what": what, "label": label, "strength": strength}}
    return Instance(row, index, fault, classes=frozenset({label} if what == "zero" else ()))


def _e1(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    # Words that these networks carry: parts that tell classes apart. The channels are those of the
    # third stage: among the embedding's own, half can go without an error.
    known = ("wheels", "wings", "beak", "ears", "tail", "long-snout", "mane", "horns", "hairy")
    concept = str(rng.choice(known))
    n, factor = (24, 32)[turn % 2], (0.0, 3.0, 0.1)[turn % 3]
    fault = {"channels": {"stage": "stage3", "concept": concept, "n": n, "factor": factor}}
    return Instance(row, index, fault, frozenset({concept}))


def _e2(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    what = ("weights", "statistics")[turn % 2]
    stage = STAGES[(turn // 2) % 4]
    return Instance(row, index, {"stage": {"what": what, "stage": stage}})


def _e3(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    what = INPUT_FAULTS[turn % 4]
    strength = {"size": (20, 48, 64), "jpeg": (6, 10, 15)}.get(what, (0, 0, 0))[(turn // 4) % 3]
    return Instance(row, index, {"input": {"what": what, "strength": strength}})


def _a1(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    a, b = _pair(rng)
    while not separating(a, b):
        a, b = _pair(rng)
    what = ATTACKS[turn % 6]
    fault = {"attack": {"what": what, "from": a, "to": b}}
    return Instance(row, index, fault, usual(a) | usual(b), frozenset({a, b}))


def _n0(row: str, index: int, turn: int, rng: np.random.Generator) -> Instance:
    return Instance(row, index, {"none": ("seed", "early stop", "augmentation")[turn % 3]})


_MAKERS = {
    "D1": _d1, "D2": _d2, "D3": _d3, "D4": _d4, "D5": _d5, "H1": _h1, "H2": _h2, "H3": _h3,
    "E1": _e1, "E2": _e2, "E3": _e3, "A1": _a1, "N0": _n0,
}  # fmt: skip
