"""Heatmap detectors against the full matrices, cell by cell."""

import numpy as np
import pytest

from faultlens.errors import InputError, InsufficientDataError, ShapeError
from faultlens.heatmaps import single
from faultlens.monitor import pairs
from faultlens.monitor.detector import DETECTORS, load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.heatmap import OutputHeatmaps
from faultlens.monitor.pairs import pair_sums
from faultlens.stats import auroc

SHRINK = 10.0


def class_heatmaps(features, labels):
    """Return (K, C, C) of wrong and of right predictions, by one image after another."""
    predictions, n_classes = features.predictions, features.logits.shape[1]
    found = {}
    for name, member in (("wrong", predictions != labels), ("right", predictions == labels)):
        single_ones = np.array([0.5 * (1 + single(s) - single(s).T) for s in features.strengths])
        everyone = (single_ones[member].sum(axis=0) + 1) / (member.sum() + 2)
        found[name] = np.array(
            [
                (single_ones[member & (predictions == p)].sum(axis=0) + SHRINK * everyone)
                / ((member & (predictions == p)).sum() + SHRINK)
                for p in range(n_classes)
            ]
        )
    return found["wrong"], found["right"]


def cosine(h, reference, weight):
    """Return the weighted cosine over the cells off the diagonal, centred at one half."""
    off = ~np.eye(len(h), dtype=bool)
    x, y, w = (h - 0.5)[off], (reference - 0.5)[off], weight[off]
    length = np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return (w * x * y).sum() / length if length > 0 else 0.0


def jaccard(h, reference):
    mine = {(a, b) for a, b in zip(*np.nonzero(h), strict=True)}
    theirs = {(a, b) for a, b in zip(*np.nonzero(reference >= 0.5), strict=True) if a != b}
    return len(mine & theirs) / len(mine | theirs)


def test_estimated_heatmaps_are_those_counted_image_by_image(reference):
    features, labels = reference[0].select(slice(0, 300)), reference[1][:300]
    wrong, right = class_heatmaps(features, labels)
    upper = np.triu_indices(12, 1)
    found = OutputHeatmaps.of(features, labels, SHRINK)
    np.testing.assert_allclose(found.wrong, wrong[:, *upper])
    np.testing.assert_allclose(found.right, right[:, *upper])
    assert found.n_wrong.sum() == (features.predictions != labels).sum()


def test_cosine_is_that_of_the_full_matrices(reference, fresh):
    wrong, right = class_heatmaps(*reference)
    scores = load_detector("heatmap").fit(*reference).score(fresh[0])
    ones = np.ones((12, 12))
    for i in range(100):
        h, p = single(fresh[0].strengths[i]), fresh[0].predictions[i]
        want = cosine(h, wrong[p], ones) - cosine(h, right[p], ones)
        assert scores[i] == pytest.approx(want, abs=1e-6)


def test_weighted_cosine_counts_cells_by_reliability(reference, fresh):
    features, labels = reference
    wrong, right = class_heatmaps(features, labels)
    is_wrong = features.predictions != labels
    scores = load_detector("heatmap-weighted").fit(features, labels).score(fresh[0])
    for i in range(60):
        h, p = single(fresh[0].strengths[i]), fresh[0].predictions[i]
        n_wrong = (is_wrong & (features.predictions == p)).sum() + SHRINK
        n_right = (~is_wrong & (features.predictions == p)).sum() + SHRINK
        noise = wrong[p] * (1 - wrong[p]) / n_wrong + right[p] * (1 - right[p]) / n_right
        signal = (wrong[p] - right[p]) ** 2
        weight = signal / (signal + noise)
        want = cosine(h, wrong[p], weight) - cosine(h, right[p], weight)
        assert scores[i] == pytest.approx(want, abs=1e-6)


def test_distance_is_the_mean_over_cells(reference, fresh):
    wrong, right = class_heatmaps(*reference)
    scores = load_detector("heatmap-distance").fit(*reference).score(fresh[0])
    off = ~np.eye(12, dtype=bool)
    for i in range(100):
        h, p = single(fresh[0].strengths[i]), fresh[0].predictions[i]
        want = ((h - right[p])[off] ** 2).mean() - ((h - wrong[p])[off] ** 2).mean()
        assert scores[i] == pytest.approx(want, abs=1e-6)


def test_jaccard_is_that_of_the_sets_of_pairs(reference, fresh):
    wrong, right = class_heatmaps(*reference)
    scores = load_detector("heatmap-jaccard").fit(*reference).score(fresh[0])
    for i in range(100):
        h, p = single(fresh[0].strengths[i]), fresh[0].predictions[i]
        assert scores[i] == pytest.approx(jaccard(h, wrong[p]) - jaccard(h, right[p]), abs=1e-6)


def test_jaccard_leaves_undefined_cells_out(reference, fresh):
    scores = load_detector("heatmap-jaccard", threshold=1.0).fit(*reference).score(fresh[0])
    assert not scores.any()


