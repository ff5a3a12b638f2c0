"""Claims about what a class leans on: cues that move its logit before they cost many errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims.case import Case
from faultlens.claims.erasure import told
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.heatmaps import MIN_IMAGES
from faultlens.localize.causal import LEVEL
from faultlens.localize.cues import Cue, present
from faultlens.localize.reliance import Reliance, reliances
from faultlens.stats import holm


@dataclass(frozen=True, slots=True, eq=False)
class Leaning:
    """A class that leans on a concept, with the errors that follow it.

    Attributes:
        reliance: With the concept counted among all concepts.
        errors: (n,) images of other classes with the concept that are called the class, and images
            of the class without it that are missed.
    """

    reliance: Reliance
    errors: BoolArray


def find(case: Case, cues: Sequence[Cue]) -> list[Leaning]:
    """Return what classes lean on, at the cost of some errors, beyond the cues known already."""
    a, e = case.analysis, case.analysis.evidence
    seen, judged = a.seen_concepts, e.is_gated
    if not case.may_judge or not len(seen):
        return []
    long = case.long_rows
    known = {(c.k, int(seen[c.concept])) for c in cues}
    presence = np.zeros((case.n, len(seen)), bool)
    presence[judged] = present(a.strengths_vlm[np.ix_(judged, seen)])
    relevant = case.relevant[:, seen]
    found = []
    for r in reliances(presence[judged], e.labels[judged], e.logits[judged], relevant):
        concept = int(seen[r.concept])
        there, is_k, called = presence[:, r.concept], e.labels == r.k, e.predictions == r.k
        errors = judged & ((~is_k & called & there) | (is_k & ~called & ~there))
        if (r.k, concept) in known or r.k in long or errors.sum() < MIN_IMAGES:
            continue
        whole = Reliance(concept, r.k, r.attracted, r.own, r.z)
        found.append(Leaning(whole, errors))
    return found


def findings(case: Case, found: Sequence[Leaning]) -> list[Finding]:
    """Claim each as a fault of what the model was taught, confirmed where erasing it helps."""
    if case.erasure is None:
        return [_finding(case, one, None) for one in found]
    tried = [case.erasure.of(case.analysis, x.errors, x.reliance.concept) for x in found]
    p_values = holm(np.array([t.p_value for t in tried]))
    return [
        _finding(case, one, told(case.concepts[one.reliance.concept], t, float(p)))
        for one, t, p in zip(found, tried, p_values, strict=True)
    ]


def _finding(case: Case, one: Leaning, intervention: dict[str, object] | None) -> Finding:
    r = one.reliance
    name, label = case.concepts[r.concept], case.classes[r.k]
    n, n_errors = int(one.errors.sum()), int(case.is_error.sum())
    half = 1.96 * r.effect / r.z
    return Finding(
        id=f"leans-{label}-{name}".replace(" ", "-"),
        kind="localization.data",
        severity="fault",
        subject=label,
        claim=(
            f"The model leans on {name} for {label}: among images of one class, {name} alone "
            f"raises the logit of {label} by {r.attracted:.1f} standard deviations in other "
            f"classes and {r.own:.1f} in {label}. {n} of {n_errors} errors "
            f"({portion(n / n_errors)}) go with it."
        ),
        statistic=r.effect,
        interval=(r.effect - half, r.effect + half),
        n=int(case.analysis.evidence.is_gated.sum()),
        confidence=1 - 0.5 * min(1.0, 0.35 / r.effect),
        confirmed=intervention is not None and float(str(intervention["p_value"])) <= LEVEL,
        evidence=case.evidence(
            one.errors,
            "ratio of effect to the spread of logits",
            case.changed(one.errors & (case.analysis.evidence.labels == r.k)),
            classes=[label],
            cue=name,
            attracted=r.attracted,
            own=r.own,
            z=r.z,
            **({"intervention": intervention} if intervention else {}),
        ),
        advice=(
            f"Look whether {label} was trained mostly with {name}. Collect {label} without {name} "
            f"and other classes with {name}, or weigh such images up."
        ),
    )
