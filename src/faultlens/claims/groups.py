"""Claims about one class, subclass or attribute that fails far more than the others."""

import re

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims import confusion
from faultlens.claims.case import Case
from faultlens.claims.wording import portion, words
from faultlens.finding import Finding
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize import gains
from faultlens.localize.gains import Gap

_WHERE = {
    "head": "The head is at fault: the embeddings carry the right meaning",
    "encoder": "The encoder is at fault",
    "unknown": "Encoder or head cannot be told apart",
}
_ADVICE = {
    "head": "Refit the last layer with these images weighted up; check how their class is encoded.",
    "encoder": "Collect or up-weight images like these and fine-tune the encoder on them.",
    "unknown": "Look at these images first; describe them better in concepts and class names.",
}


def classes(case: Case, covered: set[str]) -> list[Finding]:
    """Claim classes far behind the others, except those a head finding already explains."""
    e = case.analysis.evidence
    found = []
    for gap in gains.class_gaps(e, case.classes):
        if gap.is_fault and gap.subject not in covered:
            group = e.labels == case.classes.index(gap.subject)
            found.append(_finding(case, gap, group, "class", "the other classes"))
    return found


def slices(case: Case) -> list[Finding]:
    """Claim subclasses and attributes far behind the rest of their class."""
    e = case.analysis.evidence
    found = []
    for gap in gains.slice_gaps(e, case.slices):
        if gap.is_fault:
            rest = "other images of the same classes"
            group = case.slices[gap.subject] == 1
            found.append(_finding(case, gap, group, "slice", rest))
    return found


def _finding(case: Case, gap: Gap, group: BoolArray, kind: str, rest: str) -> Finding:
    errors = group & case.is_error
    module = case.module(group, case.classes.index(gap.subject) if kind == "class" else None)
    concepts = case.changed(errors)
    said = words(concepts)
    label, predicted, n = case.confusions(errors)[0]
    claim = (
        f"{gap.subject} fails in {portion(gap.n_errors / gap.n)} of {gap.n} images, against "
        f"{portion(gap.rest)} of {rest}; {n} of {gap.n_errors} errors are called "
        f"{case.classes[predicted]}. {_WHERE[module]}"
    )
    claim += f"; the embeddings of these errors say {said}." if said else "."
    rate = case.oracle_rate(group)
    agree = rate if module == "head" else 1 - rate
    return Finding(
        id=f"{kind}-{slug(gap.subject)}",
        kind=f"localization.{module}",
        severity="fault",
        subject=gap.subject,
        claim=claim,
        statistic=gap.gap,
        interval=gap.interval,
        n=gap.n,
        # Sure of the module where there is one, else that the group fails at all.
        confidence=agree if module != "unknown" and np.isfinite(rate) else 1 - gap.p_value,
        evidence=case.evidence(
            errors,
            f"error rate above {rest}",
            concepts,
            group=kind,
            **confusion.of_errors(case, errors),
            classes=[case.classes[label]],
            p_value=gap.p_value,
        ),
        advice=_ADVICE[module],
    )


def differences(case: Case, covered: set[str], explained: BoolArray) -> list[Finding]:
    """Note classes without a fault whose errors still share something: significant concepts.

    Args:
        case: The case.
        covered: Classes that another claim speaks of.
        explained: (n,) errors that another claim explains.
    """
    e = case.analysis.evidence
    found = []
    for k, name in enumerate(case.classes):
        errors = (e.labels == k) & e.is_error & ~explained
        if name in covered or errors.sum() < MIN_IMAGES:
            continue
        concepts = case.changed(errors)
        if not concepts:
            continue
        said = words(concepts) or words(concepts, "vlm")
        where = "embeddings say" if words(concepts) else "pictures show"
        first = concepts[0]
        found.append(
            Finding(
                id=f"concepts-{slug(name)}",
                kind="concepts.differ",
                severity="notice",
                subject=name,
                claim=f"When {name} is missed, the {where} {said} than when it is recognised.",
                statistic=first.effect,
                interval=first.interval,
                n=int(errors.sum()),
                confidence=1 - first.q_value,
                evidence=case.evidence(
                    errors, f"change of rank of {first.concept}", concepts, classes=[name]
                ),
                advice="Compare the images below; an association, not yet a cause.",
            )
        )
    return found


def slug(name: str) -> str:
    """Return a name fit for an identifier.

    Example:
        >>> slug("Crocodile head!")
        'crocodile-head'
    """
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-") or "unnamed"
