import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import oracles
from faultlens import heatmaps
from faultlens.errors import InputError, ShapeError
from faultlens.heatmaps import ClassCounts, Heatmap, HeatmapCounts, differential, single

# Few distinct values, so that ties are common.
strength_arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(2, 7)),
    elements=st.integers(-3, 3).map(lambda v: v / 4),
)


def groups_of(s, n_groups, seed=0):
    return np.random.default_rng(seed).integers(-1, n_groups, len(s))


@given(strength_arrays)
def test_counts_equal_three_loops(s):
    g = groups_of(s, 3)
    counts = HeatmapCounts.of(s, g, 3)
    for k in range(3):
        rows = np.flatnonzero(g == k)
        assert counts.n[k] == len(rows)
        assert (counts.wins[k] == oracles.heatmap(s, rows)).all()


@given(strength_arrays)
def test_cells_their_mirrors_and_ties_sum_to_one(s):
    counts = HeatmapCounts.of(s, np.zeros(len(s), int), 1)
    h = Heatmap("ground-truth", "x", tuple("abcdefg"[: s.shape[1]]), counts.wins[0], len(s))
    ties = (s[:, :, None] == s[:, None, :]).mean(axis=0)
    assert np.allclose(h.values + h.values.T + ties, 1)
    assert np.allclose(h.ties, ties)


