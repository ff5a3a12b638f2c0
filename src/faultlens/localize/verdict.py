"""One verdict for each misclassified image, and the shares of a group of them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import special

from faultlens.arrays import BoolArray, FloatArray, IntArray, read_only
from faultlens.stats import cohen_kappa, wilson

Module = Literal["head", "encoder", "data", "unknown"]
MODULES: tuple[Module, ...] = ("head", "encoder", "data", "unknown")
_HEAD, _ENCODER, _DATA, _UNKNOWN = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known about each of N images; every field comes from maps that never saw it.

    Attributes:
        labels: (N,).
        predictions: (N,) of the classifier.
        vlm: (N,) zero-shot classes of the VLM.
        mapped: (N,) zero-shot classes of the mapped embedding.
        logits: (N, K) of the classifier.
        refit_logits: (N, K) of the refitted head.
        heatmap: (N,) heatmap evidence, positive against the head.
        is_gated: (N,) where the VLM may judge.
        is_error: (N,) misclassified images.
        refit: (N,) classes of the refitted head.
        closed: (N,) classes of the shipped head among those the refitted head has seen. A refit
            that never saw a class cannot confuse anything with it; comparing the two heads is fair
            only among the classes that both may answer.
    """

    labels: IntArray
    predictions: IntArray
    vlm: IntArray
    mapped: IntArray
    logits: FloatArray
    refit_logits: FloatArray
    heatmap: FloatArray
    is_gated: BoolArray
    is_error: BoolArray = field(init=False)
    refit: IntArray = field(init=False)
    closed: IntArray = field(init=False)

    def __post_init__(self) -> None:
        shipped = np.where(np.isfinite(self.refit_logits), self.logits, -np.inf)
        derived = {
            "is_error": self.labels != self.predictions,
            "refit": self.refit_logits.argmax(axis=1),
            "closed": shipped.argmax(axis=1),
        }
        for name, values in derived.items():
            object.__setattr__(self, name, read_only(np.asarray(values)))


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """Verdicts on all images; correct ones are `unknown` with confidence 0 and never counted.

    Attributes:
        module: (N,) index into `MODULES`.
        confidence: (N,) share of the votes behind the verdict, in [0, 1].
    """

    module: IntArray
    confidence: FloatArray

    def names(self) -> list[Module]:
        """Return the verdict of each image as a word."""
        return [MODULES[m] for m in self.module]


def judge(evidence: Evidence, vlm_margin: FloatArray) -> Verdicts:
    """Combine oracle, swap test and heatmap evidence by majority.

    Rules: where the VLM may not judge, `unknown`; where the refitted head and the VLM both
    contradict the label with the same class, confidently, `data`; else the majority of three
    votes, with the share of agreeing votes as confidence.

    Args:
        evidence: Of N images.
        vlm_margin: (N,) by how much the VLM prefers its class over the label, in units of the
            usual spread of its scores over the classes; below 1 a contradiction is not confident.
    """
    e = evidence
    votes = np.stack([e.mapped == e.labels, e.refit == e.labels, e.heatmap > 0]).astype(float)
    # A vote that cannot be cast counts for neither side.
    seen = np.isfinite(e.refit_logits[np.arange(len(e.labels)), e.labels])
    votes[1, ~seen] = np.nan
    votes[2, np.isnan(e.heatmap) | (e.heatmap == 0)] = np.nan
    share = np.nanmean(votes, axis=0)
    # In a tie the swap test is the operational truth, and the oracle where it is missing.
    is_head = np.where(share == 0.5, np.where(seen, votes[1], votes[0]) == 1, share > 0.5)
    module = np.where(is_head, _HEAD, _ENCODER)
    confidence = np.where(is_head, share, 1 - share)
    module = np.where(e.is_gated, module, _UNKNOWN)
    confidence = np.where(e.is_gated, confidence, 0.0)
    p = special.softmax(e.refit_logits, axis=1)
    rows = np.arange(len(p))
    contradicted = (e.vlm == e.refit) & (e.vlm != e.labels)
    sure = (p[rows, e.refit] >= 0.9) & (p[rows, e.labels] <= 0.05) & (vlm_margin >= 1)
    is_data = contradicted & sure
    module = np.where(is_data, _DATA, module)
    confidence = np.where(is_data, p[rows, e.refit] - p[rows, e.labels], confidence)
    module = np.where(e.is_error, module, _UNKNOWN)
    confidence = np.where(e.is_error, confidence, 0.0)
    return Verdicts(read_only(module), read_only(confidence))


@dataclass(frozen=True, slots=True)
class Shares:
    """How the errors of a group divide, among those that could be judged.

    Attributes:
        n_errors: Errors in the group.
        n_judged: Of them, with verdict head or encoder.
        n_head: Verdict head.
        n_data: Likely label errors.
        head: Share of head among the judged; NaN without any.
        interval: Its Wilson interval.
        oracle: Head share by the oracle alone, among gated errors.
        swap: Head share by the swap test alone, among gated errors.
        kappa: Cohen's κ between oracle and swap test.
    """

    n_errors: int
    n_judged: int
    n_head: int
    n_data: int
    head: float
    interval: tuple[float, float]
    oracle: float
    swap: float
    kappa: float

    @property
    def module(self) -> Module:
        """`head` or `encoder` if the interval excludes one half, else `unknown`."""
        if self.n_judged and self.interval[0] > 0.5:
            return "head"
        return "encoder" if self.n_judged and self.interval[1] < 0.5 else "unknown"


def shares(evidence: Evidence, verdicts: Verdicts, group: BoolArray) -> Shares:
    """Divide the errors of a group.

    Args:
        evidence: Of N images.
        verdicts: Of the same images.
        group: (N,) which images to look at; correct ones are ignored.
    """
    errors = group & evidence.is_error
    gated = errors & evidence.is_gated
    module = verdicts.module
    n_head = int((errors & (module == _HEAD)).sum())
    n_judged = n_head + int((errors & (module == _ENCODER)).sum())
    low, high = wilson(n_head, n_judged)
    oracle = (evidence.mapped == evidence.labels)[gated]
    swap = (evidence.refit == evidence.labels)[gated]
    nan = float("nan")
    return Shares(
        n_errors=int(errors.sum()),
        n_judged=n_judged,
        n_head=n_head,
        n_data=int((errors & (module == _DATA)).sum()),
        head=n_head / n_judged if n_judged else nan,
        interval=(float(low), float(high)),
        oracle=float(oracle.mean()) if len(oracle) else nan,
        swap=float(swap.mean()) if len(swap) else nan,
        kappa=cohen_kappa(oracle.astype(int), swap.astype(int)) if len(oracle) else nan,
    )
