import threading

import numpy as np
import pytest

from faultlens.monitor.blocks import BLOCK, MANY, by_rows, each, row_blocks
from faultlens.monitor.detector import load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.mahalanobis import Mahalanobis


def test_blocks_cover_all_rows_once():
    n = 3 * BLOCK + 5
    seen = np.zeros(n, int)

    def fill(rows):
        seen[rows] += 1

    each(fill, row_blocks(seen))
    assert (seen == 1).all()


def test_an_error_in_a_block_is_told():
    def fail(_):
        raise ValueError("in a block")

    with pytest.raises(ValueError, match="in a block"):
        each(fail, [1, 2])


@pytest.mark.parametrize(
    "name",
    ["refit", "refit-strengths", "mahalanobis", "mahalanobis-strengths", "heatmap-bayes", "fused"],
)
def test_many_images_score_as_few(reference, fresh, name):
    detector = load_detector(name).fit(*reference)
    few = detector.score(fresh[0])
    times = MANY // len(few) + 1
    many = detector.score(fresh[0].select(np.tile(np.arange(len(few)), times)))
    np.testing.assert_allclose(many, np.tile(few, times), rtol=1e-4, atol=1e-5 * few.std())


def test_work_inside_a_thread_stays_in_it():
    seen = []

    def outer(_):
        mine = threading.get_ident()
        each(lambda _: seen.append(threading.get_ident() == mine), [1, 2, 3])

    each(outer, [1, 2])
    assert seen == [True] * 6


def test_rows_by_rows_are_all_rows_in_their_order():
    n = 2 * MANY + 77
    features = Features(np.arange(n)[:, None], np.zeros((n, 2)))
    sizes = []

    def measure(some):
        sizes.append(len(some))
        return some.embeddings[:, 0] * 2.0

    np.testing.assert_array_equal(by_rows(measure, features), 2.0 * np.arange(n))
    assert len(sizes) == 2
    assert sum(sizes) == n


@pytest.mark.parametrize("width", [5, 128, 300])
def test_triangles_of_any_width_give_the_distance(width):
    rng = np.random.default_rng(width)

    points = rng.normal(size=(MANY, width)).astype(np.float32)
    points[:, 0] = 3.0  # a direction without variance
    labels = rng.integers(3, size=len(points))
    features = Features(points, np.zeros((len(points), 3)))
    detector = Mahalanobis().fit(features.select(slice(2000)), labels[:2000])
    few = detector.score(features.select(slice(500)))
    np.testing.assert_allclose(detector.score(features)[:500], few, rtol=1e-4)
