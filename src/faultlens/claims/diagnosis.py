"""The diagnosis: one module, its concepts and how sure it is, from all findings of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from faultlens.claims.case import Case
from faultlens.files import json_value
from faultlens.finding import Finding
from faultlens.localize.gains import (
    MIN_ENCODER_GAP,
    MIN_HEAD_GAIN,
    MIN_SHARE,
    MIN_SLICE_GAP,
    class_gaps,
)
from faultlens.models.drift import MIN_DRIFT

Part = Literal["input", "encoder", "head", "data", "none", "unknown"]
_PARTS: tuple[Part, ...] = ("input", "encoder", "head", "data")
_N_CONCEPTS = 10


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a run amounts to, in one value.

    Attributes:
        module: `input`, `encoder`, `head`, `data`, `none`, or `unknown` where nobody can tell.
        confidence: In [0, 1]: 1/2 where the evidence just reached its threshold, near 1 where it
            is many times as large. Not a probability: for ranking runs, and for abstaining.
        concepts: Most responsible first; empty where none is.
        classes: The classes concerned.
        finding: Id of the finding that decides; empty for `none`.
    """

    module: Part
    confidence: float
    concepts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    finding: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(json_value({f: getattr(self, f) for f in self.__dataclass_fields__}))


def diagnose(case: Case, found: Sequence[Finding]) -> Diagnosis:
    """Return what the findings amount to: the first fault decides.

    Args:
        case: The case.
        found: From `collect.findings`, in its order.
    """
    if not case.analysis.class_validity.is_usable:
        return Diagnosis("unknown", 0.0)
    faults = [f for f in found if f.severity == "fault"]
    if not faults:
        return Diagnosis("none", _calm(case))
    first = faults[0]
    part = first.kind.rpartition(".")[2]
    return Diagnosis(
        module=next((p for p in _PARTS if p == part), "unknown"),
        confidence=_sure(case, first),
        concepts=_distinct(_concepts(faults))[:_N_CONCEPTS],
        classes=_distinct(str(c) for f in faults[:1] for c in f.evidence.get("classes", [])),
        finding=first.id,
    )


def _concepts(faults: Sequence[Finding]) -> Iterator[str]:
    """Concepts that the faults of the first one's kind name; else those that its errors change."""
    first = faults[0]
    alike = [f for f in faults if f.kind == first.kind and "group" not in f.evidence]
    named: list[str] = []
    for f in [first, *alike]:
        named += _named(f)
        # Where flips are even inside their class, a part of it that fails says more.
        same = (g for g in alike if g.subject == f.subject and "subclass_concept" in g.evidence)
        named += (str(g.evidence["subclass_concept"]) for g in same)
        named += (str(c) for c in f.evidence.get("apart", []))
    yield from named or (str(c["concept"]) for c in first.evidence.get("concepts", []))


def _named(finding: Finding) -> Iterator[str]:
    """Concepts that a finding is about, surest first."""
    e = finding.evidence
    for key in ("cue", "subclass_concept"):
        if key in e:
            yield str(e[key])
    for key in ("channel_concepts", "splitting"):
        yield from (str(c["concept"]) for c in e.get(key, []))
    if finding.kind == "localization.head":
        yield from (str(c["concept"]) for c in e["concepts"])


def _distinct(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _sure(case: Case, finding: Finding) -> float:
    """How far the evidence of the deciding fault is beyond its threshold."""
    e = finding.evidence
    if finding.kind == "localization.head" and "group" not in e and case.head_gains:
        ratio = case.head_gains[0].share / MIN_SHARE
    elif finding.id == "encoder":
        ratio = finding.interval[0] / MIN_ENCODER_GAP
    elif "group" in e:
        ratio = finding.interval[0] / MIN_SLICE_GAP
    else:
        return finding.confidence
    return _confidence(ratio)


def _confidence(ratio: float) -> float:
    """1/2 at the threshold, towards 1 far beyond it."""
    return float(1 - 0.5 / max(ratio, 1.0)) if np.isfinite(ratio) else 0.5


def _calm(case: Case) -> float:
    """How far all evidence stays below its threshold: 1/2 where one nearly reaches it."""
    ratios = [g.gain / MIN_HEAD_GAIN for g in case.head_gains[:1]]
    ratios += [g.interval[0] / MIN_ENCODER_GAP for g in case.encoder_gaps[:1]]
    ratios += [d.size / MIN_DRIFT for d in case.drifts]
    gaps = class_gaps(case.analysis.evidence, case.classes)
    ratios += [g.interval[0] / MIN_SLICE_GAP for g in gaps]
    return 1 - 0.5 * min(max([0.0, *ratios]), 1.0)