@given(strength_arrays, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_shards_merge_in_any_order(s, random):
    g = groups_of(s, 2)
    whole = HeatmapCounts.of(s, g, 2)
    cuts = sorted({0, len(s), *(random.randint(0, len(s)) for _ in range(3))})
    shards = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    random.shuffle(shards)
    merged = HeatmapCounts.of(s[shards[0]], g[shards[0]], 2)
    for shard in shards[1:]:
        merged = merged.merge(HeatmapCounts.of(s[shard], g[shard], 2))
    assert (merged.wins == whole.wins).all()
    assert (merged.n == whole.n).all()


def compared(s, groups, n_groups):
    """Count wins by comparing all pairs of each image at once."""
    wins = np.zeros((n_groups, s.shape[1], s.shape[1]), int)
    for row, k in zip(s, groups, strict=True):
        if k >= 0:
            wins[k] += row[:, None] > row
    return wins


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_concepts", [1, 2, 9, 100, 101])
def test_counts_over_many_blocks_equal_a_plain_loop(n_concepts, dtype, n_threads):
    rng = np.random.default_rng(n_concepts)
    s = rng.normal(size=(3001, n_concepts)).astype(dtype)
    s[::7] = np.round(s[::7])  # ties, and zeros of both signs
    s[5:90] = s[5:90, :1]  # nothing but ties
    g = groups_of(s, 23)
    g[1000:] = 7  # more images than a block has
    g[g == 11] = 3
    counts = HeatmapCounts.of(s, g, 23, n_threads)
    assert (counts.wins == compared(s, g, 23)).all()
    assert counts.n[11] == 0
    assert (counts.n == [(g == k).sum() for k in range(23)]).all()


def test_enough_blocks_are_shared_out_over_threads(monkeypatch):
    pools = []
    pool = heatmaps.ThreadPoolExecutor
    monkeypatch.setattr(
        heatmaps, "ThreadPoolExecutor", lambda n, **kw: pools.append(n) or pool(n, **kw)
    )
    s = np.random.default_rng(0).normal(size=(64, 3))
    for n_groups in (1, 8, 64):  # a group has a block of its own
        HeatmapCounts.of(s, np.arange(64) % n_groups, n_groups, n_threads=2)
    assert pools == [2]


@pytest.mark.parametrize("n_concepts", [2, 100])
def test_no_sum_overflows_where_a_concept_always_wins(n_concepts):
    s = np.tile(np.arange(n_concepts, 0, -1.0), (60_000, 1))
    wins = HeatmapCounts.of(s, np.zeros(len(s), int), 1).wins[0]
    assert (wins == np.triu(np.full_like(wins, len(s)), 1)).all()


def test_differences_that_float32_would_lose_count():
    s = np.array([[1, 1 + 2.0**-40], [1 - 2.0**-40, 1]])
    counts = HeatmapCounts.of(s, np.zeros(2, int), 1)
    assert counts.wins[0].tolist() == [[0, 0], [2, 0]]


@given(strength_arrays)
def test_permuting_concepts_permutes_the_heatmap(s):
    order = np.random.default_rng(1).permutation(s.shape[1])
    plain = HeatmapCounts.of(s, np.zeros(len(s), int), 1).wins[0]
    permuted = HeatmapCounts.of(s[:, order], np.zeros(len(s), int), 1).wins[0]
    assert (permuted == plain[np.ix_(order, order)]).all()


def test_single_is_the_heatmap_of_one_image():
    s = np.array([0.4, 0.1, 0.4], np.float32)
    assert (HeatmapCounts.of(s[None], np.array([0]), 1).wins[0] == single(s)).all()


def test_kinds_divide_the_images_of_a_class():
    rng = np.random.default_rng(3)
    s = rng.normal(size=(300, 4)).astype(np.float32)
    y, p = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    counts = ClassCounts.of(s, y, p, tuple("abcd"), ("x", "y", "z"))
    groups = {
        "ground-truth": y == 1,
        "output-label": p == 1,
        "correct": (y == 1) & (p == 1),
        "incorrect": (y == 1) & (p != 1),
        "incorrect-output": (p == 1) & (y != 1),
    }
    for kind, group in groups.items():
        h = counts.heatmap(kind, 1)
        assert h.n == group.sum()
        assert (h.wins == oracles.heatmap(s, np.flatnonzero(group))).all()
    merged = ClassCounts.of(s[:100], y[:100], p[:100], *_names()).merge(
        ClassCounts.of(s[100:], y[100:], p[100:], *_names())
    )
    assert (merged.heatmap("output-label", 2).wins == counts.heatmap("output-label", 2).wins).all()


def _names():
    return tuple("abcd"), ("x", "y", "z")


def test_binarized_has_three_values_and_mirrors():
    h = Heatmap("gt", "k", ("a", "b"), np.array([[0, 8], [2, 0]]), 10)
    assert h.binarized(0.75).tolist() == [[0, 1], [0, 0]]
    assert h.binarized(0.9).tolist() == [[0, -1], [-1, 0]]
    with pytest.raises(InputError, match=r"threshold must be in \[0.5, 1\], got 0.4"):
        h.binarized(0.4)


def test_differential_is_antisymmetric_and_swaps_sign():
    rng = np.random.default_rng(5)
    a = _heatmap(rng.normal([1, 0, 0], 1, (60, 3)))
    b = _heatmap(rng.normal([-1, 0, 0], 1, (40, 3)))
    forward, backward = differential(a, b), differential(b, a)
    assert np.allclose(forward.values, -backward.values)
    assert np.allclose(forward.values, -forward.values.T)
    assert np.allclose(forward.q_values, forward.q_values.T)
    assert forward.significant()[0, 1]
    assert not forward.significant()[1, 2]
    assert (forward.low <= forward.values).all()
    assert (forward.values <= forward.high).all()


def test_differential_finds_nothing_under_the_null():
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(200):
        a = _heatmap(rng.normal(size=(40, 6)))
        b = _heatmap(rng.normal(size=(25, 6)))
        hits += differential(a, b).significant().any()
    assert hits <= 10  # family-wise at most 5 % where every null holds


def test_few_images_are_never_significant():
    a = _heatmap(np.tile([1.0, 0.0], (100, 1)))
    b = _heatmap(np.tile([0.0, 1.0], (9, 1)))
    delta = differential(a, b)
    assert delta.values[0, 1] == 1
    assert not delta.is_enough
    assert not delta.significant().any()


def test_an_empty_group_gives_no_numbers():
    empty = Heatmap("incorrect", "k", ("a", "b"), np.zeros((2, 2), int), 0)
    assert np.isnan(empty.values).all()
    delta = differential(_heatmap(np.ones((20, 2))), empty)
    assert np.isnan(delta.values).all()
    assert not delta.significant().any()


def test_wrong_arrays_are_refused():
    with pytest.raises(ShapeError, match="groups must have one entry an image, got 2 for 3"):
        HeatmapCounts.of(np.zeros((3, 2), np.float32), np.zeros(2, int), 1)
    with pytest.raises(ShapeError, match="strengths must be finite"):
        HeatmapCounts.of(np.full((3, 2), np.nan, np.float32), np.zeros(3, int), 1)
    with pytest.raises(ShapeError, match="groups must be below n_groups = 1 or -1, got 1"):
        HeatmapCounts.of(np.zeros((3, 2), np.float32), np.ones(3, int), 1)
    with pytest.raises(InputError, match="kind must be one of"):
        ClassCounts.of(
            np.zeros((3, 2), np.float32), np.zeros(3, int), np.zeros(3, int), ("a", "b"), ("k",)
        ).heatmap("diff", 0)


def _heatmap(s):
    counts = HeatmapCounts.of(np.asarray(s, np.float32), np.zeros(len(s), int), 1)
    return Heatmap("gt", "k", tuple("abcdef"[: s.shape[1]]), counts.wins[0], len(s))
