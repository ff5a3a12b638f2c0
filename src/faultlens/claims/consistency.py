"""Notices about classes that mean something else to the classifier after harmless changes."""

import numpy as np

from faultlens.claims.case import N_IMAGES, Case
from faultlens.claims.groups import slug
from faultlens.claims.wording import portion
from faultlens.files import json_value
from faultlens.finding import Finding
from faultlens.localize.consistency import ClassConsistency, Consistency, by_class
from faultlens.localize.gains import LEVEL

#: The lower bound of a class's excess over the others must exceed this; sound networks show 0.006.
MIN_DIFFERENCE = 0.01


def findings(case: Case, found: Consistency | None) -> list[Finding]:
    """Note each class that is significantly less consistent than the others; evidence only.

    Args:
        case: The case.
        found: From `faultlens.consistency_check.check`; None where it was not asked.

    Returns:
        Notices, least consistent class first; none where the VLM may not judge.
    """
    if found is None or not case.may_judge:
        return []
    compared = by_class(found, case.analysis.evidence.labels[found.rows])
    return [
        _finding(case, found, c)
        for c in compared
        if c.p_value <= LEVEL and c.interval[0] > MIN_DIFFERENCE
    ]


def _finding(case: Case, found: Consistency, c: ClassConsistency) -> Finding:
    name = case.classes[c.k]
    own = case.analysis.evidence.labels[found.rows] == c.k
    order = np.flatnonzero(own)[np.lexsort((-found.excess[own], -found.weight[own]))]
    others = float(found.excess[~own].mean())
    return Finding(
        id=f"consistency-{slug(name)}",
        kind="concepts.consistency",
        severity="notice",
        subject=name,
        claim=(
            f"Cropping, mirroring, lighting or blurring images of {name} reverses "
            f"{portion(c.model)} of the concept pairs in the embedding, but {portion(c.vlm)} in "
            f"what the pictures show: {portion(c.model - c.vlm)} more, against "
            f"{portion(max(others, 0.0))} for the other classes. It changes "
            f"{portion(c.flips)} of their predictions."
        ),
        statistic=c.difference,
        interval=c.interval,
        n=len(found.rows),
        confidence=1 - c.p_value,
        evidence={
            "statistic": "concept pairs reversed beyond the picture's own, above other classes",
            "classes": [name],
            "images": [int(i) for i in found.rows[order[:N_IMAGES]]],
            **json_value(_numbers(found, c, others, order)),
        },
        advice=(f"Train on images of {name} in more views, those below first."),
    )


def _numbers(
    found: Consistency, c: ClassConsistency, others: float, order: np.ndarray
) -> dict[str, object]:
    weights = found.weight[order[:N_IMAGES]]
    return {
        "n_of_class": c.n,
        "model": c.model,
        "vlm": c.vlm,
        "excess_others": others,
        "flips": c.flips,
        "flips_overall": float(found.flips.mean()),
        "weights": [round(float(w), 3) for w in weights],
        "p_value": c.p_value,
    }
