"""Claims about cues: concepts that the model takes for classes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims.case import Case
from faultlens.claims.erasure import told
from faultlens.claims.minimal import minimal_set
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.localize.causal import LEVEL
from faultlens.localize.cues import Cue, cues
from faultlens.localize.responsible import ResponsibleConcept
from faultlens.stats import holm


def find(case: Case) -> list[Cue]:
    """Return the cues of a case, with concepts counted among `seen_concepts`; none without a VLM.

    Only images that the VLM itself reads rightly speak: where it too sees the other class, the
    picture may be what is ambiguous. Where a class's head row is far too long, the head was
    changed: what it follows then was not taught.
    """
    a, e = case.analysis, case.analysis.evidence
    seen, judged = a.seen_concepts, e.is_gated
    if not case.may_judge or not len(seen):
        return []
    found = cues(
        a.strengths_vlm[np.ix_(judged, seen)], e.labels[judged], e.predictions[judged],
        len(case.classes),
    )  # fmt: skip
    rows, long = np.flatnonzero(judged), case.long_rows
    return [
        replace(c, errors=np.isin(np.arange(case.n), rows[c.errors]))
        for c in found
        if c.k not in long
    ]


def explained(case: Case, found: Sequence[Cue]) -> BoolArray:
    """Return the errors that follow some cue."""
    out = np.zeros(case.n, bool)
    for cue in found:
        out |= cue.errors
    return out


def findings(case: Case, found: Sequence[Cue]) -> list[Finding]:
    """Claim each cue as a fault of what the model was taught, confirmed where erasing it helps."""
    if case.erasure is None:
        return [_finding(case, cue, None) for cue in found]
    seen = case.analysis.seen_concepts
    tried = [case.erasure.of(case.analysis, c.errors, int(seen[c.concept])) for c in found]
    p_values = holm(np.array([t.p_value for t in tried]))
    return [
        _finding(case, cue, told(case.concepts[seen[cue.concept]], t, float(p)))
        for cue, t, p in zip(found, tried, p_values, strict=True)
    ]


def _finding(case: Case, cue: Cue, intervention: dict[str, Any] | None) -> Finding:
    e = case.analysis.evidence
    name = case.concepts[case.analysis.seen_concepts[cue.concept]]
    label = case.classes[cue.k]
    n_errors, n_judged = int(case.is_error.sum()), int(e.is_gated.sum())
    n = int(cue.errors.sum())
    repaired = int((cue.errors & (e.refit == e.labels)).sum())
    changed = case.changed(cue.errors & (e.labels == cue.k))
    smallest = _minimal(case, cue, changed)
    a, m = cue.attracted, cue.missed
    weaker = a if a.value < m.value else m
    return Finding(
        id=f"cue-{label}-{name}".replace(" ", "-"),
        kind="localization.data",
        severity="fault",
        subject=label,
        claim=(
            f"The model takes {name} for {label}: images of other classes with {name} are called "
            f"{label} in {portion(a.with_cue)} of cases, against {portion(a.without_cue)} without "
            f"it, and {label} without {name} is missed in {portion(m.without_cue)}, against "
            f"{portion(m.with_cue)} with it. {n} of {n_errors} errors are of this kind."
        ),
        statistic=weaker.value,
        interval=weaker.interval,
        n=n_judged,
        confidence=1 - cue.p_value,
        confirmed=intervention is not None and intervention["p_value"] <= LEVEL,
        evidence=case.evidence(
            cue.errors,
            f"difference that {name} makes, the smaller of the two",
            changed,
            classes=[label],
            cue=name,
            attracted=a._asdict(),
            missed=m._asdict(),
            repaired_by_refit=repaired,
            p_value=cue.p_value,
            **({"intervention": intervention} if intervention else {}),
            **({"minimal_set": smallest} if smallest else {}),
        ),
        advice=(
            f"Look whether {label} was trained mostly with {name}. Collect {label} without {name} "
            f"and other classes with {name}, or weigh such images up; a head refitted on the "
            f"images here already repairs {repaired} of these {n} errors. If the training images "
            f"were balanced, compare the head's row of {label} with its checkpoint."
        ),
    )


def _minimal(case: Case, cue: Cue, changed: Sequence[ResponsibleConcept]) -> dict[str, Any] | None:
    """Ask whether the cue carries its errors alone, or which others it needs."""
    if case.erasure is None:
        return None
    first = case.concepts[case.analysis.seen_concepts[cue.concept]]
    names = dict.fromkeys([first, *(c.concept for c in changed)])
    tried = {name: case.concepts.index(name) for name in names}
    return minimal_set(case.erasure, case.analysis, cue.errors, tried)
