"""Claims about parts of a class that fail, told by the concepts that tell them apart."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims.case import Case
from faultlens.claims.groups import slug
from faultlens.claims.wording import listing, portion
from faultlens.finding import Finding
from faultlens.localize.gains import MIN_SHARE
from faultlens.localize.subclasses import Subclass
from faultlens.localize.subclasses import subclasses as search

#: A part that training lacked or mislabelled holds at least this share of all that a refitted head
#: repairs, and the refit repairs at least `MIN_SHARE` of its errors. Parts that are hard for sound
#: networks hold up to 0.18 and those of broken encoders up to 0.37; planted ones 0.45 and more.
MIN_OF_REPAIRS = 0.40
#: A part that training lacked fails so many times as often as the rest of its class.
MIN_RATIO = 2.0
#: Errors that are mostly explained by another claim are not told again.
MAX_EXPLAINED = 0.5
#: One answer to at least this share of a part's errors is told as what the part is called.
MOSTLY = 2 / 3


def find(case: Case) -> list[Subclass]:
    """Return the parts of classes that fail, with concepts counted among `seen_concepts`.

    As for cues, only images speak that the VLM itself reads rightly; none without a VLM.
    """
    a, e = case.analysis, case.analysis.evidence
    seen, judged = a.seen_concepts, e.is_gated
    if not case.may_judge or not len(seen):
        return []
    found = search(
        a.strengths_vlm[np.ix_(judged, seen)], e.labels[judged], e.predictions[judged],
        len(case.classes),
    )  # fmt: skip
    rows = np.flatnonzero(judged)
    return [replace(s, group=np.isin(np.arange(case.n), rows[s.group])) for s in found]


def findings(
    case: Case, found: list[Subclass], covered: set[str], explained: BoolArray
) -> list[Finding]:
    """Claim each part that no other claim explains; a fault where training seems to have lacked it.

    A part of a class can also be hard for a sound model, or for a broken encoder. What training
    failed to teach, a head refitted on images that include it repairs, and little else.

    Args:
        case: The case.
        found: From `find`.
        covered: Classes that another claim speaks of.
        explained: (n,) errors that another claim explains.

    Returns:
        Faults first, then notices.
    """
    e = case.analysis.evidence
    repaired = e.is_error & e.is_gated & (e.refit == e.labels) & ~explained
    told = []
    for part in found:
        errors = part.group & e.is_error
        if case.classes[part.k] in covered or explained[errors].mean() > MAX_EXPLAINED:
            continue
        told.append(_finding(case, part, errors, _Repairs.of(errors, repaired)))
    return sorted(told, key=lambda f: f.severity)


@dataclass(frozen=True, slots=True)
class _Repairs:
    """What a refitted head repairs of a part's errors.

    Attributes:
        share: Of the part's errors.
        of_all: Of all that it repairs, on images that may speak, and no other claim explains.
    """

    share: float
    of_all: float

    @classmethod
    def of(cls, errors: BoolArray, repaired: BoolArray) -> "_Repairs":
        n = int((errors & repaired).sum())
        return cls(n / int(errors.sum()), n / max(int(repaired.sum()), 1))

    @property
    def is_concentrated(self) -> bool:
        return self.share >= MIN_SHARE and self.of_all >= MIN_OF_REPAIRS


def _finding(case: Case, part: Subclass, errors: BoolArray, repairs: _Repairs) -> Finding:
    label = case.classes[part.k]
    names = [case.concepts[case.analysis.seen_concepts[c]] for c in part.concepts]
    sides = ["with" if is_with else "without" for is_with in part.presence]
    which = listing([f"{side} {name}" for side, name in zip(sides, names, strict=True)])
    # Errors strewn over the class, or hanging on single pixels, were not taught.
    is_apart = part.errors.value >= MIN_RATIO * part.rest.value and not case.is_fragile(errors)
    is_fault = repairs.is_concentrated and is_apart and not part.is_cue
    return Finding(
        id=f"subclass-{slug(label)}-{'-'.join(map(slug, names))}",
        kind="localization.data" if is_fault else "concepts.subclass",
        severity="fault" if is_fault else "notice",
        subject=label,
        claim=f"{_what(case, part, label, which)}; {_why(case, part, which, repairs, is_fault)}",
        statistic=part.errors.value - part.rest.value,
        interval=part.gap,
        n=part.errors.n + part.rest.n,
        confidence=_confidence(part, repairs, is_fault),
        evidence=case.evidence(
            errors,
            "error rate above the rest of the class",
            case.changed(errors),
            classes=[label],
            subclass_concept=names[0],
            presence=sides[0],
            **_numbers(case, part, repairs, list(zip(names, sides, strict=True))),
        ),
        advice=_advice(label, which, case.classes[part.called], is_fault),
    )


def _what(case: Case, part: Subclass, label: str, which: str) -> str:
    called, rest = case.classes[part.called], f"of the other images of {label}"
    if part.share.value >= MOSTLY * part.errors.value:
        return (
            f"{label} {which} is called {called} in {portion(part.share.value)} of {part.errors.n} "
            f"images, against {portion(part.share_rest.value)} {rest}"
        )
    return (
        f"{label} {which} is missed in {portion(part.errors.value)} of {part.errors.n} images, "
        f"against {portion(part.rest.value)} {rest}, and most often called {called}"
    )


def _why(case: Case, part: Subclass, which: str, repairs: _Repairs, is_fault: bool) -> str:
    if part.is_cue:
        return (
            f"other classes {which} are called {case.classes[part.called]} too, "
            f"{portion(part.drawn.value)} more often than else: less a part of this class than a "
            "cue."
        )
    repaired = f"a refitted head repairs {portion(repairs.share)} of these errors"
    if is_fault:
        called = case.classes[part.called]
        alone = (
            "" if np.isnan(part.drawn.value) else f"no other class {which} is drawn to {called}, "
        )
        alone = f"{alone}and " if alone else ""
        return f"{alone}{repaired}: the training data lacked or mislabelled them."
    return (
        f"{repaired}, {portion(repairs.of_all)} of all that it repairs: a part that this model "
        "finds hard, for whatever reason."
    )


def _confidence(part: Subclass, repairs: _Repairs, is_fault: bool) -> float:
    """That the part fails at all; of a fault, 1/2 where the refit just speaks for it."""
    return 1 - 0.5 * MIN_OF_REPAIRS / repairs.of_all if is_fault else 1 - part.p_value


def _numbers(
    case: Case, part: Subclass, repairs: _Repairs, concepts: list[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "subclass": [{"concept": name, "presence": side} for name, side in concepts],
        "called": case.classes[part.called],
        "errors": part.errors._asdict(),
        "errors_rest": part.rest._asdict(),
        "share": part.share._asdict(),
        "share_rest": part.share_rest._asdict(),
        "drawn": part.drawn._asdict(),
        "is_cue": part.is_cue,
        "repaired_by_refit": repairs.share,
        "share_of_repairs": repairs.of_all,
        "p_value": part.p_value,
    }


def _advice(label: str, which: str, called: str, is_fault: bool) -> str:
    if is_fault:
        return (
            f"Look for {label} {which} in the training data: whether there is any, and whether it "
            f"is labelled {called}. Correct the labels or collect such images, and train again."
        )
    return f"Look at these images first; more of {label} {which} in training may help."
