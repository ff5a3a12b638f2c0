"""The case: an analysis with what every kind of claim needs from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from faultlens.analysis import Analysis
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.claims.erasure import Erasure
from faultlens.files import json_value
from faultlens.heatmaps import Heatmap, HeatmapCounts, differential
from faultlens.localize import responsible
from faultlens.localize.gains import Gain, Meaning, encoder_gaps, head_gains, meaning
from faultlens.localize.responsible import ResponsibleConcept, View
from faultlens.localize.verdict import Shares, shares

#: Images and concepts shown with a claim.
N_IMAGES = 12
N_CONCEPTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One analysis, ready to be put into words.

    Attributes:
        analysis: The results.
        classes: K names.
        concepts: C names.
        slices: name -> (n,) 1 for images of a subclass or with an attribute, 0 without, -1 unknown.
        dead: Embedding dimensions that never change although the head listens to them.
        is_independent: Whether the VLM's encoder is another one than the classifier's.
        erasure: What concepts can be erased from; None where the head is not known.
        head_gains: What a refitted head would gain: over all images first, then by class.
        encoder_gaps: What the VLM is ahead of the best linear head; empty where it may not judge.
        meaning: Whether repaired errors carry the right meaning; None where too few can be judged.
    """

    analysis: Analysis
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    slices: Mapping[str, IntArray] = field(default_factory=dict)
    dead: tuple[int, ...] = ()
    is_independent: bool = True
    erasure: Erasure | None = None
    head_gains: tuple[Gain, ...] = field(init=False)
    encoder_gaps: tuple[Gain, ...] = field(init=False)
    meaning: Meaning | None = field(init=False)

    def __post_init__(self) -> None:
        e, classes = self.analysis.evidence, self.analysis.class_validity
        gaps = encoder_gaps(e, classes.is_valid) if self.may_judge else []
        object.__setattr__(self, "meaning", meaning(e) if self.may_judge else None)
        object.__setattr__(self, "head_gains", tuple(head_gains(e)))
        object.__setattr__(self, "encoder_gaps", tuple(gaps))

    @property
    def may_judge(self) -> bool:
        """Whether the VLM knows these images and has eyes of its own."""
        return self.analysis.class_validity.is_usable and self.is_independent

    @property
    def n(self) -> int:
        """Analysed images."""
        return len(self.analysis.rows)

    @property
    def is_error(self) -> BoolArray:
        """(n,) misclassified images."""
        return self.analysis.evidence.is_error

    def shares(self, group: BoolArray) -> Shares:
        """How the errors of a group divide between head and encoder."""
        return shares(self.analysis.evidence, self.analysis.verdicts, group)

    def module(self, group: BoolArray, k: int | None = None) -> str:
        """The module at fault in a group of errors.

        A head that guesses between classes the encoder cannot tell apart is right by chance as
        often as the shipped one is wrong, so for a class the paired gains are asked first: what
        a refitted head or another encoder would gain net. Else the shares of the errors decide.

        `unknown` where the VLM may not judge, and where dimensions are dead: a refitted head adapts
        to the broken encoder, so that its gain says nothing about the head.

        Args:
            group: (n,) images.
            k: Class index where the group is a class.
        """
        if self.dead or not self.may_judge:
            return "unknown"
        head = any(g.is_fault for g in self.head_gains if k is not None and g.subject == k)
        encoder = any(g.is_fault for g in self.encoder_gaps if k is not None and g.subject == k)
        if encoder and not head:
            return "encoder"
        if head and not encoder:
            found = meaning(self.analysis.evidence, group)
            if found is not None:
                return "head" if found.is_kept else "unknown"
        return self.shares(group).module

    def oracle_rate(self, group: BoolArray) -> float:
        """Share of a group's judged errors whose embeddings carry the right meaning, or NaN."""
        e = self.analysis.evidence
        judged = group & e.is_error & e.is_gated
        return float((e.mapped == e.labels)[judged].mean()) if judged.any() else float("nan")

    def changed(self, errors: BoolArray) -> list[ResponsibleConcept]:
        """Concepts that changed in a group of errors: in the embedding, then in the pictures."""
        a, e = self.analysis, self.analysis.evidence
        valid = a.valid_concepts
        if len(valid) < 2 or not a.class_validity.is_usable:
            return []
        names = tuple(self.concepts[c] for c in valid)
        found: list[ResponsibleConcept] = []
        # Images of other classes play no part; leaving them out keeps this linear over all classes.
        labels = np.unique(e.labels[errors])
        rows = np.flatnonzero(np.isin(e.labels, labels))
        y, errors, correct = e.labels[rows], errors[rows], ~e.is_error[rows]
        sides: tuple[tuple[View, FloatArray], ...] = (
            ("model", a.strengths_model), ("vlm", a.strengths_vlm),
        )  # fmt: skip
        for view, s in sides:
            chosen = s[np.ix_(rows, valid)]
            one = responsible.changed_concepts(chosen, y, errors, correct, names, view)
            if len(labels) == 1:
                delta = differential(
                    _heatmap(chosen, correct, names), _heatmap(chosen, errors, names)
                )
                one = responsible.with_parts(one, delta)
            found += one[:N_CONCEPTS]
        return found

    def head_concepts(self, k: int) -> list[ResponsibleConcept]:
        """Concepts that the shipped head weighs differently from the refitted one for class k."""
        a = self.analysis
        valid = a.valid_concepts
        if not len(valid) or not a.class_validity.is_usable:
            return []
        names = tuple(self.concepts[c] for c in valid)
        return responsible.head_concepts(
            a.logits, a.evidence.refit_logits, a.strengths_model[:, valid], names, k
        )[:N_CONCEPTS]

    def confusions(self, errors: BoolArray) -> list[tuple[int, int, int]]:
        """The confusions of a group: (label, prediction, count), most frequent first."""
        e = self.analysis.evidence
        pairs = np.stack([e.labels[errors], e.predictions[errors]], axis=1)
        if not len(pairs):
            return []
        values, counts = np.unique(pairs, axis=0, return_counts=True)
        order = np.lexsort((values[:, 1], values[:, 0], -counts))
        return [(int(values[i, 0]), int(values[i, 1]), int(counts[i])) for i in order]

    def evidence(
        self, errors: BoolArray, statistic: str, concepts: list[ResponsibleConcept] | None = None,
        **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the JSON evidence shared by all claims about a group of errors."""
        s = self.shares(errors)
        order = np.flatnonzero(errors)
        surest = order[np.argsort(-self.analysis.verdicts.confidence[order], kind="stable")]
        return {
            "statistic": statistic,
            "n_errors": int(errors.sum()),
            "shares": json_value(asdict(s)),
            "confusions": [
                {"label": self.classes[a], "predicted": self.classes[b], "n": n}
                for a, b, n in self.confusions(errors)[:5]
            ],
            "concepts": [json_value(asdict(c)) for c in concepts or []],
            "images": [int(i) for i in _spread(surest, self.analysis.evidence.labels)[:N_IMAGES]],
            **json_value(more),
        }


def _spread(rows: IntArray, labels: IntArray) -> IntArray:
    """Take rows from each label in turn, so that a few show all that a group is made of."""
    taken: dict[int, int] = {}
    turns = []
    for label in labels[rows].tolist():
        turns.append(taken.get(label, 0))
        taken[label] = turns[-1] + 1
    return np.asarray(rows[np.argsort(turns, kind="stable")])


def _heatmap(strengths: FloatArray, group: BoolArray, names: tuple[str, ...]) -> Heatmap:
    groups: IntArray = np.where(group, 0, -1)
    counts = HeatmapCounts.of(strengths, groups, 1)
    return Heatmap("group", "", names, counts.wins[0], int(counts.n[0]))
