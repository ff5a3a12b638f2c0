"""Advice: which fixes a session's findings call for, and which of them helped when tried."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from faultlens.arrays import BoolArray, IntArray
from faultlens.files import json_value
from faultlens.finding import Finding
from faultlens.fixes import images, preprocess
from faultlens.fixes.bias import rebiased
from faultlens.fixes.fold import unheard
from faultlens.fixes.images import Row
from faultlens.fixes.refit import balanced, refitted
from faultlens.fixes.rows import restored
from faultlens.fixes.trial import Effect, Material, Recipe, effect, held_out
from faultlens.localize.cues import present
from faultlens.models.head import Head
from faultlens.stats import holm

LEVEL = 0.05
_OF_MODULES = ("localization.head", "localization.unknown", "localization.encoder")

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A fix before it was tried.

    Attributes:
        id: Unique in the session.
        finding: Id of the finding it answers.
        kind: `refit`, `balanced`, `fold`, `rows`, `bias`, `preprocess`, `images` or `labels`.
        told: What it does, in a sentence.
        group: (N,) the images that the finding is about; None for all.
        recipe: Makes the head; None where there is nothing to measure.
        rows: Of a CSV file; empty for a head.
        known: What the run itself measured, on images that had no say in the fix; None where it
            is measured now.
        text: Of a YAML file; empty for all others.
    """

    id: str
    finding: str
    kind: str
    told: str
    group: BoolArray | None = None
    recipe: Recipe | None = None
    rows: tuple[Row, ...] = ()
    known: Effect | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Fix:
    """A fix after it was tried.

    Attributes:
        proposal: What was tried.
        overall: On all held-out images, the p-value after Holm over all fixes tried; None where
            nothing was measured.
        group: On the images that the finding is about, uncorrected.
        is_advised: Whether the overall gain is significant and its lower bound positive.
        head: Fitted on all reference images; None for a list.
    """

    proposal: Proposal
    overall: Effect | None
    group: Effect | None
    is_advised: bool
    head: Head | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, without the artefact."""
        p, o, g = self.proposal, self.overall, self.group
        return dict(
            json_value(
                {
                    "id": p.id,
                    "finding": p.finding,
                    "kind": p.kind,
                    "told": p.told,
                    "gain": o and o.gain,
                    "interval": o and o.interval,
                    "p_value": o and o.p_value,
                    "n": o and o.n,
                    "repaired": o and o.repaired,
                    "broken": o and o.broken,
                    "group": g
                    and {f: getattr(g, f) for f in g.__dataclass_fields__},
                    "is_advised": self.is_advised,
                }
            )
        )  # fmt: skip


def proposals(material: Material, findings: Sequence[Finding]) -> list[Proposal]:
    """Return the fixes that the findings call for; each id once.

    Args:
        material: The images.
        findings: Faults and the notice of doubtful labels; others call for nothing.
    """
    found: dict[str, Proposal] = {}
    for finding in findings:
        for one in _answers(material, finding):
            found.setdefault(one.id, one)
    return list(found.values())


def tried(
    material: Material, given: Sequence[Proposal], progress: Report | None = None
) -> list[Fix]:
    """Measure every proposal on held-out images and judge them together; advised ones first."""
    report = progress or (lambda done, total: None)
    fixes = []
    answers: dict[int, IntArray] = {}
    for i, p in enumerate(given):
        if p.recipe is None:
            fixes.append(Fix(p, p.known, None, False, None))
        else:
            # A list of images shares its recipe, and so its trial, with the head it goes with.
            key = id(p.recipe)
            if key not in answers:
                answers[key] = held_out(material, p.recipe)
            group = None if p.group is None else effect(material, answers[key], p.group)
            head = None if p.rows else p.recipe(material, material.full)
            fixes.append(Fix(p, effect(material, answers[key]), group, False, head))
        report(i + 1, len(given))
    return sorted(_judged(fixes), key=_rank)


def _judged(fixes: Sequence[Fix]) -> list[Fix]:
    # Proposals that share a recipe are one trial and count once.
    raw = {_trial(f): f.overall.p_value for f in fixes if f.overall is not None}
    adjusted = dict(zip(raw, holm(np.array(list(raw.values()))), strict=True))
    out = []
    for fix in fixes:
        if fix.overall is None:
            out.append(fix)
            continue
        o = replace(fix.overall, p_value=float(adjusted[_trial(fix)]))
        is_advised = o.p_value <= LEVEL and o.interval[0] > 0
        out.append(replace(fix, overall=o, is_advised=is_advised))
    return out


def _trial(fix: Fix) -> int:
    return id(fix.proposal if fix.proposal.recipe is None else fix.proposal.recipe)


def _rank(fix: Fix) -> tuple[bool, bool, float]:
    gain = fix.overall.gain if fix.overall is not None else 0.0
    return not fix.is_advised, fix.overall is None, -gain


def _answers(material: Material, finding: Finding) -> Iterator[Proposal]:
    e = finding.evidence
    if finding.kind == "data.labels":
        yield from _labels(material, finding)
        return
    if finding.severity != "fault":
        return
    if preprocess.is_answer(finding):
        yield Proposal(
            f"preprocess-{finding.id}", finding.id, "preprocess", preprocess.told(finding),
            known=preprocess.effect(finding),
            text=preprocess.description(finding, material.classes),
        )  # fmt: skip
    taught = any(key in e for key in ("cue", "flip", "subclass_concept"))
    if finding.kind in _OF_MODULES or taught:
        yield from _refit(material, finding)
    if "cue" in e:
        yield from _cue(material, finding)
    elif finding.kind in ("localization.head", "localization.unknown") and e.get("classes"):
        yield from _rows(material, finding)
    if "group" in e:
        yield from _group(material, finding)


def _refit(material: Material, finding: Finding) -> Iterator[Proposal]:
    # A class without reference images has no row to put into a head of another form.
    if material.head.is_linear or np.isfinite(material.full.bias).all():
        yield Proposal(
            "refit", finding.id, "refit",
            "Replace the head by one refitted on these images, every class weighing alike.",
            _classes_group(material, finding), refitted,
        )  # fmt: skip


def _cue(material: Material, finding: Finding) -> Iterator[Proposal]:
    name, label = str(finding.evidence["cue"]), finding.subject
    k, concept = material.classes.index(label), material.concepts.index(name)
    has_cue = present(material.strengths[:, [concept]])[:, 0]
    against = has_cue != (material.labels == k)
    even = partial(balanced, has_cue=has_cue)
    is_finite = material.head.is_linear or bool(np.isfinite(material.full.bias).all())
    if is_finite:
        yield Proposal(
            f"balanced-{finding.id}", finding.id, "balanced",
            f"Refit the head with every class weighing alike with and without {name}.",
            against, even,
        )  # fmt: skip
    if material.head.is_linear:
        yield Proposal(
            f"fold-{finding.id}", finding.id, "fold",
            f"Fold the erasure of {name} into the head: it no longer listens to {name}.",
            against, partial(unheard, concept=concept),
        )  # fmt: skip
    listed = images.against_cue(material, finding.id, k, concept, has_cue)
    if listed:
        yield Proposal(
            f"images-{finding.id}", finding.id, "images",
            f"Collect or weigh up {label} without {name} and other classes with {name}; the gain "
            "is that of weighing them up for the head alone.",
            against, even if is_finite else None, tuple(listed),
        )  # fmt: skip


def _rows(material: Material, finding: Finding) -> Iterator[Proposal]:
    if not material.head.is_linear:
        return
    names = [str(c) for c in finding.evidence["classes"]]
    chosen = np.array([material.classes.index(c) for c in names])
    group = _classes_group(material, finding)
    said = ", ".join(names)
    yield Proposal(
        f"rows-{finding.id}", finding.id, "rows",
        f"Restore the head's rows and biases of {said}; all others stay as shipped.",
        group, partial(restored, chosen=chosen),
    )  # fmt: skip
    yield Proposal(
        f"bias-{finding.id}", finding.id, "bias",
        f"Restore the head's biases of {said} alone.",
        group, partial(rebiased, chosen=chosen),
    )  # fmt: skip


def _group(material: Material, finding: Finding) -> Iterator[Proposal]:
    e, n = finding.evidence, len(material.images)
    if e["group"] == "class":
        group = material.labels[:n] == material.classes.index(finding.subject)
    else:
        # Who belongs to a slice is not kept; the images shown with the finding stand for it.
        group = np.isin(np.arange(n), e["images"])
    shown = [c["concept"] for c in e["concepts"] if c["view"] == "vlm" and c["effect"] > 0]
    listed = images.of_group(material, finding.id, group, finding.subject, ", ".join(shown[:3]))
    if listed:
        yield Proposal(
            f"images-{finding.id}", finding.id, "images",
            f"Collect or weigh up images like these of {finding.subject}; what training on them "
            "would gain cannot be measured without training.",
            rows=tuple(listed),
        )  # fmt: skip


def _labels(material: Material, finding: Finding) -> Iterator[Proposal]:
    listed = images.suspects(material)
    if listed:
        yield Proposal(
            "relabel", finding.id, "labels",
            f"Look at {len(listed)} labels that two witnesses contradict, surest first; a gain "
            "cannot be measured against labels in doubt.",
            rows=tuple(listed),
        )  # fmt: skip


def _classes_group(material: Material, finding: Finding) -> BoolArray | None:
    """Images that are or are called one of the finding's classes; None where it names none."""
    names = finding.evidence.get("classes") or []
    ks = [material.classes.index(str(c)) for c in names]
    if not ks:
        return None
    return np.isin(material.labels, ks) | np.isin(material.predictions, ks)
