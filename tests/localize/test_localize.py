import numpy as np
import pytest

from faultlens.heatmaps import ClassCounts
from faultlens.localize import gains, responsible
from faultlens.localize.oracle import gate, heatmap_evidence
from faultlens.localize.swap import PENALTIES, choose_penalty, refit_head
from faultlens.localize.verdict import MODULES, Evidence, judge, shares


def evidence(rows, k=3):
    """Rows of (label, prediction, vlm, mapped, refit, heatmap, gated)."""
    y, p, v, m, r, h, g = (np.array(c) for c in zip(*rows, strict=True))
    logits = np.eye(k)[r] * 2.0
    shipped = np.eye(k)[p] * 2.0
    return Evidence(y, p, v, m, shipped, logits, h.astype(float), g.astype(bool))


def modules(e, margin=0.0):
    return judge(e, np.full(len(e.labels), margin)).names()


def test_what_follows_from_the_evidence_is_worked_out_once():
    e = evidence([(0, 1, 0, 0, 0, 0, 1), (2, 2, 0, 0, 1, 0, 1)])
    assert e.is_error.tolist() == [True, False]
    assert e.refit.tolist() == [0, 1]
    assert e.closed.tolist() == [1, 2]
    assert e.refit is e.refit
    assert not any(a.flags.writeable for a in (e.is_error, e.refit, e.closed))


def test_the_majority_of_three_votes_decides():
    e = evidence([
        (0, 1, 0, 0, 0, 0.5, 1),    # all three say head
        (0, 1, 0, 1, 1, -0.5, 1),   # all three say encoder
        (0, 1, 0, 0, 1, 0.5, 1),    # two of three: head
        (0, 1, 0, 1, 0, -0.5, 1),   # two of three: encoder
        (0, 1, 0, 1, 0, np.nan, 1), # a tie: the swap test decides
        (0, 1, 1, 0, 0, 0.5, 0),    # the VLM may not judge
        (0, 0, 0, 1, 1, -0.5, 1),   # no error at all
    ])  # fmt: skip
    verdicts = judge(e, np.zeros(7))
    assert verdicts.names() == ["head", "encoder", "head", "encoder", "head", "unknown", "unknown"]
    assert verdicts.confidence.round(2).tolist() == [1, 1, 0.67, 0.67, 0.5, 0, 0]


def test_a_label_is_doubted_only_where_both_judges_are_sure_and_agree():
    e = evidence([(0, 1, 1, 1, 1, 0, 0)] * 3)
    sure = Evidence(
        e.labels, e.predictions, np.array([1, 1, 2]), e.mapped, e.logits,
        np.eye(3)[[1, 1, 1]] * 9.0,
        e.heatmap, e.is_gated,
    )  # fmt: skip
    assert judge(sure, np.array([2.0, 0.5, 2.0])).names() == ["data", "unknown", "unknown"]
    unsure = Evidence(
        e.labels,
        e.predictions,
        e.vlm,
        e.mapped,
        e.logits,
        np.eye(3)[[1, 1, 1]],
        e.heatmap,
        e.is_gated,
    )
    assert modules(unsure, 2.0) == ["unknown"] * 3


def test_shares_count_what_they_say():
    head, encoder, not_gated = (0, 1, 0, 0, 0, 1, 1), (0, 1, 0, 1, 1, -1, 1), (0, 1, 1, 0, 0, 1, 0)
    e = evidence([head] * 6 + [encoder] * 2 + [not_gated])
    s = shares(e, judge(e, np.zeros(9)), np.ones(9, bool))
    assert (s.n_errors, s.n_judged, s.n_head) == (9, 8, 6)
    assert s.head == 0.75
    assert s.oracle == s.swap == 0.75
    assert s.kappa == 1
    assert s.module == "unknown"  # 6 of 8 does not exclude one half
    assert shares(e, judge(e, np.zeros(9)), np.zeros(9, bool)).module == "unknown"
    many = evidence([head] * 30 + [encoder] * 5)
    assert shares(many, judge(many, np.zeros(35)), np.ones(35, bool)).module == "head"


def test_heatmap_evidence_points_to_the_class_an_image_resembles():
    rng = np.random.default_rng(0)
    profile = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3]])
    y = np.repeat([0, 1], 50)
    s = (profile[y] + 0.3 * rng.normal(size=(100, 4))).astype(np.float32)
    p = y.copy()
    counts = ClassCounts.of(s, y, p, tuple("abcd"), ("x", "y"))
    wrong = heatmap_evidence(s, y, 1 - y, counts)
    assert (wrong > 0).all()
    lost = heatmap_evidence(profile[1 - y].astype(np.float32), y, 1 - y, counts)
    assert (lost < 0).all()
    alone = ClassCounts.of(s[:50], y[:50], p[:50], tuple("abcd"), ("x", "y"))
    assert np.isnan(heatmap_evidence(s[:5], y[:5], 1 - y[:5], alone)).all()


