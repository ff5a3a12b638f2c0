"""The case: an analysis with what every kind of claim needs from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from faultlens.analysis import Analysis
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.claims.erasure import Erasure
from faultlens.files import json_value
from faultlens.heatmaps import MIN_IMAGES, Heatmap, HeatmapCounts, differential
from faultlens.localize import responsible
from faultlens.localize.breaks import Stages
from faultlens.localize.consistency import Consistency
from faultlens.localize.gains import Gain, Meaning, encoder_gaps, head_gains, meaning
from faultlens.localize.inputs import InputTrials
from faultlens.localize.responsible import ResponsibleConcept, View
from faultlens.localize.verdict import Shares, shares
from faultlens.models.drift import ChannelScales, NormDrift, first_break
from faultlens.models.head import Head

#: Errors of which this share vanishes under small changes are no head fault. Natural errors show
#: 0.3 to 0.45, those of swapped or noisy heads 0 to 0.35, perturbed pictures 0.4 to 0.8.
MIN_FRAGILE = 0.45
#: Errors of which more vanish were not taught: of parts of classes that training lacked or
#: mislabelled at most 0.29 do, of perturbed pictures nearly always more than this.
MAX_TAUGHT_FRAGILE = 0.30
#: A head row is long if it is so many times as long as the median row. Rows of trained heads stay
#: below 1.25, with learnt cues in them too; one pushed along a concept passes 2.8.
LONG = 2.0
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
        relevant: (K, C) concepts that a class should have; none unless given.
        drifts: Of the encoder's normalisation layers, in their order; empty where not known.
        vanishing: (n,) 1 for errors that vanish under small changes of the picture, 0 for those
            that stay, -1 where it was not asked; None where nothing was asked.
        input_trials: Other ways to feed the network; None where none was tried.
        stages: The encoder stage by stage; None where none was named.
        consistency: How strengths change with the pictures; None where it was not asked.
        channels: At what sizes channels arrive where the encoder breaks; None where not known.
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
    relevant: BoolArray = field(default_factory=lambda: np.zeros((0, 0), bool))
    drifts: tuple[NormDrift, ...] = ()
    vanishing: IntArray | None = None
    input_trials: InputTrials | None = None
    stages: Stages | None = None
    consistency: Consistency | None = None
    channels: ChannelScales | None = None
    head_gains: tuple[Gain, ...] = field(init=False)
    encoder_gaps: tuple[Gain, ...] = field(init=False)
    meaning: Meaning | None = field(init=False)

    def __post_init__(self) -> None:
        e, classes = self.analysis.evidence, self.analysis.class_validity
        if not self.relevant.size:
            none = np.zeros((len(self.classes), len(self.concepts)), bool)
            object.__setattr__(self, "relevant", none)
        gaps = encoder_gaps(e, classes.is_valid) if self.may_judge else []
        object.__setattr__(self, "meaning", meaning(e) if self.may_judge else None)
        object.__setattr__(self, "head_gains", tuple(head_gains(e)))
        object.__setattr__(self, "encoder_gaps", tuple(gaps))

    @property
    def may_judge(self) -> bool:
        """Whether the VLM knows these images and has eyes of its own."""
        return self.analysis.class_validity.is_usable and self.is_independent

    @property
    def is_broken(self) -> bool:
        """Whether the encoder is known to be broken: dead dimensions, a layer or a stage."""
        is_off = self.stages is not None and self.stages.found is not None
        return bool(self.dead) or is_off or first_break(self.drifts) is not None

    def fragile(self, group: BoolArray) -> tuple[int, int]:
        """How many of a group's errors vanish under small changes, of how many asked about."""
        if self.vanishing is None:
            return 0, 0
        asked = group & self.is_error & (self.vanishing >= 0)
        return int((self.vanishing[asked] == 1).sum()), int(asked.sum())

    def is_fragile(self, group: BoolArray) -> bool:
        """Whether the errors of a group are of the pixels' making, not of the head's."""
        vanished, n = self.fragile(group)
        return n >= MIN_IMAGES and vanished / n >= MIN_FRAGILE

    def may_be_taught(self, group: BoolArray) -> bool:
        """Whether the errors of a group stay under small changes, as those do that were taught."""
        vanished, n = self.fragile(group)
        return n < MIN_IMAGES or vanished / n < MAX_TAUGHT_FRAGILE

    @property
    def long_rows(self) -> dict[int, float]:
        """Classes whose head row is far longer than the others', with how many times as long.

        Training does not leave such rows, whatever it taught: the head was changed.
        """
        head = None if self.erasure is None else self.erasure.head
        if not isinstance(head, Head) or not head.is_linear:
            return {}
        length = np.linalg.norm(head.weight, axis=1)
        ratio = length / max(float(np.median(length)), 1e-12)
        return {int(k): float(ratio[k]) for k in np.flatnonzero(ratio >= LONG)}

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

        `unknown` where the VLM may not judge, and where the encoder is known to be broken: a
        refitted head adapts to it, so that its gain says nothing about the head.

        Args:
            group: (n,) images.
            k: Class index where the group is a class.
        """
        if self.is_broken or not self.may_judge:
            return "unknown"
        head = any(g.is_fault for g in self.head_gains if k is not None and g.subject == k)
        encoder = any(g.is_fault for g in self.encoder_gaps if k is not None and g.subject == k)
        if encoder and not head:
            return "encoder"
        if head and not encoder:
            found = meaning(self.analysis.evidence, group)
            if self.is_fragile(group):
                return "encoder"
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
        a, seen = self.analysis, self._readable
        if not len(seen):
            return []
        names = tuple(self.concepts[c] for c in seen)
        return responsible.head_concepts(
            a.logits, a.evidence.refit_logits, a.strengths_model[:, seen], names, k
        )[:N_CONCEPTS]

    def broken_concepts(self) -> list[ResponsibleConcept]:
        """Concepts that the shipped head hears otherwise than a head fitted to a broken encoder."""
        a, seen = self.analysis, self._readable
        if not len(seen):
            return []
        names = tuple(self.concepts[c] for c in seen)
        return responsible.moved_concepts(
            a.logits, a.evidence.refit_logits, a.strengths_vlm[:, seen], names
        )[:N_CONCEPTS]

    @property
    def _readable(self) -> IntArray:
        """Concepts that the VLM sees; how much of them the embedding carries does not matter."""
        a = self.analysis
        return a.seen_concepts if a.class_validity.is_usable else a.seen_concepts[:0]

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
        /, **more: Any,
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
