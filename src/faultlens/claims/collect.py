"""Collect all claims of a case, worst first, and what they amount to."""

from collections.abc import Sequence

from faultlens.claims import cues, groups, modules, notices
from faultlens.claims.case import Case
from faultlens.claims.refit import Refit
from faultlens.claims.wording import portion
from faultlens.finding import Finding
from faultlens.localize.cues import Cue
from faultlens.localize.gains import MIN_CLASS_SHARE
from faultlens.report.content import Status


def findings(case: Case) -> list[Finding]:
    """Return every claim: faults of the model, then of groups, then notices.

    A refit that repairs the errors of a cue repairs what the training data taught; it is told with
    the cue, not as a fault of the head.
    """
    taken = cues.find(case)
    by_cue = cues.findings(case, taken)
    head = [] if _explains_refit(case, taken) else modules.head(case)
    explained = {
        name for f in head if f.kind == "localization.head" for name in f.evidence["classes"]
    }
    by_class = groups.classes(case, explained | {f.subject for f in by_cue})
    by_slice = groups.slices(case)
    covered = explained | {f.subject for f in by_cue}
    covered |= {c for f in (*by_class, *by_slice) for c in f.evidence["classes"]}
    faults = [*by_cue, *head, *modules.encoder(case), *by_class, *by_slice]
    rest = [
        *(f for f in faults if f.severity == "notice"),
        *notices.labels(case),
        *notices.limits(case),
        *groups.differences(case, covered, cues.explained(case, taken)),
    ]
    faults = [f for f in faults if f.severity == "fault"]
    faults.sort(key=lambda f: ("group" in f.evidence, -f.evidence["n_errors"], -f.confidence))
    return [*faults, *rest]


def _explains_refit(case: Case, taken: Sequence[Cue]) -> bool:
    """Return whether the errors that a refitted head repairs follow cues."""
    repaired = Refit.of(case).repaired
    return bool(repaired.any() and cues.explained(case, taken)[repaired].mean() >= MIN_CLASS_SHARE)


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
