import numpy as np
import pytest

from faultlens.errors import InputError, ShapeError
from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.branch import refutes
from faultlens.spec.formula import TRUE, all_of, any_of, negate
from faultlens.spec.gamma import gamma_star, pair_gammas
from faultlens.spec.regions import axis_box
from faultlens.spec.verify import verify
from spec_cases import readout_of


def test_closed_form_is_proved_and_nothing_much_larger_is():
    rng = np.random.default_rng(0)
    readout = readout_of(rng, 20, n_concepts=5)
    mean, std = rng.normal(size=20), rng.uniform(0.1, 1, size=20)
    found = pair_gammas(readout, mean, std)
    seen = 0
    for a in range(5):
        for b in range(5):
            if a == b:
                assert found[a, b] == -np.inf
                continue
            assert (found[a, b] < 0) or (found[b, a] < 0)
            gamma = found[a, b]
            if gamma < 0:
                continue
            seen += 1
            for scale, status in ((gamma, "PROVED"), (gamma * 1.001 + 1e-6, "REFUTED")):
                region = axis_box(mean - scale * std, mean + scale * std)
                assert verify(stronger(a, b), TRUE, region, readout).status == status
    assert seen >= 5


def test_bisection_agrees_with_the_closed_form():
    rng = np.random.default_rng(1)
    readout = readout_of(rng, 6)
    mean, std = rng.normal(size=6), rng.uniform(0.1, 1, size=6)
    gammas = pair_gammas(readout, mean, std)
    a, b = np.argwhere(gammas > 0)[0]
    goal = stronger(int(a), int(b))

    def at(g):
        return axis_box(mean - g * std, mean + g * std)

    star = gamma_star(at, lambda r: verify(goal, TRUE, r, readout), tolerance=1e-4)
    assert star.gamma == pytest.approx(gammas[a, b], rel=1e-3)
    assert star.gamma < star.fails_at <= star.gamma * (1 + 1e-4)
    assert star.verdict.status == "PROVED"
    assert star.beyond.status == "REFUTED"
    assert refutes(star.verdict.proof, all_of(TRUE, negate(goal)), at(star.gamma), readout)


def test_ends_of_the_search():
    rng = np.random.default_rng(2)
    readout = readout_of(rng, 3)

    def at(g):
        return axis_box(np.full(3, -g), np.full(3, g))

    always = any_of(stronger(0, 1), negate(stronger(0, 1)))
    star = gamma_star(at, lambda r: verify(always, TRUE, r, readout), most=8.0)
    assert (star.gamma, star.fails_at, star.beyond) == (8.0, None, None)
    never = all_of(predicts(readout, 0), negate(predicts(readout, 0)))
    star = gamma_star(at, lambda r: verify(never, TRUE, r, readout), most=8.0)
    assert star.gamma is None
    assert star.verdict is None
    assert star.fails_at == 8.0 * 2.0**-20


def test_wrong_arguments():
    readout = readout_of(np.random.default_rng(3), 3)
    with pytest.raises(InputError, match="first must be above 0"):
        gamma_star(lambda g: None, lambda r: None, first=0.0)
    with pytest.raises(ShapeError, match="none negative"):
        pair_gammas(readout, np.zeros(3), -np.ones(3))


def test_equal_concepts_have_no_gamma():
    readout = readout_of(np.random.default_rng(4), 3)
    readout.concept_rows[1], readout.concept_offsets[1] = (
        readout.concept_rows[0], readout.concept_offsets[0],
    )  # fmt: skip
    found = pair_gammas(readout, np.ones(3), np.ones(3))
    assert found[0, 1] < 0
    assert found[1, 0] < 0
