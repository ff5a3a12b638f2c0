"""Baselines: what simpler methods make of the same subjects, each in a few lines.

All answer the question that the product answers: which module, which concepts, which classes. Those
called annotated read the truth of every picture, which nobody has outside of a benchmark; they are
what words alone could reach at best. A method that cannot tell modules apart says `unknown`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from faultlens.alignment import align, normalize
from faultlens.concepts import Vocabulary, strengths, zero_shot
from faultlens.heatmaps import MIN_IMAGES, ClassCounts
from planting.observe import Observed

MODULES = ("head", "encoder", "data", "input", "none")
#: Ridge of the probes, in variances of a standardised dimension.
RIDGE = 0.1
#: A probe drops, or beats the head, by more than accuracy varies between healthy networks.
MIN_GAP = 0.025
#: The mixture slicer's, as in the paper's code but for fewer dimensions.
N_SLICES, N_DIMENSIONS = 25, 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a method says of one subject.

    Attributes:
        module: `head`, `encoder`, `data`, `input`, `none` or `unknown`.
        concepts: Best first.
        classes: Best first.
        confidence: In [0, 1], to rank a method's own verdicts by.
    """

    module: str
    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    confidence: float


#: The subject, a healthy one of the same half or None, the vocabulary of the subject's truth.
Baseline = Callable[[Observed, Observed | None, Vocabulary, np.random.Generator], Verdict]