def test_gate_needs_a_right_vlm_and_a_valid_class():
    valid = np.array([True, False])
    assert gate(np.array([0, 1, 0]), np.array([0, 1, 1]), valid).tolist() == [True, False, False]


def separable(n=400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    centres = rng.normal(size=(3, 6)) * 2
    return centres[y] + rng.normal(size=(n, 6)), y


def test_refit_minimises_the_penalised_cross_entropy():
    z, y = separable()
    head = refit_head(z, y, 3, penalty=0.01)
    x = (z - z.mean(axis=0)) / z.std(axis=0)

    def loss(weight, bias):
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        terms = -np.log(p[np.arange(len(y)), y])
        by_class = [terms[y == k].mean() for k in range(3)]
        return np.mean(by_class) + 0.005 * (weight**2).sum()

    weight = head.weight * z.std(axis=0)
    bias = head.bias + head.weight @ z.mean(axis=0)
    best = loss(weight, bias)
    rng = np.random.default_rng(1)
    for _ in range(30):
        nudged = loss(weight + 0.02 * rng.normal(size=weight.shape), bias)
        assert nudged > best - 1e-5


def test_a_refit_gains_nothing_by_knowing_the_class_frequencies():
    rng = np.random.default_rng(4)
    y = (rng.random(4000) < 0.1).astype(int)
    z = y[:, None] * 1.0 + rng.normal(size=(4000, 1))
    head = refit_head(z, y, 2, 1e-4)
    # Balanced, the border lies in the middle; with the frequencies it would lie far above.
    w, b = np.diff(head.weight, axis=0), np.diff(head.bias)
    assert -b[0] / w[0, 0] == pytest.approx(0.5, abs=0.15)


def test_both_heads_choose_among_the_same_classes():
    e = evidence([(0, 2, 0, 0, 0, 0, 1)] * 4)
    never_seen = e.refit_logits.copy()
    never_seen[:, 2] = -np.inf
    fair = Evidence(
        e.labels, e.predictions, e.vlm, e.mapped, np.tile([1.0, 0.0, 3.0], (4, 1)), never_seen,
        e.heatmap, e.is_gated,
    )  # fmt: skip
    assert (fair.closed == 0).all()
    assert gains.head_gains(fair)[0].gained == 0


def test_refit_does_not_care_for_scale_and_shift():
    z, y = separable()
    plain = refit_head(z, y, 3, 0.01)
    moved = refit_head(z * 7 - 3, y, 3, 0.01)
    assert np.allclose(plain(z), moved(z * 7 - 3), atol=0.05)


def test_a_class_without_reference_images_is_never_predicted():
    z, y = separable()
    head = refit_head(z, y, 5, 0.01)
    assert head(z).argmax(axis=1).max() <= 2
    assert np.isinf(head.bias[3:]).all()


def test_constant_dimensions_do_no_harm():
    z, y = separable()
    z[:, 0] = 4
    head = refit_head(z, y, 3, 0.01)
    assert np.isfinite(head.weight).all()
    assert (head.weight[:, 0] == 0).all()


def test_more_noise_asks_for_a_stronger_penalty():
    z, y = separable(120)
    rng = np.random.default_rng(2)
    noisy = np.c_[z * 0.3, rng.normal(size=(120, 200))]
    tune = np.arange(120) % 3 == 0
    clear = choose_penalty(z, y, 3, tune)
    assert choose_penalty(noisy, y, 3, tune) >= clear
    assert clear in PENALTIES


def natural(n=1000, error=0.1, seed=0):
    """Errors of a model, a refit and a VLM that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)

    def noisy(rate):
        return np.where(rng.random(n) < rate, (y + rng.integers(1, 4, n)) % 4, y)

    p, r, v = noisy(error), noisy(error), noisy(error)
    logits = np.eye(4)[r] * 3
    ones = np.ones(n, bool)
    return Evidence(y, p, v, v, np.eye(4)[p], logits, np.zeros(n), (v == y) & ones)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_found_where_nothing_is_wrong(seed):
    e = natural(seed=seed)
    assert not any(g.is_fault for g in gains.head_gains(e))
    assert not any(g.is_fault for g in gains.encoder_gaps(e, np.ones(4, bool)))
    assert not any(g.is_fault for g in gains.class_gaps(e, tuple("abcd")))


def test_a_gain_must_be_significant_and_worth_it():
    e = natural(n=200, error=0.02)
    better = e.labels.copy()
    present = e.labels.copy()
    present[:6] = (present[:6] + 1) % 4
    groups = {None: np.ones(200, bool)}
    [small] = gains._gains(better == e.labels, present == e.labels, groups, 0.02)
    assert small.gain == 0.03
    assert small.p_value < 0.05
    assert not small.is_fault  # its lower bound is below 2 points
    present[:30] = (e.labels[:30] + 1) % 4
    [large] = gains._gains(better == e.labels, present == e.labels, groups, 0.02)
    assert large.is_fault


def test_trading_precision_for_recall_is_no_gain():
    y = np.repeat([0, 1], 200)
    p = y.copy()
    p[:60] = 1  # the shipped head misses 60 of class 0
    r = y.copy()
    r[200:260] = 0  # the refit claims 60 of class 1 instead
    e = Evidence(y, p, y, y, np.eye(2)[p], np.eye(2)[r], np.zeros(400), np.ones(400, bool))
    assert not any(g.is_fault for g in gains.head_gains(e))


def test_meaning_compares_with_both_anchors():
    def case(right_of_repaired, n=20):
        rows = [(0, 0, 0, 0, 0, 0, 1)] * 90 + [(0, 1, 0, 1, 1, 0, 1)] * 10
        rows += [(0, 1, 0, 0 if i < right_of_repaired else 1, 0, 0, 1) for i in range(n)]
        return gains.meaning(evidence(rows))

    assert case(18).is_kept
    assert not case(5).is_kept
    assert (case(5).repaired, case(5).correct, case(5).natural) == (0.25, 1.0, 0.0)
    assert case(9, n=9) is None  # too few to say anything


def test_a_class_without_reference_images_is_no_encoder_fault():
    # The refit never saw class 2 and cannot answer it; the shipped head is right on it.
    rows = [(2, 2, 2, 2, 0, 0, 1)] * 60 + [(0, 0, 0, 0, 0, 0, 1)] * 60
    e = evidence(rows)
    unseen = e.refit_logits.copy()
    unseen[:, 2] = -np.inf
    e = Evidence(e.labels, e.predictions, e.vlm, e.mapped, e.logits, unseen, e.heatmap, e.is_gated)
    assert not any(g.is_fault for g in gains.encoder_gaps(e, np.ones(3, bool)))


def test_votes_that_cannot_be_cast_count_for_neither_side():
    e = evidence([(2, 1, 2, 2, 0, np.nan, 1), (2, 1, 2, 2, 0, 0.0, 1)])
    unseen = e.refit_logits.copy()
    unseen[:, 2] = -np.inf
    e = Evidence(e.labels, e.predictions, e.vlm, e.mapped, e.logits, unseen, e.heatmap, e.is_gated)
    assert judge(e, np.zeros(2)).names() == ["head", "head"]  # the oracle alone


def test_a_slice_of_a_hard_class_is_not_blamed_for_the_class():
    # Ships fail at 40 % with and without water, planes never; nearly all water is around ships.
    y = np.repeat([0, 1], 220)
    water = np.r_[np.arange(220) < 200, np.arange(220) < 20].astype(int)
    p = y.copy()
    p[:220][np.arange(220) % 5 < 2] = 1
    e = Evidence(y, p, y, y, np.eye(2)[p], np.eye(2)[y], np.zeros(440), np.ones(440, bool))
    [gap] = gains.slice_gaps(e, {"with water": water})
    assert not gap.is_fault
    assert abs(gap.gap) < 0.05
    wet_fails = np.where((water == 1) & (np.arange(440) % 2 == 0), 1 - y, y)
    e = Evidence(y, wet_fails, y, y, np.eye(2)[p], np.eye(2)[y], np.zeros(440), np.ones(440, bool))
    [gap] = gains.slice_gaps(e, {"with water": water})
    assert gap.is_fault
    assert gap.gap == pytest.approx(0.5, abs=0.05)


def test_unknown_attributes_take_no_part():
    y, member = np.zeros(300, int), np.repeat([1, 0, -1], 100)
    p = np.where(member == -1, 1, 0)
    e = Evidence(y, p, y, y, np.eye(2)[p], np.eye(2)[y], np.zeros(300), np.ones(300, bool))
    [gap] = gains.slice_gaps(e, {"wet": member})
    assert (gap.n, gap.rest, gap.gap) == (100, 0.0, 0.0)


def test_slices_are_compared_within_their_class():
    y = np.repeat([0, 1], 200)
    p = y.copy()
    p[:30] = 1  # the first 40 of class 0 are a subclass that mostly fails
    p[200:260] = 0
    e = Evidence(y, p, y, y, np.eye(2)[p], np.eye(2)[y], np.zeros(400), np.ones(400, bool))
    group = (np.arange(400) < 40).astype(int)
    [gap] = gains.slice_gaps(e, {"emu": group})
    assert gap.is_fault
    assert gap.rest == 0
    assert gap.gap == 0.75


def test_dead_dimensions_need_a_head_that_listens():
    rng = np.random.default_rng(0)
    z = np.abs(rng.normal(size=(50, 6)))
    w = rng.normal(size=(3, 6))
    z[:, [1, 4]] = 0
    w[:, 4] *= 1e-3  # dead since training: the head does not listen
    assert gains.dead_dimensions(z, w) == [1]
    assert gains.dead_dimensions(z, None) == []
    assert gains.dead_dimensions(np.abs(rng.normal(size=(50, 6))), w) == []


def test_sparse_features_are_not_dead():
    rng = np.random.default_rng(1)
    z = np.maximum(rng.normal(size=(100, 1024)) - 2, 0)
    assert (z.max(axis=0) == 0).sum() > 50
    assert gains.dead_dimensions(z, rng.normal(size=(10, 1024))) == []


def test_changed_concepts_names_the_lost_one_with_the_right_sign():
    rng = np.random.default_rng(0)
    n = 200
    s = rng.normal(size=(n, 5)).astype(np.float32)
    errors = np.arange(n) < 40
    s[errors, 2] -= 3
    labels = np.arange(n) % 2
    found = responsible.changed_concepts(s, labels, errors, ~errors, tuple("abcde"), "model")
    assert found[0].concept == "c"
    assert found[0].effect < 0
    assert found[0].interval[0] < found[0].effect < found[0].interval[1] < 0
    few = np.arange(n) < 8
    assert not responsible.changed_concepts(s, labels, few, ~few, tuple("abcde"), "model")


def test_changed_concepts_keeps_its_false_discovery_rate():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        s = rng.normal(size=(120, 8)).astype(np.float32)
        errors = np.arange(120) < 25
        y = np.arange(120) % 3
        hits += bool(responsible.changed_concepts(s, y, errors, ~errors, tuple("abcdefgh"), "vlm"))
    assert hits <= 20


def test_a_class_mix_alone_changes_nothing():
    # All errors are of class 1, most correct images of class 0: classes differ, errors do not.
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y = np.repeat([0, 1], [300, 100])
        s = np.array([[2.0, 0, 0], [0, 2.0, 0]])[y] + rng.normal(size=(400, 3))
        errors = np.arange(400) >= 350
        hits += bool(responsible.changed_concepts(s, y, errors, ~errors, tuple("abc"), "model"))
    assert hits <= 8


def test_head_concepts_name_the_overweighted_concept():
    rng = np.random.default_rng(3)
    s = rng.normal(size=(500, 4))
    refitted = rng.normal(size=(4, 3)).T @ s.T
    refitted = refitted.T
    shipped = refitted.copy()
    shipped[:, 1] += 1.5 * s[:, 2]
    found = responsible.head_concepts(shipped, refitted, s, tuple("abcd"), 1)
    assert found[0].concept == "c"
    assert found[0].effect > 0.5
    same = responsible.head_concepts(refitted * 3 + 1, refitted, s, tuple("abcd"), 1)
    assert same == []  # neither scale nor a common shift is a difference


def test_parts_sum_to_one_over_significant_cells():
    from faultlens.heatmaps import Heatmap, differential

    a = Heatmap("x", "", ("a", "b", "c"), np.array([[0, 30, 30], [0, 0, 15], [0, 15, 0]]), 30)
    b = Heatmap("y", "", ("a", "b", "c"), np.array([[0, 3, 3], [27, 0, 15], [27, 15, 0]]), 30)
    part = responsible.parts(differential(a, b))
    assert sum(part.values()) == pytest.approx(1)
    assert part["a"] == pytest.approx(0.5)
    assert responsible.parts(differential(a, a)) == {}


def test_every_module_is_a_word():
    assert MODULES == ("head", "encoder", "data", "unknown")
