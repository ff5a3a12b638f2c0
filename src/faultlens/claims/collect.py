"""Collect all claims of a case, worst first, and what they amount to."""

from collections.abc import Sequence

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.claims import (
    consistency,
    cues,
    drift,
    flips,
    groups,
    inputs,
    modules,
    notices,
    reliance,
    stages,
    subclasses,
)
from faultlens.claims.case import Case
from faultlens.claims.refit import Refit
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.localize.gains import MIN_SHARE
from faultlens.report.content import Status

#: What training taught explains a refit if it explains this share of what the refit repairs.
MIN_OF_REFIT = 0.5


def findings(case: Case) -> list[Finding]:
    """Return every claim: what explains the errors first, then faults of groups, then notices.

    A wrong input and a broken encoder are told before all else, since every later test only sees
    what they leave; what training taught is then not told at all: a network that is wrongly fed
    leans on concepts that its training never tied to a class.
    What training taught (cues, flipped labels, parts of classes that it lacked) is told before the
    module that carries it, where it explains a third of the errors or no module is at fault: the
    encoder and the head of a model that learnt a cue differ from sound ones too.
    """
    fed, broken = inputs.inputs(case), [*drift.drift(case), *stages.stages(case, case.stages)]
    taken = cues.find(case)
    leaning = reliance.find(case, taken)
    by_cue = [*cues.findings(case, taken), *reliance.findings(case, leaning)]
    explained = _any(cues.explained(case, taken), [x.errors for x in leaning])
    flipped, parts = flips.find(case), subclasses.find(case, explained)
    by_part = subclasses.findings(case, parts, set())
    is_known = any(f.severity == "fault" for f in (*fed, *broken))
    taught = [] if is_known else [*by_cue, *flips.findings(case, flipped), *_faults(by_part)]
    lacked = subclasses.explained(case, parts)
    explained = _any(explained, [lacked, *(x.errors for x in flipped)])
    head = [] if _explains_refit(case, explained) else modules.head(case)
    encoder = modules.encoder(case, explained)
    named = {f.subject for f in taught}
    named |= {n for f in head if f.kind == "localization.head" for n in f.evidence["classes"]}
    by_class = groups.classes(case, named)
    by_slice = groups.slices(case)
    covered = named | {c for f in (*by_class, *by_slice) for c in f.evidence["classes"]}
    module = _faults([*head, *encoder])
    whole = [*taught, *module] if _comes_first(case, explained, module) else [*module, *taught]
    rest = [
        *(
            f
            for f in (*fed, *head, *encoder, *by_part, *by_class, *by_slice)
            if f.severity == "notice"
        ),
        *notices.labels(case),
        *notices.limits(case),
        *groups.differences(case, covered, explained),
        *consistency.findings(case, case.consistency),
    ]
    of_groups = sorted(_faults([*by_class, *by_slice]), key=_size)
    return [*_faults(fed), *broken, *whole, *of_groups, *rest]


def _faults(found: Sequence[Finding]) -> list[Finding]:
    return sorted((f for f in found if f.severity == "fault"), key=_size)


def _any(first: BoolArray, more: Sequence[BoolArray]) -> BoolArray:
    return np.asarray(np.logical_or.reduce([first, *more]))


def _size(finding: Finding) -> tuple[int, float]:
    return -finding.evidence["n_errors"], -finding.confidence


def _explains_refit(case: Case, explained: BoolArray) -> bool:
    """Return whether the errors that a refitted head repairs follow what training taught."""
    repaired = Refit.of(case).repaired
    return bool(repaired.any() and explained[repaired].mean() >= MIN_OF_REFIT)


def _comes_first(case: Case, explained: BoolArray, module: Sequence[Finding]) -> bool:
    errors = case.is_error
    return not module or bool(errors.any() and explained[errors].mean() >= MIN_SHARE)


def status(case: Case, found: list[Finding]) -> Status:
    """`unknown` where the VLM is not valid here, else `fault` or `clean`."""
    if not case.analysis.class_validity.is_usable:
        return "unknown"
    return "fault" if any(f.severity == "fault" for f in found) else "clean"


def headline(case: Case, found: list[Finding], state: Status) -> str:
    """One sentence for the first page."""
    n_errors = int(case.is_error.sum())
    accuracy = f"{portion(1 - n_errors / case.n)} of {case.n} images are classified correctly"
    if state == "unknown":
        return (
            f"{accuracy}; the vision-language model cannot judge these images, so the rest is open."
        )
    faults = [f for f in found if f.severity == "fault"]
    if not faults:
        return (
            f"{accuracy}; nothing stands out: no module, class or group fails more than it should."
        )
    more = f" ({len(faults) - 1} more below)" if len(faults) > 1 else ""
    return f"{accuracy}. {faults[0].claim}{more}"