def _ranked(scores: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Names, largest score first; NaN last."""
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    return tuple(names[i] for i in order)


def _confusions(o: Observed) -> np.ndarray:
    """(K, K) errors by label and prediction."""
    counts = np.zeros((o.logits.shape[1],) * 2, int)
    wrong = o.predictions != o.labels
    np.add.at(counts, (o.labels[wrong], o.predictions[wrong]), 1)
    return counts


def _largest(counts: np.ndarray) -> tuple[int, int]:
    a, b = np.unravel_index(counts.argmax(), counts.shape)
    return int(a), int(b)


def _read(x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Linear probes by ridge regression; each half of the images is read by the other's fit."""
    out = np.empty(targets.shape)
    half = np.arange(len(x)) % 2
    for own in (half == 0, half == 1):
        z = np.asarray(x, float) - x[~own].mean(axis=0, dtype=float)
        z /= np.maximum(z[~own].std(axis=0), 1e-9)
        fitted, mean = z[~own], targets[~own].mean(axis=0)
        gram = fitted.T @ fitted + RIDGE * len(fitted) * np.eye(z.shape[1])
        out[own] = z[own] @ np.linalg.solve(gram, fitted.T @ (targets[~own] - mean)) + mean
    return out


def random(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Draw everything."""
    return Verdict(
        str(rng.choice(MODULES)), tuple(rng.permutation(words.concepts).tolist()),
        tuple(rng.permutation(words.classes).tolist()), float(rng.random()),
    )  # fmt: skip


def attribute_difference(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Concepts by how differently often the two classes of the largest confusion show them.

    Annotated. Confidence is the confusion's share of the errors.
    """
    counts = _confusions(o)
    a, b = _largest(counts)
    gap = o.truth[o.labels == a].mean(axis=0) - o.truth[o.labels == b].mean(axis=0)
    pair = (words.classes[a], words.classes[b])
    share = float(counts[a, b] / max(counts.sum(), 1))
    return Verdict("unknown", _ranked(np.abs(gap), words.concepts), pair, share)


def _differences(x: np.ndarray, o: Observed, group: np.ndarray) -> np.ndarray:
    """Squared z-values of a group of errors against correct images of the same labels, (C,).

    Mantel and Haenszel's: differences are taken within labels and pooled.
    """
    right = o.predictions == o.labels
    gap, variance = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for label in np.unique(o.labels[group]):
        own, other = group & (o.labels == label), right & (o.labels == label)
        if other.sum() >= MIN_IMAGES:
            weight = own.sum() * other.sum() / (own.sum() + other.sum())
            gap += weight * (x[own].mean(axis=0) - x[other].mean(axis=0))
            variance += weight * x[own | other].var(axis=0)
    return gap**2 / np.maximum(variance, 1e-9)


def attribute_probes(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Concepts by how errors differ from correct images of the same labels.

    Annotated, an upper bound. Compared are the errors of each label and those predicted as each
    class, in what the pictures show and in what a linear probe on the embedding reads of it, and
    the squared z-values are summed. Confidence is how far the best sum is above that of chance, 1
    a comparison.
    """
    wrong = o.predictions != o.labels
    groups = [wrong & (of == k) for of in (o.labels, o.predictions) for k in np.unique(of[wrong])]
    seen = (o.truth, _read(o.embedding, o.truth))
    score = sum((_differences(x, o, g) for x in seen for g in groups), np.zeros(o.truth.shape[1]))
    counts = _confusions(o)
    classes = _ranked(counts.sum(axis=0) + counts.sum(axis=1), words.classes)
    confidence = 1 - len(seen) * max(len(groups), 1) / max(float(score.max()), 1e-9)
    return Verdict("unknown", _ranked(score, words.concepts), classes, max(0.0, confidence))


def layer_probes(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Module by the accuracy of linear probes of the classes at every layer.

    Encoder, where the best probe is clearly worse than the healthy network's; else head, where the
    embedding's own is clearly better than the shipped head; else none. Classes by the recall that a
    probe on the embedding would add. Confidence grows with the distance from the threshold.
    """

    def recalls(seen: Observed, x: np.ndarray) -> np.ndarray:
        one_hot = np.eye(len(words.classes))[seen.labels]
        right = _read(x, one_hot).argmax(axis=1) == seen.labels
        return right @ one_hot / np.maximum(one_hot.sum(axis=0), 1)

    def best(seen: Observed) -> float:
        return max(recalls(seen, x).mean() for x in (*seen.stages.values(), seen.embedding))

    right = (o.predictions == o.labels) @ np.eye(len(words.classes))[o.labels]
    added = recalls(o, o.embedding) - right / np.maximum(np.bincount(o.labels), 1)
    gaps = {
        "encoder": best(healthy) - best(o) if healthy else 0.0,
        "head": float(added.mean()),
    }
    module = next((m for m, gap in gaps.items() if gap > MIN_GAP), "none")
    gap = gaps[module] if module in gaps else max(gaps.values())
    distance = abs(gap - MIN_GAP)
    confidence = distance / (distance + MIN_GAP)
    return Verdict(module, (), _ranked(added, words.classes), float(confidence))


def plain_oracle(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Hu et al. (CAIN 2025, arXiv:2503.17416) alone, without gates, intervals or tests.

    Every error is the head's where the mapped embedding is zero-shot right, else the encoder's; the
    majority decides. Concepts by their rows of the differential heatmap, correct minus incorrect,
    of the class with most errors: mean absolute cell. The map is fitted on one half of the images
    and judged on the other. Deviation: a ridge map, as the product's.
    """
    fit = np.arange(len(o.labels)) % 2 == 0
    fitted = align(o.embedding[fit], o.vlm[fit], np.arange(fit.sum()) % 5 == 0)
    mapped, labels, predictions = fitted(o.embedding[~fit]), o.labels[~fit], o.predictions[~fit]
    wrong = predictions != labels
    is_head = zero_shot(mapped, words.class_directions)[wrong] == labels[wrong]
    share = float(is_head.mean()) if len(is_head) else 0.5
    k = int(np.bincount(labels[wrong], minlength=len(words.classes)).argmax())
    s = strengths(mapped, words.directions)
    counts = ClassCounts.of(s, labels, predictions, words.concepts, words.classes)
    delta = counts.heatmap("correct", k).values - counts.heatmap("incorrect", k).values
    taken_for = _ranked(_confusions(o)[k], words.classes)
    return Verdict(
        "head" if share > 0.5 else "encoder",
        _ranked(np.abs(delta).mean(axis=1), words.concepts),
        (words.classes[k], *(x for x in taken_for if x != words.classes[k])),
        abs(2 * share - 1),
    )


def _slices(o: Observed, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) slice of each image: a mixture over pictures, labels and predictions."""
    k = o.logits.shape[1]
    z = PCA(min(N_DIMENSIONS, *v.shape), svd_solver="covariance_eigh").fit_transform(v)
    x = np.hstack([z / z.std(), np.eye(k)[o.labels], softmax(o.logits, axis=1)])
    cell = o.labels * k + o.predictions
    starts = np.argsort(-np.bincount(cell, minlength=k * k), kind="stable")[:N_SLICES]
    means = [x[cell == c].mean(axis=0) for c in starts if (cell == c).any()]
    mixture = GaussianMixture(
        len(means), covariance_type="diag", reg_covar=1e-2, max_iter=50, tol=1e-2,
        init_params="random_from_data", means_init=means, random_state=int(rng.integers(2**31)),
    )  # fmt: skip
    return mixture.fit_predict(x)


def mixture_slicer(
    o: Observed, healthy: Observed | None, words: Vocabulary, rng: np.random.Generator
) -> Verdict:
    """Slices of like pictures with like errors, named by concepts (Domino).

    Eyuboglu et al., ICLR 2022, arXiv:2203.14960. Deviations: label and prediction are Gaussian
    dimensions of one mixture of scikit-learn, not categorical; components start at the largest
    cells of the confusion matrix, not at every cell in turn; one slice is told, that of at least 10
    images with the highest error rate, instead of several by the distance of label and prediction;
    images are not split, since only slices are named, and nothing is predicted from them.
    """
    v, wrong = normalize(o.vlm), o.predictions != o.labels
    of = _slices(o, v, rng)
    n = np.bincount(of)
    rate = np.bincount(of, wrong) / np.maximum(n, 1)
    # Of equally wrong slices the larger.
    worst = int(np.where(n >= min(MIN_IMAGES, n.max()), rate + 1e-6 * n, -1).argmax())
    inside = of == worst
    label, taken_for = (int(np.bincount(x[inside]).argmax()) for x in (o.labels, o.predictions))
    shift = normalize(v[inside].mean(axis=0) - v[o.labels == label].mean(axis=0))
    classes = tuple(dict.fromkeys((words.classes[label], words.classes[taken_for])))
    concepts = _ranked(words.directions @ shift, words.concepts)
    return Verdict("unknown", concepts, classes, float(rate[worst]))


BASELINES: dict[str, Baseline] = {
    "random": random,
    "confusion + attribute difference": attribute_difference,
    "attribute probes (annotated)": attribute_probes,
    "probe drop by layer": layer_probes,
    "plain oracle (CAIN 2025)": plain_oracle,
    "mixture slicer (Domino-like)": mixture_slicer,
}
