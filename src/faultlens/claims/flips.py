"""Claims about training labels: a part of one class was given another class's name."""

import numpy as np

from faultlens.claims import confusion
from faultlens.claims.case import Case
from faultlens.claims.wording import listing, portion
from faultlens.finding import Finding
from faultlens.localize.flips import Flip, flips

#: A class that is mostly called another was not mislabelled now and then; something exchanges it.
MAX_RATE = 0.5


def find(case: Case) -> list[Flip]:
    """Return the flips of a case that can be label errors."""
    e = case.analysis.evidence
    return [f for f in flips(e.logits, e.labels) if f.rate < MAX_RATE]


def findings(case: Case, found: list[Flip]) -> list[Finding]:
    """Claim each flip as a fault of the training labels."""
    return [_finding(case, flip) for flip in found]


def _halves(case: Case, flip: Flip, concept: str) -> tuple[float, float]:
    """Mean probability of the given class, in the half of images with most of a concept, and else.

    Both among the images of the class.
    """
    strength = case.analysis.strengths_vlm[flip.images, case.concepts.index(concept)]
    upper = strength > np.median(strength)
    return float(flip.probability[upper].mean()), float(flip.probability[~upper].mean())


def _finding(case: Case, flip: Flip) -> Finding:
    label, given = case.classes[flip.label], case.classes[flip.given]
    splitting = confusion.splitting(case, flip.label, flip.given)
    apart = confusion.apart(case, flip.label, flip.given)
    n_errors = int(flip.errors.sum())
    said = side = ""
    if splitting:
        first, r = str(splitting[0]["concept"]), splitting[0]["correlation"]
        most, least = _halves(case, flip, first)
        side = f"{'with' if r < 0 else 'without'} {first}"
        said = (
            f" In the half of them with most {first} it gives {portion(most)} on average, in the "
            f"other {portion(least)}."
        )
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
            splitting=splitting,
            apart=apart,
        ),
        advice=(
            f"Look through the training labels of {given} for images of {label}"
            + (f", first those {side}" if side else "")
            + "; correct them and train again, or refit the head on clean labels."
        ),
    )
