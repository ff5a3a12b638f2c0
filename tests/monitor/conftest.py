"""A planted problem: four classes around their means, a linear head, twelve concepts."""

import numpy as np
import pytest

from faultlens.monitor.features import Features


def planted(n: int, seed: int) -> tuple[Features, np.ndarray]:
    """Draw images; every fifth is hard: half another class, and noisy where the others are not."""
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(4, size=(2, n))
    is_hard = rng.random(n) < 0.2
    means = 3 * np.eye(4, 8)
    z = np.where(is_hard[:, None], 0.5 * means[labels] + 0.5 * means[others], means[labels])
    z += rng.normal(size=(n, 8)) * np.where(is_hard[:, None], [0.8] * 4 + [1.5] * 4, 0.6)
    concepts = np.random.default_rng(5).normal(size=(8, 12))
    concepts[:4, :4] += 3 * np.eye(4)
    logits = (z - 0.1) @ means.T + [0.3, 0.0, -0.2, 0.1]
    layers = {
        "stem": z[:, :5],
        "stage:low": z @ concepts[:, :6],
        "stage:/high/relu": z[:, 2:],
        "squeeze:flip": logits + rng.normal(size=(n, 4)),
        "squeeze:zoom-out": logits + rng.normal(size=(n, 4)),
        "attacked": (rng.random((n, 1)) < 0.3) & is_hard[:, None],
        "vlm": means[labels][:, :4] + rng.normal(size=(n, 4)),
    }
    return Features(z, logits, (z - means.mean(axis=0)) @ concepts, layers), labels


@pytest.fixture(scope="session")
def reference() -> tuple[Features, np.ndarray]:
    return planted(3000, 0)


@pytest.fixture(scope="session")
def fresh() -> tuple[Features, np.ndarray]:
    return planted(700, 1)
