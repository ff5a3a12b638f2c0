"""Claims about the place where an encoder breaks: the first layer that is fed what it never saw."""

import math

from faultlens.claims.case import Case
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.models.drift import MIN_DRIFT, NormDrift, first_break


def drift(case: Case) -> list[Finding]:
    """Claim a broken encoder, or a wrong input, from what normalisation layers remember."""
    found = first_break(case.drifts)
    return [] if found is None else [_finding(case, found)]


def _finding(case: Case, i: int) -> Finding:
    d = case.drifts[i]
    before = case.drifts[i - 1].layer if i else None
    where = f"between {before} and {d.layer}" if before else f"before {d.layer}, at the input"
    calm = max((x.size for x in case.drifts[:i]), default=0.0)
    n_errors = int(case.is_error.sum())
    return Finding(
        id="drift",
        kind="localization.encoder" if before else "localization.input",
        severity="fault",
        subject=d.layer,
        claim=(
            f"The encoder breaks {where}: {_told(d)} what it was trained on"
            + (f", while all layers before it stay within {calm:.2f}." if before else ".")
            + f" {portion(n_errors / case.n)} of the images are misclassified."
        ),
        statistic=d.size,
        interval=(d.size, d.size),
        n=d.n,
        confidence=1 - 0.5 * MIN_DRIFT / d.size,
        evidence=case.evidence(
            case.is_error,
            "distance of a layer's input from the one it remembers",
            case.broken_concepts() or case.changed(case.is_error),
            layers=[
                {"layer": x.layer, "shift": x.shift, "stretch": x.stretch} for x in case.drifts
            ],
        ),
        advice=(
            f"Compare the weights and running statistics {where} with the training checkpoint."
            if before
            else "Compare the preprocessing and the first layer with those of training."
        ),
    )


def _told(d: NormDrift) -> str:
    if d.shift >= d.stretch:
        return f"the input of {d.layer} lies {d.shift:.1f} standard deviations from"
    factor = math.exp(d.stretch)
    return f"the spread of the input of {d.layer} differs by a factor of {factor:.1f} from"