def test_bayes_is_the_sum_of_log_likelihood_ratios(reference, fresh):
    features, labels = reference
    wrong, right = class_heatmaps(features, labels)
    is_wrong = features.predictions != labels
    scores = load_detector("heatmap-bayes").fit(features, labels).score(fresh[0])
    upper = np.triu_indices(12, 1)
    for i in range(100):
        h, p = single(fresh[0].strengths[i])[upper], fresh[0].predictions[i]
        own = features.predictions == p
        want = np.log(((own & is_wrong).sum() + 1) / ((own & ~is_wrong).sum() + 1))
        for x, q, r in zip(h, wrong[p][upper], right[p][upper], strict=True):
            want += np.log(q / r) if x else np.log((1 - q) / (1 - r))
        assert scores[i] == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_a_class_without_errors_takes_the_heatmap_of_all_errors():
    rng = np.random.default_rng(0)
    s, labels = rng.normal(size=(400, 4)), rng.integers(3, size=400)
    predicted = np.where((labels != 0) & (rng.random(400) < 0.5), 2, labels)
    features = Features(s, np.eye(3)[predicted], s)
    found = OutputHeatmaps.of(features, labels, SHRINK)
    is_wrong = predicted != labels
    a, b = np.triu_indices(4, 1)
    everyone = ((s[is_wrong][:, a] > s[is_wrong][:, b]).sum(axis=0) + 1) / (is_wrong.sum() + 2)
    assert found.n_wrong[0] == 0
    np.testing.assert_allclose(found.wrong[0], everyone, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 31, 33, 1500])
def test_pair_sums_agree_with_the_full_array_and_ties_count_nothing(n):
    rng = np.random.default_rng(n)
    s = rng.normal(size=(n, 7)).astype(np.float32)
    s[::3] = np.round(s[::3])  # every third image has ties
    groups, weights = rng.integers(3, size=n), rng.normal(size=(3, 2, 21)).astype(np.float32)
    a, b = np.triu_indices(7, 1)
    want = np.einsum("nm,njm->nj", np.sign(s[:, a] - s[:, b]), weights[groups])
    np.testing.assert_allclose(pair_sums(s, groups, weights), want, atol=1e-4)


def test_many_images_on_threads_score_as_on_one(monkeypatch):
    rng = np.random.default_rng(0)
    s, groups = rng.normal(size=(9000, 5)).astype(np.float32), rng.integers(4, size=9000)
    weights = rng.normal(size=(4, 1, 10)).astype(np.float32)
    threaded = pair_sums(s, groups, weights)
    monkeypatch.setattr(pairs, "_WORTH_THREADS", 10**9)
    assert np.array_equal(pair_sums(s, groups, weights), threaded)


def test_renaming_the_concepts_changes_no_score(reference, fresh):
    order = np.random.default_rng(3).permutation(12)

    def renamed(f):
        return Features(f.embeddings, f.logits, f.strengths[:, order], f.layers)

    for name in (n for n in DETECTORS if n.startswith("heatmap")):
        want = load_detector(name).fit(*reference).score(fresh[0])
        detector = load_detector(name).fit(renamed(reference[0]), reference[1])
        np.testing.assert_allclose(detector.score(renamed(fresh[0])), want, 1e-4, 1e-5)


@pytest.mark.parametrize("name", ["heatmap", "heatmap-weighted", "heatmap-bayes"])
def test_contradictions_are_the_largest_parts_of_the_score(name, reference, fresh):
    detector = load_detector(name).fit(*reference)
    few = fresh[0].select(slice(0, 25))
    found, parts = detector.contradictions(few, n=66)
    weights = detector.fitted()["weights"][few.predictions, 0]
    signed = np.sign([[s[a] - s[b] for a, b in zip(*np.triu_indices(12, 1), strict=True)]
                      for s in few.strengths]) * weights  # fmt: skip
    np.testing.assert_allclose(parts, np.maximum(-np.sort(-signed, axis=1), 0), atol=1e-7)
    for i, image in enumerate(found):
        assert all(few.strengths[i, a] >= few.strengths[i, b] for a, b in image)
    top, _ = detector.contradictions(few, n=2)
    assert np.array_equal(top, found[:, :2])


def test_contradictions_name_the_planted_pair():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(600, 5))
    is_wrong = rng.random(600) < 0.2
    s[:, 3] = np.where(is_wrong, s[:, 1] + 2, s[:, 1] - 2)  # errors have 3 ahead of 1
    features = Features(s, np.tile([1.0, 0.0], (600, 1)), s)
    detector = load_detector("heatmap-bayes").fit(features, is_wrong.astype(int))
    found, parts = detector.contradictions(features.select(is_wrong), n=1)
    assert (found == [3, 1]).all()
    assert (parts > 0).all()


def test_too_few_concepts_or_none_are_refused():
    logits, y = np.eye(2), np.array([0, 1])
    with pytest.raises(ShapeError, match="strengths must have at least two concepts"):
        load_detector("heatmap").fit(Features(logits, logits, np.ones((2, 1))), y)
    with pytest.raises(InputError, match="strengths must be given"):
        load_detector("heatmap").fit(Features(logits, logits), y)


def test_the_heatmap_of_attacks_speaks_of_attacked_images_not_of_errors():
    rng = np.random.default_rng(0)
    n = 900
    kind = rng.integers(3, size=n)  # right, wrong, attacked
    strengths = rng.normal(size=(n, 4))
    strengths[np.arange(n), kind] += 4  # each kind has a concept of its own
    logits = np.tile([1.0, 0.0], (n, 1))
    features = Features(strengths, logits, strengths, {"attacked": (kind == 2)[:, None]})
    labels = np.where(kind == 1, 1, 0)
    scores = load_detector("heatmap-attacked").fit(features, labels).score(features)
    assert auroc(scores[kind != 1], kind[kind != 1] == 2) > 0.99
    assert auroc(scores[kind != 0], kind[kind != 0] == 2) > 0.75
    with pytest.raises(InputError, match="layers must hold 'attacked'"):
        load_detector("heatmap-attacked").fit(Features(strengths, logits, strengths), labels)
    none = Features(strengths, logits, strengths, {"attacked": np.zeros((n, 1))})
    with pytest.raises(InsufficientDataError, match="attacked images"):
        load_detector("heatmap-attacked").fit(none, labels)
