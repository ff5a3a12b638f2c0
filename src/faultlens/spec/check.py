"""Checking: on which share of images a specification holds, and whether that is enough.

A rate is compared with the required one by the exact binomial test. Over a suite, Holm's
adjustment keeps the chance that *any* specification is wrongly said to hold below one minus the
confidence, and likewise that any is wrongly said to fail.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.errors import InputError
from faultlens.heatmaps import MIN_IMAGES
from faultlens.sequential import RateTest
from faultlens.spec.formula import holds
from faultlens.spec.ground import GroundSpec
from faultlens.stats import benjamini_hochberg, binomial_tails, clopper_pearson, holm

CONFIDENCE, REQUIRED_RATE = 0.95, 0.95
_TOO_FEW = "too few images to tell its rate from the required one"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of rates where a specification does not say it itself.

    Attributes:
        required_rate: In (0, 1].
        confidence: In (0, 1).
        is_exploratory: Control the false discovery rate (Benjamini-Hochberg) in place of the
            chance of any false verdict (Holm).

    Raises:
        InputError: A number out of range.
    """

    required_rate: float = REQUIRED_RATE
    confidence: float = CONFIDENCE
    is_exploratory: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.required_rate <= 1:
            raise InputError(
                f"required_rate must be in (0, 1], got {self.required_rate}; 0.95 asks for 95 %"
            )
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must be in (0, 1), got {self.confidence}")


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """N images as one source sees them.

    Attributes:
        signals: (N, C + K) strengths, then logits; where specs may ask for the truth, (N, C + 3 K):
            then 1 or -1 for each class, whether the image is labelled so, and whether the
            vision-language model names it so; float64.
        labels: (N,) classes.
        predictions: (N,) classes the source gives.
    """

    signals: FloatArray
    labels: IntArray
    predictions: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What was seen of one specification.

    Attributes:
        rows: (n,) the images it speaks of.
        is_kept: (n,) whether it holds on each.
    """

    rows: IntArray
    is_kept: BoolArray

    @property
    def violations(self) -> IntArray:
        """Rows on which it does not hold."""
        return np.asarray(self.rows[~self.is_kept])


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A specification's rate and verdict.

    Attributes:
        spec: The specification.
        seen: The images it speaks of (those asked, in a sequential check).
        interval: Clopper-Pearson, two-sided, of this specification alone.
        required_rate: In (0, 1].
        confidence: In (0, 1).
        p_holds: That the rate is at most the required one, adjusted over the suite; NaN where no
            test was made.
        p_fails: That it is at least the required one, likewise.
        verdict: `HOLDS`, `FAILS` or `UNKNOWN`.
        reason: Why it is unknown, or empty.
    """

    spec: GroundSpec
    seen: Observed
    interval: tuple[float, float]
    required_rate: float
    confidence: float
    p_holds: float
    p_fails: float
    verdict: str
    reason: str

    @property
    def n(self) -> int:
        """Images it speaks of."""
        return len(self.seen.rows)

    @property
    def n_holds(self) -> int:
        """Images on which it holds."""
        return int(self.seen.is_kept.sum())

    @property
    def rate(self) -> float | None:
        """Share of the images on which it holds; None without any."""
        return self.n_holds / self.n if self.n else None


def observe(spec: GroundSpec, images: Images) -> Observed:
    """Evaluate a specification on the images it speaks of.

    These are the images for which `given` holds and, where the specification names the region of
    a class, that are *labelled* as this class: a region is made of correct embeddings of a class,
    and whether a picture shows one is what its label says.
    """
    applies = holds(spec.given, images.signals)
    if spec.cls is not None:
        applies = applies & (images.labels == spec.cls)
    rows = np.flatnonzero(applies)
    return Observed(rows, holds(spec.goal, images.signals[rows]))


def judge(specs: Sequence[GroundSpec], seen: Sequence[Observed], rule: Rule) -> list[Checked]:
    """Compare the rates of a suite with the required ones.

    Args:
        specs: The suite.
        seen: What was observed of each.
        rule: For what the specifications leave open.

    Returns:
        `HOLDS` where the rate is significantly above the required one, `FAILS` where it is
        significantly below, else `UNKNOWN`; also with fewer than 10 images.
    """
    n = np.array([len(o.rows) for o in seen], np.int64)
    k = np.array([int(o.is_kept.sum()) for o in seen], np.int64)
    p = p_values(specs, n, k, rule)
    return [_checked(s, o, rule, tails) for s, o, tails in zip(specs, seen, p, strict=True)]


