"""Claims about parts of a class that fail, told by the concepts that tell them apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims import confusion
from faultlens.claims.case import Case
from faultlens.claims.groups import slug
from faultlens.claims.wording import listing, portion
from faultlens.finding import Finding
from faultlens.localize.gains import MIN_SHARE
from faultlens.localize.subclasses import Subclass, subclasses

#: A part that training lacked or mislabelled holds at least this share of all that a refitted head
#: repairs, and the refit repairs at least `MIN_SHARE` of its errors. Parts that are hard for sound
#: networks hold up to 0.18 and those of broken encoders up to 0.37; planted ones 0.45 and more.
MIN_OF_REPAIRS = 0.40
#: A part that training lacked fails so many times as often as the rest of its class.
MIN_RATIO = 2.0
#: Where nearly all that a refit repairs lies in one part, the rest of the class may fail too.
MIN_OF_REPAIRS_ALONE, MIN_RATIO_ALONE = 0.60, 1.3
#: Errors that are mostly explained by another claim are not told again.
MAX_EXPLAINED = 0.5
#: One answer to at least this share of a part's errors is told as what the part is called.
MOSTLY = 2 / 3


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a class that fails, with what a refitted head repairs of it.

    Attributes:
        found: The part, its concepts counted among `seen_concepts`.
        errors: (n,) its errors.
        repaired: Share of them that a refitted head repairs.
        of_repairs: Share of all that it repairs, and no other claim explains, that lies here.
        may_be_taught: Whether its errors stay under small changes of the pictures.
    """

    found: Subclass
    errors: BoolArray
    repaired: float
    of_repairs: float
    may_be_taught: bool

    @property
    def is_fault(self) -> bool:
        """Whether training seems to have lacked or mislabelled it."""
        is_concentrated = self.repaired >= MIN_SHARE and self.of_repairs >= MIN_OF_REPAIRS
        # Errors strewn over the class, or hanging on single pixels, were not taught.
        least = MIN_RATIO if self.of_repairs < MIN_OF_REPAIRS_ALONE else MIN_RATIO_ALONE
        is_apart = self.found.errors.value >= least * self.found.rest.value
        return is_concentrated and is_apart and self.may_be_taught and not self.found.is_cue


def find(case: Case, explained: BoolArray) -> list[Part]:
    """Return the parts of classes that fail and that no other claim explains.

    As for cues, only images speak that the VLM itself reads rightly; none without a VLM. A part can
    be hard for a sound model too, or for a broken encoder. What training failed to teach, a head
    refitted on images that include it repairs, and little else.

    Args:
        case: The case.
        explained: (n,) errors that another claim explains.
    """
    a, e = case.analysis, case.analysis.evidence
    seen, judged = a.seen_concepts, e.is_gated
    if not case.may_judge or not len(seen):
        return []
    repaired = e.is_error & judged & (e.refit == e.labels) & ~explained
    rows = np.flatnonzero(judged)
    parts = []
    for s in subclasses(
        a.strengths_vlm[np.ix_(judged, seen)], e.labels[judged], e.predictions[judged],
        len(case.classes),
    ):  # fmt: skip
        group = np.isin(np.arange(case.n), rows[s.group])
        errors = group & e.is_error
        if explained[errors].mean() <= MAX_EXPLAINED:
            n = int((errors & repaired).sum())
            share, of_all = n / int(errors.sum()), n / max(int(repaired.sum()), 1)
            is_taught = case.may_be_taught(errors)
            parts.append(Part(replace(s, group=group), errors, share, of_all, is_taught))
    return parts


def explained(case: Case, parts: Sequence[Part]) -> BoolArray:
    """Return the errors of the parts that training lacked or mislabelled."""
    out = np.zeros(case.n, bool)
    for part in parts:
        if part.is_fault:
            out |= part.errors
    return out


def findings(case: Case, parts: Sequence[Part], covered: set[str]) -> list[Finding]:
    """Claim each part: faults of the training data first, then notices of what is hard.

    Args:
        case: The case.
        parts: From `find`.
        covered: Classes that another claim speaks of; no notice is added to those.
    """
    told = [p for p in parts if p.is_fault or case.classes[p.found.k] not in covered]
    return sorted((_finding(case, part) for part in told), key=lambda f: f.severity)


def _finding(case: Case, part: Part) -> Finding:
    s, label = part.found, case.classes[part.found.k]
    names = [case.concepts[case.analysis.seen_concepts[c]] for c in s.concepts]
    sides = ["with" if is_with else "without" for is_with in s.presence]
    which = listing([f"{side} {name}" for side, name in zip(sides, names, strict=True)])
    return Finding(
        id=f"subclass-{slug(label)}-{'-'.join(map(slug, names))}",
        kind="localization.data" if part.is_fault else "concepts.subclass",
        severity="fault" if part.is_fault else "notice",
        subject=label,
        claim=f"{_what(case, s, label, which)}; {_why(case, part, which)}",
        statistic=s.errors.value - s.rest.value,
        interval=s.gap,
        n=s.errors.n + s.rest.n,
        # Of a fault, 1/2 where the refit just speaks for it; else that the part fails at all.
        confidence=1 - 0.5 * MIN_OF_REPAIRS / part.of_repairs if part.is_fault else 1 - s.p_value,
        evidence=case.evidence(
            part.errors,
            "error rate above the rest of the class",
            case.changed(part.errors),
            classes=[label],
            subclass_concept=names[0],
            presence=sides[0],
            splitting=confusion.splitting(case, s.k, s.called),
            **_numbers(case, part, list(zip(names, sides, strict=True))),
        ),
        advice=_advice(label, which, case.classes[s.called], part.is_fault),
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


def _why(case: Case, part: Part, which: str) -> str:
    called, drawn = case.classes[part.found.called], part.found.drawn.value
    if part.found.is_cue:
        return (
            f"other classes {which} are called {called} too, {portion(drawn)} more often than "
            "else: less a part of this class than a cue."
        )
    repaired = f"a refitted head repairs {portion(part.repaired)} of these errors"
    if part.is_fault:
        alone = "" if np.isnan(drawn) else f"no other class {which} is drawn to {called}, and "
        return f"{alone}{repaired}: the training data lacked or mislabelled them."
    return (
        f"{repaired}, {portion(part.of_repairs)} of all that it repairs: a part that this model "
        "finds hard, for whatever reason."
    )


def _numbers(case: Case, part: Part, concepts: list[tuple[str, str]]) -> dict[str, Any]:
    s = part.found
    return {
        "subclass": [{"concept": name, "presence": side} for name, side in concepts],
        "called": case.classes[s.called],
        "errors": s.errors._asdict(),
        "errors_rest": s.rest._asdict(),
        "share": s.share._asdict(),
        "share_rest": s.share_rest._asdict(),
        "drawn": s.drawn._asdict(),
        "is_cue": s.is_cue,
        "repaired_by_refit": part.repaired,
        "share_of_repairs": part.of_repairs,
        "p_value": s.p_value,
    }


def _advice(label: str, which: str, called: str, is_fault: bool) -> str:
    if is_fault:
        return (
            f"Look for {label} {which} in the training data: whether there is any, and whether it "
            f"is labelled {called}. Correct the labels or collect such images, and train again."
        )
    return f"Look at these images first; more of {label} {which} in training may help."
