import numpy as np
import pytest

import localize_oracles as oracles
from faultlens.errors import InputError, ShapeError
from faultlens.localize import causal
from faultlens.localize.causal import Part, confirm, logit_changes, sample_rows
from faultlens.localize.erase import leace_eraser, orthogonal_eraser
from faultlens.localize.swap import RefittedHead
from faultlens.models.head import Head


def planted(seed=0, n=600, d=24, k=4, pull=3.0):
    """A sound head, and one whose row 0 also listens to the concept `u`; with the labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    frame = np.linalg.qr(rng.normal(size=(d, k + 1)))[0].T
    centres, u = frame[:k], frame[k]
    z = 4 * centres[y] + 0.6 * rng.normal(size=(n, d)) + rng.normal(size=(n, 1)) * u + 1
    weight = centres.copy()
    weight[0] += pull * u
    head = Head((weight,), (-weight @ z.mean(axis=0),))
    return z, y, u, head


def test_erasing_the_planted_concept_repairs_and_random_directions_do_not():
    z, y, u, head = planted()
    eraser = orthogonal_eraser(u[None], z.mean(axis=0))
    found = confirm([Part(eraser, z, y)], head, np.random.default_rng(1), is_affine=True)
    assert found.repaired.n > 60
    assert found.repaired.share > 0.97
    assert found.repaired.interval[0] < found.repaired.share <= found.repaired.interval[1]
    assert found.broken.share < 0.02
    assert found.repaired.random_quantiles[2] < 0.5
    assert found.p_value == 1 / 201
    assert found.is_confirmed
    assert 0 < found.relative_change < 0.5


def test_another_concept_is_not_confirmed():
    z, y, u, head = planted()
    rng = np.random.default_rng(2)
    other = rng.normal(size=24)
    other -= (other @ u) * u
    basis = np.vstack([head.weight, u])
    other -= np.linalg.pinv(basis) @ (basis @ other)  # the head does not listen to it at all
    eraser = orthogonal_eraser(other[None], z.mean(axis=0))
    found = confirm([Part(eraser, z, y)], head, rng, is_affine=True)
    assert found.repaired.count == 0
    assert found.moved.count == 0
    assert not found.is_confirmed


def test_leace_confirms_it_too_and_spares_the_rest():
    z, y, u, head = planted(3)
    eraser = leace_eraser(z, z @ u[:, None])
    found = confirm([Part(eraser, z, y)], head, np.random.default_rng(1), is_affine=True)
    assert found.repaired.share > 0.9
    assert found.is_confirmed


@pytest.mark.parametrize("rank", [1, 3])
def test_both_paths_and_the_twin_agree(rank):
    z, y, u, head = planted(4, n=80)
    rng = np.random.default_rng(0)
    directions = np.vstack([u, rng.normal(size=(rank - 1, 24))])
    part = Part(orthogonal_eraser(directions, z.mean(axis=0)), z, y)
    fast = confirm([part], head, np.random.default_rng(5), is_affine=True, n_random=99)
    slow = confirm([part], head, np.random.default_rng(5), n_random=99)
    assert fast == slow
    frames = causal._random_frames([part], np.random.default_rng(5), 99, None)
    assert np.allclose(frames @ frames.transpose(0, 2, 1), np.eye(rank))
    wrong = head(z).argmax(axis=1) != y
    change = z - oracles.project_out(z, z.mean(axis=0), directions)
    moved = oracles.random_erasures(z, z.mean(axis=0), change, frames)
    norms = np.linalg.norm(moved - z, axis=2)
    assert np.allclose(norms, np.linalg.norm(change, axis=1))
    shares = [(head(m).argmax(axis=1) == y)[wrong].mean() for m in moved]
    assert slow.repaired.random_mean == pytest.approx(np.mean(shares))
    assert slow.repaired.random_quantiles[2] == pytest.approx(np.quantile(shares, 0.95))
    observed = (head(z - change).argmax(axis=1) == y)[wrong].mean()
    assert slow.p_value == pytest.approx((1 + np.sum(np.array(shares) >= observed)) / 100)


def test_a_chain_of_layers_is_asked_in_full():
    z, y, u, head = planted(5)
    # The same function with a ReLU in between: y = relu(x) - relu(-x).
    w = head.weight
    chain = Head((np.vstack([w, -w]), np.hstack([np.eye(4), -np.eye(4)])),
                 (np.r_[head.bias, -head.bias], np.zeros(4)))  # fmt: skip
    part = Part(orthogonal_eraser(u[None], z.mean(axis=0)), z, y)
    a = confirm([part], head, np.random.default_rng(5), is_affine=True, n_random=99)
    b = confirm([part], chain, np.random.default_rng(5), n_random=99)
    assert a == b


def test_parts_and_blocks_add_up(monkeypatch):
    z, y, u, head = planted(6)
    eraser = orthogonal_eraser(u[None], z.mean(axis=0))
    whole = confirm([Part(eraser, z, y)], head, np.random.default_rng(5), is_affine=True)
    parts = [Part(eraser, z[i::3], y[i::3]) for i in range(3)]
    monkeypatch.setattr(causal, "_BLOCK", 64)
    split = confirm(parts, head, np.random.default_rng(5), is_affine=True)
    assert split.repaired == whole.repaired
    assert split.broken == whole.broken
    assert split.p_value == whole.p_value
    assert split.relative_change == pytest.approx(whole.relative_change)


@pytest.mark.parametrize("shape", ["round", "stretched"])
def test_a_random_concept_is_rarely_confirmed(shape):
    """False positive rate at 5 %, the concept itself being one of the random directions."""
    p_values, n_seeds, d = [], 200, 16
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        spread = np.ones(d) if shape == "round" else np.geomspace(3, 0.1, d)
        z = rng.normal(size=(120, d)) * spread
        weight = rng.normal(size=(5, d))
        y = (z @ (weight + 0.5 * rng.normal(size=(5, d))).T).argmax(axis=1)
        root = np.diag(spread)
        u = root @ rng.normal(size=d)
        part = Part(orthogonal_eraser(u[None], np.zeros(d)), z, y)
        found = confirm([part], lambda x, w=weight: x @ w.T, rng, True, 99, root)
        p_values.append(found.p_value)
    p = np.array(p_values)
    assert (p <= 0.05).mean() <= 0.1
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.15)


def test_a_root_confines_the_random_directions():
    z, y, u, head = planted(7)
    part = Part(orthogonal_eraser(u[None], z.mean(axis=0)), z, y)
    root = np.eye(24)[:, :5]
    frames = causal._random_frames([part], np.random.default_rng(0), 99, root)
    assert np.abs(frames[:, 0, 5:]).max() < 1e-12
    # Where every random direction is the concept itself, it beats none of them.
    alone = confirm([part], head, np.random.default_rng(0), True, 99, u[:, None])
    assert alone.p_value == 1
    assert alone.repaired.random_mean == pytest.approx(alone.repaired.share)


def test_no_errors_confirm_nothing():
    z, y, u, head = planted(8, pull=0.0)
    part = Part(orthogonal_eraser(u[None], z.mean(axis=0)), z, head(z).argmax(axis=1))
    found = confirm([part], head, np.random.default_rng(0), is_affine=True)
    assert (found.repaired.n, found.p_value, found.is_confirmed) == (0, 1.0, False)
    assert np.isnan(found.repaired.share)
    few = np.flatnonzero(planted(8)[3](z).argmax(axis=1) != y)[:9]
    part = Part(orthogonal_eraser(u[None], z.mean(axis=0)), z[few], y[few])
    found = confirm([part], planted(8)[3], np.random.default_rng(0), is_affine=True)
    assert found.p_value <= 0.05
    assert not found.is_confirmed  # nine errors are too few to say so


def test_classes_that_are_never_answered_stay_out():
    z, y, u, head = planted(9)
    bias = np.r_[head.bias, -np.inf]
    refit = RefittedHead(np.vstack([head.weight, 100 * np.ones(24)]), bias, 1.0, 9)
    part = Part(orthogonal_eraser(u[None], z.mean(axis=0)), z, y)
    a = confirm([part], head, np.random.default_rng(0), is_affine=True)
    b = confirm([part], refit, np.random.default_rng(0), is_affine=True)
    assert a.repaired == b.repaired
    assert (logit_changes(refit, np.eye(24))[:, 4] == 0).all()


def test_sampled_rows_are_the_group_and_some_correct_ones(monkeypatch):
    monkeypatch.setattr(causal, "MAX_IMAGES", 50)
    errors, correct = np.arange(300) < 30, np.arange(300) >= 100
    rows = sample_rows(errors, correct, np.random.default_rng(0))
    assert rows[:30].tolist() == list(range(30))
    assert len(rows) == 80
    assert rows[30:].min() >= 100
    assert len(set(rows.tolist())) == 80


def test_mistakes_are_told():
    z, y, u, head = planted()
    eraser = orthogonal_eraser(u[None], z.mean(axis=0))
    part, rng = Part(eraser, z, y), np.random.default_rng(0)
    with pytest.raises(InputError, match="at least one part"):
        confirm([], head, rng)
    with pytest.raises(InputError, match="n_random must be at least 99, got 20"):
        confirm([part], head, rng, n_random=20)
    with pytest.raises(InputError, match="root must have 24 rows"):
        confirm([part], head, rng, root=np.ones((3, 2)))
    with pytest.raises(ShapeError, match="to fit labels and eraser"):
        Part(eraser, z[:, :3], y)