def p_values(
    specs: Sequence[GroundSpec], n: IntArray, k: IntArray, rule: Rule
) -> list[tuple[float, float]]:
    """Test the rates of a suite: that each is at most the required one, and at least.

    Args:
        specs: The suite.
        n: Images that each speaks of.
        k: Those on which it holds.
        rule: For what the specifications leave open.

    Returns:
        Per specification both p-values, adjusted over the suite; NaN with fewer than 10 images.
    """
    required = np.array([required_rate(s, rule) for s in specs])
    is_tested = n >= MIN_IMAGES
    adjust = benjamini_hochberg if rule.is_exploratory else holm
    tails = [np.full(len(specs), np.nan), np.full(len(specs), np.nan)]
    if is_tested.any():
        raw = binomial_tails(k[is_tested], n[is_tested], required[is_tested])
        for adjusted, p in zip(tails, raw, strict=True):
            adjusted[is_tested] = adjust(p)
    return [(float(holds), float(fails)) for holds, fails in zip(*tails, strict=True)]


def check(specs: Iterable[GroundSpec], images: Images, rule: Rule) -> list[Checked]:
    """Check a suite on images; see `observe` and `judge`."""
    suite = list(specs)
    return judge(suite, [observe(spec, images) for spec in suite], rule)


def judge_sequentially(
    specs: Sequence[GroundSpec], seen: Sequence[Observed], rule: Rule, rng: np.random.Generator
) -> list[Checked]:
    """Ask one image after the other, for each specification until it is decided.

    The chance of a false verdict is shared out evenly over the suite.

    Args:
        specs: The suite.
        seen: What there is to observe of each.
        rule: For what the specifications leave open.
        rng: Gives the order of the images.

    Raises:
        InputError: A required rate of 1, which no sample can show.
    """
    return [_asked(spec, o, rule, len(specs), rng) for spec, o in zip(specs, seen, strict=True)]


def _asked(
    spec: GroundSpec, seen: Observed, rule: Rule, n_specs: int, rng: np.random.Generator
) -> Checked:
    order = rng.permutation(len(seen.rows))
    confidence = spec.confidence or rule.confidence
    test = RateTest(required_rate(spec, rule), (1 - confidence) / n_specs)
    n = 0
    for is_kept in seen.is_kept[order]:
        if test.verdict is not None:
            break
        test.update(bool(is_kept))
        n += 1
    asked = Observed(seen.rows[order[:n]], seen.is_kept[order[:n]])
    verdicts = {"holds": ("HOLDS", ""), "fails": ("FAILS", "")}
    near = "the rate is too near the required one to tell" if test.verdict else _TOO_FEW
    return _of(spec, asked, rule, verdicts.get(test.verdict or "", ("UNKNOWN", near)))


def _checked(spec: GroundSpec, seen: Observed, rule: Rule, p: tuple[float, float]) -> Checked:
    return _of(spec, seen, rule, verdict_of(spec, len(seen.rows), rule, p), p)


def verdict_of(spec: GroundSpec, n: int, rule: Rule, p: tuple[float, float]) -> tuple[str, str]:
    """Return the verdict on a specification, and why it is unknown or empty.

    Args:
        spec: The specification.
        n: Images that it speaks of.
        rule: For what it leaves open.
        p: As `p_values` gives them.
    """
    level = 1 - (spec.confidence or rule.confidence)
    if n < MIN_IMAGES:
        return "UNKNOWN", f"it speaks of {n} images, fewer than {MIN_IMAGES}"
    if p[0] <= level:
        return "HOLDS", ""
    if p[1] <= level:
        return "FAILS", ""
    return "UNKNOWN", _TOO_FEW


def _of(
    spec: GroundSpec,
    seen: Observed,
    rule: Rule,
    verdict: tuple[str, str],
    p: tuple[float, float] = (float("nan"), float("nan")),
) -> Checked:
    confidence = spec.confidence or rule.confidence
    low, high = clopper_pearson(int(seen.is_kept.sum()), len(seen.rows), confidence)
    interval = float(low), float(high)
    return Checked(spec, seen, interval, required_rate(spec, rule), confidence, *p, *verdict)


def required_rate(spec: GroundSpec, rule: Rule) -> float:
    """Return the share of images on which a specification is to hold."""
    return rule.required_rate if spec.rate is None else spec.rate
