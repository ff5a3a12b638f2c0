"""What specs may speak of, each with one meaning: as ground formula, or as a signal.

Data, linear constraints and negation all follow from that meaning (`formula.py`). A new one is a
function here and a line in `PREDICATES`; other packages add theirs through entry points of the
group `faultlens.predicate`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray
from faultlens.errors import InputError, SpecError
from faultlens.registry import Registry
from faultlens.spec.formula import AtLeast, Comparison, Formula, all_of, any_of, negate

#: Kinds of arguments: names resolve to places, a rank to 1..K, a threshold to (operator, number).
KINDS = ("concept", "class", "rank", "threshold")


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What a spec is resolved against: the session's names, thresholds and relevance.

    Attributes:
        concepts: Their order is that of the strengths.
        classes: Their order is that of the logits.
        thresholds: (C,) of `hasCon`, NaN where there is none; None for none at all.
        relevant: (K, C) which concepts a class should have; None where nobody said.
        has_truth: Whether specs are asked of images only, so that they may speak of what an image
            has and an embedding has not: its label, and the class its picture shows.
    """

    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    thresholds: FloatArray | None = None
    relevant: BoolArray | None = None
    has_truth: bool = False

    def __post_init__(self) -> None:
        c, k = len(self.concepts), len(self.classes)
        if len(set(self.concepts)) < c or len(set(self.classes)) < k:
            raise InputError("concepts and classes must each be named once; rename the doubles")
        if self.thresholds is not None and np.shape(self.thresholds) != (c,):
            raise InputError(f"thresholds must be ({c},), got {np.shape(self.thresholds)}")
        if self.relevant is not None and np.shape(self.relevant) != (k, c):
            raise InputError(f"relevant must be ({k}, {c}), got {np.shape(self.relevant)}")

    def logit(self, cls: int) -> int:
        """Return the signal of a class's logit: logits follow the strengths."""
        return len(self.concepts) + cls

    def label(self, cls: int) -> int:
        """Return the signal that is 1 on images labelled as a class, else -1."""
        return len(self.concepts) + len(self.classes) + cls

    def seen(self, cls: int) -> int:
        """Return the signal that is 1 where the vision-language model names a class, else -1."""
        return len(self.concepts) + 2 * len(self.classes) + cls


@dataclass(frozen=True, slots=True, eq=False)
class Predicate:
    """Something that holds or not.

    Attributes:
        signature: Kinds of its arguments; a threshold may be left out.
        meaning: Of the scope and the resolved arguments.
        is_of_images: Whether it asks for the truth of an image, which no embedding holds: it is
            refused where the scope has none.
    """

    signature: tuple[str, ...]
    meaning: Callable[..., Formula]
    is_of_images: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """Something that comparisons compare.

    Attributes:
        signature: Kinds of its arguments.
        signal: Of the scope and the resolved arguments.
    """

    signature: tuple[str, ...]
    signal: Callable[..., int]


def above(left: int, right: int) -> Comparison:
    """Return that one signal is strictly larger than another.

    Example:
        >>> above(3, 1)
        Comparison(terms=((1, -1.0), (3, 1.0)), constant=0.0, is_strict=True)
    """
    return Comparison(tuple(sorted(((left, 1.0), (right, -1.0)))))


def _rivals(scope: Scope, cls: int) -> tuple[Comparison, ...]:
    own = scope.logit(cls)
    return tuple(above(own, scope.logit(k)) for k in range(len(scope.classes)) if k != cls)


def _predict(scope: Scope, cls: int) -> Formula:
    """The class's logit is strictly above every other; so a tie predicts nothing."""
    return all_of(*_rivals(scope, cls))


def _top(scope: Scope, rank: int, cls: int) -> Formula:
    """The class's logit is strictly above at least K - rank others."""
    return AtLeast(len(scope.classes) - rank, _rivals(scope, cls))


def _has(scope: Scope, concept: int, threshold: tuple[str, float] | None) -> Formula:
    """The strength exceeds the concept's threshold, or the one that is given."""
    operator, value = threshold or (">", _calibrated(scope, concept))
    return Comparison(((concept, 1.0),), 0.0 - value, operator == ">")


def _calibrated(scope: Scope, concept: int) -> float:
    value = np.nan if scope.thresholds is None else float(scope.thresholds[concept])
    if np.isfinite(value):
        return value
    raise SpecError(
        f"hasCon must have a threshold, got none for '{scope.concepts[concept]}'; "
        "write it as a second argument, such as > 0.1"
    )


def _label(scope: Scope, cls: int) -> Formula:
    """The image is labelled as the class."""
    return Comparison(((scope.label(cls), 1.0),))


def _seen(scope: Scope, cls: int) -> Formula:
    """The vision-language model, shown the image, names the class."""
    return Comparison(((scope.seen(cls), 1.0),))


def _correct(scope: Scope) -> Formula:
    """The label is predicted; a tie predicts nothing."""
    return any_of(
        *(all_of(_label(scope, k), _predict(scope, k)) for k in range(len(scope.classes)))
    )


PREDICT = Predicate(("class",), _predict)
TOP = Predicate(("rank", "class"), _top)
HAS_CON = Predicate(("concept", "threshold"), _has)
LABEL = Predicate(("class",), _label, is_of_images=True)
SEEN = Predicate(("class",), _seen, is_of_images=True)
CORRECT = Predicate((), _correct, is_of_images=True)
WRONG = Predicate((), lambda scope: negate(_correct(scope)), is_of_images=True)
STRENGTH = Quantity(("concept",), lambda scope, concept: concept)
LOGIT = Quantity(("class",), lambda scope, cls: scope.logit(cls))

PREDICATES = Registry(
    "predicate",
    {
        "predict": "faultlens.spec.predicate:PREDICT",
        "top": "faultlens.spec.predicate:TOP",
        "hasCon": "faultlens.spec.predicate:HAS_CON",
        "label": "faultlens.spec.predicate:LABEL",
        "vlm": "faultlens.spec.predicate:SEEN",
        "correct": "faultlens.spec.predicate:CORRECT",
        "wrong": "faultlens.spec.predicate:WRONG",
        "str": "faultlens.spec.predicate:STRENGTH",
        "logit": "faultlens.spec.predicate:LOGIT",
    },
)
