"""Explain one image: what the classifier sees in it, against what it usually sees in that class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from faultlens.alignment import AffineMap
from faultlens.arrays import Array, FloatArray, IntArray
from faultlens.concepts import strengths
from faultlens.explain.edit import Edit
from faultlens.heatmaps import ClassCounts, single

N_PAIRS = 6


@dataclass(frozen=True, slots=True)
class ContradictingPair:
    """One cell in which an image differs from the correct images of a class.

    Attributes:
        stronger: Concept that is stronger in this image.
        weaker: The other one.
        usual: Share of the class's correct images (of all its labelled images where fewer than 10
            are correct) in which it is so, in [0, 1].
    """

    stronger: str
    weaker: str
    usual: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What can be said about one image.

    Attributes:
        image: Its name.
        label: The truth; None for a new image.
        prediction: The classifier's class.
        confidence: Softmax of the prediction.
        verdict: `correct`, `head`, `encoder`, `data` or `unknown`; None without a label.
        strengths: Concept -> strength in the classifier's embedding, strongest first; invalid
            concepts are left out.
        vlm_strengths: The same in the VLM's; None for a new image.
        similarity_correct: How much its heatmap resembles the correct images predicted so, [-1, 1];
            None with fewer than 10 of them.
        similarity_incorrect: How much it resembles the images wrongly predicted so.
        contradictions: Cells that speak against the prediction, rarest first.
        edit: The smallest change of concepts that flips the prediction, to the label, or of a new
            image to the class in second place; None where the prediction is right.
    """

    image: str
    label: str | None
    prediction: str
    confidence: float
    verdict: str | None
    strengths: dict[str, float]
    vlm_strengths: dict[str, float] | None
    similarity_correct: float | None
    similarity_incorrect: float | None
    contradictions: tuple[ContradictingPair, ...]
    edit: Edit | None = None


def explain_known(
    counts: ClassCounts,
    valid: IntArray,
    facts: Mapping[str, Any],
    model: FloatArray,
    vlm: FloatArray | None = None,
) -> Explanation:
    """Explain an image whose strengths are known.

    Args:
        counts: Heatmap counts of the classifier.
        valid: Indices of the concepts that passed the gate.
        facts: `name, label, prediction, confidence, verdict`, as in `images.json`.
        model: (C,) strengths of the classifier.
        vlm: (C,) strengths of the VLM.
    """
    k = counts.classes.index(facts["prediction"])
    return Explanation(
        image=facts["name"],
        label=facts["label"],
        prediction=facts["prediction"],
        confidence=facts["confidence"],
        verdict=facts["verdict"],
        strengths=_ranked(counts.concepts, model, valid),
        vlm_strengths=None if vlm is None else _ranked(counts.concepts, vlm, valid),
        similarity_correct=_similarity(counts, "correct", k, model, valid),
        similarity_incorrect=_similarity(counts, "incorrect-output", k, model, valid),
        contradictions=_contradictions(counts, k, model, valid),
    )


def explain_new(
    counts: ClassCounts,
    valid: IntArray,
    alignment: Mapping[str, Array],
    name: str,
    encoded: tuple[FloatArray, FloatArray],
) -> Explanation:
    """Explain a picture that was not part of the run, through the map fitted on all of it.

    Args:
        counts: Heatmap counts of the classifier.
        valid: Indices of the concepts that passed the gate.
        alignment: Arrays of `alignment.safetensors`.
        name: Of the picture.
        encoded: Its embedding (D,) and logits (K,), from the classifier of the run.
    """
    z, logits = encoded
    fitted = AffineMap(alignment["full.weight"], alignment["full.bias"], 0.0, 0)
    centre = alignment["full.centre_model"]
    s = strengths(fitted(z[None]), alignment["directions"], centre)[0]
    p = np.exp(logits - logits.max())
    facts = {
        "name": name,
        "label": None,
        "prediction": counts.classes[int(p.argmax())],
        "confidence": float(p.max() / p.sum()),
        "verdict": None,
    }
    return explain_known(counts, valid, facts, s)


def _ranked(names: tuple[str, ...], s: FloatArray, valid: IntArray) -> dict[str, float]:
    order = valid[np.argsort(-s[valid], kind="stable")]
    return {names[c]: float(s[c]) for c in order}


def _similarity(
    counts: ClassCounts, kind: str, k: int, s: FloatArray, valid: IntArray
) -> float | None:
    reference = counts.heatmap(kind, k)
    if not reference.is_enough or len(valid) < 2:
        return None
    cells = ~np.eye(len(valid), dtype=bool)
    h = single(s[valid])[cells] - 0.5
    r = reference.values[np.ix_(valid, valid)][cells] - 0.5
    norm = float(np.linalg.norm(h) * np.linalg.norm(r))
    return float(h @ r) / norm if norm else 0.0


def _contradictions(
    counts: ClassCounts, k: int, s: FloatArray, valid: IntArray
) -> tuple[ContradictingPair, ...]:
    reference = counts.heatmap("correct", k)
    if not reference.is_enough:
        # A broken head may get no image of a class right; its labelled images still show it.
        reference = counts.heatmap("ground-truth", k)
    if not reference.is_enough:
        return ()
    usual = np.where(single(s), reference.values, np.nan)
    pairs = [(usual[a, b], a, b) for a in valid for b in valid if a != b and usual[a, b] < 0.25]
    # One concept out of place fills a whole row; say it once.
    shown: list[ContradictingPair] = []
    used: set[int] = set()
    for share, a, b in sorted(pairs):
        if a not in used and b not in used:
            shown.append(ContradictingPair(counts.concepts[a], counts.concepts[b], float(share)))
            used |= {a, b}
    return tuple(shown[:N_PAIRS])
