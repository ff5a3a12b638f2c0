"""The heads that fixes make, one by one."""

import numpy as np
import pytest

from faultlens.fixes.bias import rebiased
from faultlens.fixes.fold import folded, unheard
from faultlens.fixes.refit import balanced, balanced_rows, refitted
from faultlens.fixes.rows import restored
from faultlens.fixes.trial import Material, Part, effect, held_out
from faultlens.localize.erase import leace_eraser
from faultlens.localize.swap import refit_head
from faultlens.models.head import Head


def blobs(n=600, k=4, d=6, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * 3
    y = rng.integers(0, k, n)
    return (centres[y] + rng.normal(size=(n, d))).astype(np.float32), y


def material(head=None, n=600):
    z, y = blobs(n)
    fitted = refit_head(z, y, 4, 1e-3)
    head = head or Head((fitted.weight * 7,), (fitted.bias * 7,))
    everything = np.arange(n)
    parts = []
    for i in range(3):
        held = everything % 3 == i
        one = refit_head(z[~held], y[~held], 4, 1e-3)
        parts.append(
            Part(everything[~held], everything[held], np.eye(6), one.weight, one.bias)
        )  # fmt: skip
    full = Part(everything, everything[:0], np.eye(6), fitted.weight, fitted.bias)
    return Material(
        embeddings=z, labels=y, predictions=head(z).argmax(axis=1),
        strengths=z[:, :2], directions=np.eye(6)[:2], head=head, parts=tuple(parts), full=full,
        penalty=1e-3, classes=("a", "b", "c", "d"), concepts=("p", "q"),
    )  # fmt: skip


def broken(m, change):
    weight, bias = m.head.weight.copy(), m.head.bias.copy()
    change(weight, bias)
    return material(Head((weight,), (bias,)))


def test_a_part_never_measures_what_it_was_fitted_on():
    with pytest.raises(ValueError, match="must not share an image"):
        Part(np.arange(3), np.arange(2, 4), np.eye(2), np.eye(2), np.zeros(2))


def test_every_image_is_held_out_once_and_predicted_without_itself():
    m = material()
    seen = []
    out = held_out(m, lambda m, part: (seen.append(part), m.head)[1])
    assert len(seen) == 3
    np.testing.assert_array_equal(out, m.predictions)
    np.testing.assert_array_equal(np.sort(np.concatenate([p.held for p in seen])), np.arange(600))


def test_an_effect_counts_what_is_repaired_and_broken():
    m = broken(material(), lambda w, b: w.__setitem__([0, 1], w[[1, 0]]))
    answers = m.labels.copy()
    right = np.flatnonzero(m.predictions == m.labels)[:3]
    answers[right] = (answers[right] + 1) % 4
    found = effect(m, answers)
    assert (found.broken, found.n) == (3, 600)
    assert found.repaired == (m.predictions != m.labels).sum()
    assert effect(m, answers, np.arange(600) < 100).n == 100
    answers[:50] = -1
    assert effect(m, answers).n == 550


@pytest.mark.parametrize("scale", [0.2, 1.0, 40.0])
def test_a_restored_row_fits_the_scale_of_the_others(scale):
    sound = material()
    head = Head((sound.head.weight * scale,), (sound.head.bias * scale + 3,))
    weight = head.weight.copy()
    weight[2] = np.random.default_rng(1).normal(size=6)
    m = material(Head((weight,), (head.bias,)))
    got = restored(m, m.full, np.array([2]))
    np.testing.assert_allclose(got.weight, head.weight, rtol=1e-3, atol=1e-3 * scale)
    np.testing.assert_allclose(got.bias, head.bias, rtol=1e-3, atol=1e-2 * max(scale, 1))


def test_a_whole_refit_answers_as_the_session_refit_and_keeps_the_scale():
    m = broken(material(), lambda w, b: w.__setitem__([0, 1], w[[1, 0]]))
    head = refitted(m, m.full)
    theirs = m.embeddings @ m.full.weight.T + m.full.bias
    np.testing.assert_array_equal(head(m.embeddings).argmax(axis=1), theirs.argmax(axis=1))
    ours = m.head(m.embeddings)
    assert head(m.embeddings).std() == pytest.approx(ours.std(), rel=0.05)


def test_a_class_without_reference_images_keeps_its_row():
    m = material()
    bias = m.full.bias.copy()
    bias[3] = -np.inf
    part = Part(m.full.reference, m.full.held, m.full.map_weight, m.full.weight, bias)
    head = refitted(m, part)
    np.testing.assert_array_equal(head.weight[3], m.head.weight[3])
    assert np.isfinite(head.bias).all()


def test_a_bias_is_found_again():
    m = broken(material(), lambda w, b: b.__setitem__(1, b[1] + 60))
    before = (m.predictions == m.labels).mean()
    head = rebiased(m, m.full, np.array([1]))
    np.testing.assert_array_equal(head.weight, m.head.weight)
    np.testing.assert_array_equal(head.bias[[0, 2, 3]], m.head.bias[[0, 2, 3]])
    after = (head(m.embeddings).argmax(axis=1) == m.labels).mean()
    assert after > before + 0.1
    assert after > 0.95


def test_folding_is_exact():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 3
    erase = leace_eraser(z, z[:, :2] @ rng.normal(size=(2, 2)))
    head = Head((rng.normal(size=(3, 5)),), (rng.normal(size=3),))
    np.testing.assert_allclose(folded(head, erase)(z), head(erase(z)), rtol=1e-4, atol=1e-4)


def test_an_unheard_concept_moves_no_logit():
    m = material()
    head = unheard(m, m.full, 1)
    reading = m.embeddings[:, 1]
    logits = head(m.embeddings.astype(np.float64))
    covariance = (logits - logits.mean(axis=0)).T @ (reading - reading.mean()) / len(reading)
    spread = logits.std(axis=0) * reading.std()
    assert np.abs(covariance / spread).max() < 1e-4


def test_groups_weigh_alike_within_their_class():
    labels = np.array([0] * 10 + [1] * 6)
    has_cue = np.array([True] * 8 + [False] * 2 + [True] * 6)
    rows = balanced_rows(labels, has_cue)
    assert (has_cue[rows] & (labels[rows] == 0)).sum() == 8
    assert (~has_cue[rows] & (labels[rows] == 0)).sum() == 8
    assert (labels[rows] == 1).sum() == 6
    assert set(rows) == set(range(16))


def test_balance_outweighs_a_cue_that_goes_with_a_class():
    rng = np.random.default_rng(3)
    n = 2000
    y = rng.integers(0, 2, n)
    cue = np.where(rng.random(n) < 0.95, y == 1, y == 0)
    z = np.c_[y + rng.normal(0, 0.7, n), cue + rng.normal(0, 0.1, n)].astype(np.float32)
    fitted = refit_head(z, y, 2, 1e-3)
    full = Part(np.arange(n), np.arange(0), np.eye(2), fitted.weight, fitted.bias)
    head = Head((fitted.weight,), (fitted.bias,))
    m = Material(
        embeddings=z, labels=y, predictions=head(z).argmax(axis=1), strengths=z,
        directions=np.eye(2), head=head, parts=(), full=full, penalty=1e-3,
        classes=("a", "b"), concepts=("p", "cue"),
    )  # fmt: skip
    minority = cue != (y == 1)

    def right(head):
        return (head(z).argmax(axis=1) == y)[minority].mean()

    assert right(balanced(m, full, cue)) > right(head) + 0.3
