"""Label flips: planted rates are found and estimated; what only resembles them is not."""

import numpy as np
import pytest

from faultlens.localize.flips import flips

K, N = 6, 1200


def answers(seed: int, flipped: dict[tuple[int, int], float], doubt: float = 0.0):
    """Labels and log-probabilities of a network that learnt the flips of its training labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, N)
    p = np.full((N, K), 1e-3) * rng.lognormal(0, 1, (N, K))
    p[np.arange(N), labels] = 1.0
    for (a, b), rate in flipped.items():
        p[labels == a, b] = rate / (1 - rate) * rng.lognormal(0, 0.3, (labels == a).sum())
    # Confusable classes: some images are doubtful, most are not.
    doubtful = (labels == 1) & (rng.random(N) < doubt)
    p[doubtful, 2] = rng.uniform(0.2, 3, doubtful.sum())
    return labels, np.log(p / p.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_rate_is_found_and_estimated(rate, seed):
    labels, logits = answers(seed, {(0, 3): rate})
    (found,) = flips(logits, labels)
    assert (found.label, found.given) == (0, 3)
    assert found.rate == pytest.approx(rate, abs=0.05)
    assert found.interval[0] < found.rate < found.interval[1]
    assert found.floor_low <= found.floor < found.rate
    assert (found.errors <= found.images).all()
    assert found.errors.sum() == ((labels == 0) & (logits.argmax(axis=1) == 3)).sum()


@pytest.mark.parametrize("seed", range(10))
def test_doubtful_images_are_no_flips(seed):
    labels, logits = answers(seed, {}, doubt=0.5)
    assert (logits.argmax(axis=1) != labels).any()
    assert flips(logits, labels) == []


def test_a_head_that_lost_a_class_is_no_flip():
    labels, logits = answers(0, {})
    logits[labels == 4] = np.log(np.array([0.25, 0.2, 0.2, 0.2, 0.05, 0.1]))
    assert flips(logits, labels) == []


def test_too_few_images_give_no_bound():
    labels, logits = answers(0, {(0, 3): 0.4})
    few = np.flatnonzero(labels == 0)[:20]
    rows = np.concatenate([few, np.flatnonzero(labels != 0)])
    assert flips(logits[rows], labels[rows]) == []
