"""Claims about training labels: a part of one class was given another class's name."""

import numpy as np

from faultlens.claims.case import Case
from faultlens.claims.wording import listing, portion
from faultlens.finding import Finding
from faultlens.localize.cues import present
from faultlens.localize.flips import Flip, FlipConcept, flip_concepts, flips
from faultlens.stats import auroc

#: A class that is mostly called another was not mislabelled now and then; something exchanges it.
MAX_RATE = 0.5
#: Flips belong to a subclass where a concept makes at least this difference, as a share of the mean
#: rate. Where
#: flips are fewer with a concept it must be larger: whatever makes images harder to read lowers
#: every probability.
MIN_MORE, MIN_LESS = 0.2, 0.5
_N_CONCEPTS = 3


def find(case: Case) -> list[Flip]:
    """Return the flips of a case that can be label errors."""
    e = case.analysis.evidence
    return [f for f in flips(e.logits, e.labels) if f.rate < MAX_RATE]


def findings(case: Case, found: list[Flip]) -> list[Finding]:
    """Claim each flip as a fault of the training labels."""
    return [_finding(case, flip) for flip in found]


def concepts(case: Case, flip: Flip) -> tuple[list[FlipConcept], list[str]]:
    """Return the concepts that flips go with inside their class, and those that tell both apart."""
    a, seen = case.analysis, case.analysis.seen_concepts
    if not len(seen) or not a.class_validity.is_usable:
        return [], []
    s = a.strengths_vlm[:, seen]
    inside = [
        c
        for c in flip_concepts(flip, present(s))
        if not -MIN_LESS * flip.rate < c.difference < MIN_MORE * flip.rate
    ]
    both = np.isin(a.evidence.labels, [flip.label, flip.given])
    areas = auroc(s[both], a.evidence.labels[both] == flip.given)
    order = np.argsort(-np.abs(areas - 0.5), kind="stable")
    return inside, [case.concepts[seen[c]] for c in order[:_N_CONCEPTS]]


def _finding(case: Case, flip: Flip) -> Finding:
    label, given = case.classes[flip.label], case.classes[flip.given]
    inside, apart = concepts(case, flip)
    names = [case.concepts[case.analysis.seen_concepts[c.concept]] for c in inside]
    n_errors = int(flip.errors.sum())
    said = side = ""
    if inside:
        side = "with" if inside[0].difference > 0 else "without"
        with_, without = portion(inside[0].with_concept), portion(inside[0].without_concept)
        high, low = (with_, without) if side == "with" else (without, with_)
        said = f" It is {high} {side} {names[0]}, against {low} else."
    elif apart:
        said = f" {listing(apart)} tell the two apart."
    return Finding(
        id=f"flips-{label}-{given}".replace(" ", "-"),
        kind="localization.data",
        severity="fault",
        subject=label,
        claim=(
            f"About {portion(flip.rate)} of {label} were labelled {given} in training: the model "
            f"gives {given} at least {portion(flip.floor)} on nine in ten images of {label}, and "
            f"no other class above {portion(flip.next_floor)}.{said} {n_errors} of "
            f"{int(case.is_error.sum())} errors are of this kind."
        ),
        statistic=flip.rate,
        interval=flip.interval,
        n=int(flip.images.sum()),
        confidence=1 - 0.5 * flip.next_floor / flip.floor,
        evidence=case.evidence(
            flip.errors,
            f"probability of {given} on images of {label}",
            case.changed(flip.errors),
            classes=[label, given],
            flip={"label": label, "given": given, "floor": flip.floor, "low": flip.floor_low},
            flip_concepts=[
                {
                    "concept": name,
                    "with": c.with_concept,
                    "without": c.without_concept,
                    "p_value": c.p_value,
                }
                for name, c in zip(names, inside, strict=True)
            ],
            apart=apart,
        ),
        advice=(
            f"Look through the training labels of {given} for images of {label}"
            + (f", first those {side} {names[0]}" if inside else "")
            + "; correct them and train again, or refit the head on clean labels."
        ),
    )
