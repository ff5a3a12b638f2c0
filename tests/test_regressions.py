import numpy as np
import pytest
from scipy import stats as sps

from faultlens.heatmaps import Heatmap, HeatmapCounts
from faultlens.regressions import heatmap_shifts, judged, paired, paired_shifts, unpaired
from faultlens.stats import paired_gain


def test_a_paired_comparison_is_mcnemars():
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.9, rng.random(200) < 0.8
    found = paired("all", "all", a, b)
    gained, lost = int((b & ~a).sum()), int((a & ~b).sum())
    assert (found.n_gained, found.n_lost) == (gained, lost)
    wanted = sps.binomtest(lost, gained + lost, 0.5, alternative="greater").pvalue
    assert found.p_worse == pytest.approx(wanted)
    assert (found.gain, *found.interval) == paired_gain(gained, lost, 200)


def test_an_unpaired_comparison_is_fishers():
    a, b = np.arange(80) < 70, np.arange(50) < 35
    found = unpaired("all", "all", a, b)
    table = [[35, 15], [70, 10]]
    assert found.p_worse == pytest.approx(sps.fisher_exact(table, alternative="less").pvalue)
    assert found.p_better == pytest.approx(sps.fisher_exact(table, alternative="greater").pvalue)
    assert found.interval[0] < found.gain < found.interval[1]
    assert np.isnan(unpaired("all", "all", a, b[:0]).gain)


def test_false_alarms_stay_below_the_level():
    rng, alarms = np.random.default_rng(1), {"paired": 0, "unpaired": 0}
    n_runs = 120
    for _ in range(n_runs):
        right = rng.random((2, 6, 60)) < 0.8
        for name, test in (("paired", paired), ("unpaired", unpaired)):
            found = judged([test("class", str(k), right[0, k], right[1, k]) for k in range(6)])
            alarms[name] += any(c.verdict == "worse" for c in found)
    for n in alarms.values():
        assert sps.binomtest(n, n_runs, 0.05, alternative="greater").pvalue > 0.001


def test_a_planted_loss_is_found_and_others_are_left_alone():
    rng = np.random.default_rng(2)
    right = rng.random((4, 100)) < 0.9
    after = right.copy()
    after[2, :30] = False
    found = judged([paired("class", str(k), right[k], after[k]) for k in range(4)])
    assert [c.verdict for c in found] == ["same", "same", "worse", "same"]
    back = judged([paired("class", str(k), after[k], right[k]) for k in range(4)])
    assert back[2].verdict == "better"


def test_few_images_are_not_tested_and_cost_nothing():
    a, b = np.ones(40, bool), np.arange(40) > 8
    alone = judged([paired("all", "all", a, b)])[0]
    with_few = judged([paired("all", "all", a, b), paired("class", "k", a[:9], ~a[:9])])
    assert with_few[0].p_worse == alone.p_worse
    assert with_few[1].verdict == "few"
    assert judged([]) == ()


def test_paired_shifts_count_images_that_change_their_mind():
    rng = np.random.default_rng(3)
    first = rng.normal(size=(60, 4))
    second = first.copy()
    second[:30, 0] += 5
    groups = {"moved": np.arange(30), "still": np.arange(30, 60), "few": np.arange(5)}
    found = paired_shifts(first, second, groups, ("a", "b", "c", "d"))
    for name, rows in groups.items():
        counts = [
            HeatmapCounts.of(s[rows], np.zeros(len(rows), np.int64), 1) for s in (first, second)
        ]
        wanted = (counts[1].wins[0] - counts[0].wins[0]) / len(rows)
        assert found[name].values == pytest.approx(wanted)
    assert found["moved"].significant()[0, 1:].all()
    assert not found["moved"].significant()[1:, 1:].any()
    assert not found["still"].significant().any()
    assert not found["few"].significant().any()
    delta = found["moved"]
    n_up = int(((second[:30, 0] > second[:30, 1]) & ~(first[:30, 0] > first[:30, 1])).sum())
    gain, low, high = paired_gain(n_up, 0, 30)
    assert (delta.values[0, 1], delta.low[0, 1], delta.high[0, 1]) == pytest.approx(
        (gain, low, high)
    )


def test_independent_shifts_are_second_minus_first():
    def heatmap(wins, n):
        return Heatmap("ground-truth", "k", ("a", "b"), np.array([[0, wins], [n - wins, 0]]), n)

    found = heatmap_shifts(
        {"k": heatmap(5, 40), "few": heatmap(0, 5)}, {"k": heatmap(35, 40), "few": heatmap(5, 5)}
    )
    assert found["k"].values[0, 1] == pytest.approx(0.75)
    assert found["k"].significant()[0, 1]
    assert not found["few"].significant().any()
    same = heatmap_shifts({"k": heatmap(20, 40)}, {"k": heatmap(21, 40)})
    assert not same["k"].significant().any()
