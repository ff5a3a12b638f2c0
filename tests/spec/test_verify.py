import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.errors import InputError
from faultlens.spec import exact
from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.branch import refutes
from faultlens.spec.formula import FALSE, TRUE, Comparison, all_of, any_of, negate
from faultlens.spec.region import Body, Readout, Region, Shape
from faultlens.spec.regions import Reference, axis_box, fit_part, intersect
from faultlens.spec.verify import Verifier, n_leaves, verify
from spec_cases import (
    box_around,
    formula_of,
    holds_exactly,
    is_satisfiable,
    largest_violation,
    readout_of,
    rows_exactly,
    sample,
)  # fmt: skip

KINDS = ("box", "pcabox", "ellipsoid", "hull", "slabs", "ellipsoid & box", "hull & slabs")


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_verdicts_re_check_and_no_sample_contradicts_a_proof(seed, kind):
    rng = np.random.default_rng(seed)
    n_dims = int(rng.integers(2, 7))
    readout = readout_of(rng, n_dims)
    z = rng.normal(size=(40, n_dims)) @ rng.normal(size=(n_dims, n_dims)) * 0.5
    z = (z + 2 * rng.normal(size=n_dims)).astype(np.float32)
    parts = [
        fit_part(k, {"gamma": float(rng.uniform(0.3, 1.2))}, Reference(z, readout, stronger(0, 1)))
        for k in kind.split(" & ")
    ]
    region = parts[0] if len(parts) == 1 else intersect(*parts)
    goal = formula_of(rng, readout)
    hypothesis = [TRUE, predicts(readout, 0)][int(rng.integers(2))]
    verdict = verify(goal, hypothesis, region, readout, samples=z)
    rows = rows_exactly(readout)
    points = sample(region, rng, 40)
    if verdict.status == "PROVED":
        formula = all_of(hypothesis, negate(goal))
        assert refutes(verdict.proof, formula, region, readout)
        assert not any(holds_exactly(formula, rows, p) for p in points)
    elif verdict.status == "VACUOUS":
        assert refutes(verdict.proof, hypothesis, region, readout)
        assert not any(holds_exactly(hypothesis, rows, p) for p in points)
    elif verdict.status == "REFUTED":
        assert exact.shows(goal, hypothesis, region, readout, verdict.evidence)
        assert verdict.witness.shape == (n_dims,)
        assert verdict.distance == pytest.approx(
            np.linalg.norm(z[verdict.nearest] - verdict.witness), abs=1e-5
        )
    else:
        assert verdict.reason == "boundary"


@pytest.mark.parametrize("seed", range(60))
def test_near_ties_are_decided_on_the_right_side(seed):
    rng = np.random.default_rng(seed)
    n_dims = int(rng.integers(2, 33))
    readout, region = readout_of(rng, n_dims), box_around(rng, n_dims, rng.uniform(0.1, 1))
    middle = (region.bodies[0].lower + region.bodies[0].upper) / 2
    cls = int((readout.head_weights[0] @ middle + readout.head_biases[0]).argmax())
    hypothesis = predicts(readout, cls)
    plain = stronger(0, 1)
    gap = 10 ** rng.uniform(-11, -6) * rng.choice([-1, 1])
    worst = largest_violation(plain, hypothesis, region, readout)
    goal = Comparison(plain.terms, worst - gap, bool(rng.integers(2)))
    verdict = verify(goal, hypothesis, region, readout)
    assert verdict.status == ("REFUTED" if gap > 0 else "PROVED")
    if verdict.proof is not None:
        assert refutes(verdict.proof, all_of(hypothesis, negate(goal)), region, readout)
    else:
        assert exact.shows(goal, hypothesis, region, readout, verdict.evidence)


@pytest.mark.parametrize("is_strict", [True, False])
def test_an_exact_tie_refutes_only_what_is_strict(is_strict):
    readout = Readout(np.eye(2, dtype=np.float32), np.zeros(2, np.float32),
                      (np.eye(2, dtype=np.float32),), (np.zeros(2, np.float32),))  # fmt: skip
    region = axis_box(np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    goal = Comparison(((0, 1.0), (1, -1.0)), 0.0, is_strict)
    verdict = verify(goal, TRUE, region, readout)
    assert verdict.status == ("REFUTED" if is_strict else "PROVED")
    assert verdict.slack == 0.0
    if is_strict:
        assert verdict.witness.tolist() == [1.0, 1.0]
    else:
        assert refutes(verdict.proof, negate(goal), region, readout)


def test_planted_counterexamples_are_found():
    """One corner of the box violates the goal by little; nothing else does."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        readout, region = readout_of(rng, 12), box_around(rng, 12, 0.5)
        body = region.bodies[0]
        pull = readout.concept_rows[1].astype(float) - readout.concept_rows[0]
        corner = np.where(pull > 0, body.upper, body.lower).astype(float)
        most = pull @ corner + float(readout.concept_offsets[1]) - float(readout.concept_offsets[0])
        goal = Comparison(stronger(0, 1).terms, most - 1e-6)
        verdict = verify(goal, TRUE, region, readout)
        assert verdict.status == "REFUTED"
        assert np.abs(verdict.witness - corner).max() < 1e-4


def test_real_witnesses_come_first():
    readout = readout_of(np.random.default_rng(0), 3)
    z = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    region = axis_box(-np.ones(3), np.ones(3))
    bad = z @ (readout.concept_rows[0] - readout.concept_rows[1]) + (
        readout.concept_offsets[0] - readout.concept_offsets[1]
    ) <= 0  # fmt: skip
    inside = (np.abs(z) <= 1).all(axis=1)
    real = verify(stronger(0, 1), TRUE, region, readout, samples=z)
    assert real.witness_kind == "REAL-IN-REGION"
    assert real.distance == 0.0
    assert bad[real.nearest]
    assert inside[real.nearest]
    assert real.witness.tolist() == z[real.nearest].tolist()
    outside = verify(stronger(0, 1), TRUE, region, readout, samples=z[bad & ~inside])
    assert outside.witness_kind == "REAL-NEAREST"
    assert outside.distance > 0
    none = verify(stronger(0, 1), TRUE, region, readout, samples=z[~bad])
    assert none.witness_kind == "SYNTHETIC"
    assert verify(stronger(0, 1), TRUE, region, readout).nearest is None


def test_vacuous_comes_before_the_goal():
    rng = np.random.default_rng(2)
    readout, region = readout_of(rng, 4), box_around(rng, 4, 0.3)
    nothing = all_of(stronger(0, 1), stronger(1, 0))
    verdict = verify(FALSE, nothing, region, readout)
    assert (verdict.status, verdict.reason) == ("VACUOUS", "antecedent unsatisfiable")
    assert refutes(verdict.proof, nothing, region, readout)


def test_an_empty_region_is_vacuous_with_a_proof():
    readout = readout_of(np.random.default_rng(3), 2)
    box = axis_box(np.zeros(2), np.ones(2))
    region = Region("empty", box.bodies, np.float32([[1, 1]]), np.float32([-3]))
    verdict = verify(stronger(0, 1), TRUE, region, readout)
    assert (verdict.status, verdict.reason) == ("VACUOUS", "region empty")
    assert refutes(verdict.proof, TRUE, region, readout)


def test_the_same_direction_twice_is_degenerate():
    rng = np.random.default_rng(4)
    readout, region = readout_of(rng, 3), box_around(rng, 3, 0.3)
    readout.concept_rows[1] = readout.concept_rows[0]
    readout.concept_offsets[1] = readout.concept_offsets[0]
    verdict = verify(stronger(0, 1), TRUE, region, readout)
    assert (verdict.status, verdict.reason, verdict.slack) == ("REFUTED", "degenerate", 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["readout", "region", "samples"])
def test_numbers_that_are_none_are_an_error_and_no_verdict(bad, where):
    rng = np.random.default_rng(5)
    readout, region, z = readout_of(rng, 3), box_around(rng, 3, 0.3), np.zeros((2, 3), np.float32)
    {"readout": readout.concept_rows, "region": region.bodies[0].lower[None], "samples": z}[where][
        0, 1
    ] = -bad
    verdict = verify(stronger(0, 1), TRUE, region, readout, samples=z)
    assert verdict.status == "ERROR"
    assert "must be finite" in verdict.reason


def test_wrong_arguments_raise():
    rng = np.random.default_rng(6)
    readout, region = readout_of(rng, 3), box_around(rng, 3, 0.3)
    with pytest.raises(InputError, match="signals 0 … 6"):
        verify(stronger(0, 9), TRUE, region, readout)
    with pytest.raises(InputError, match="finite weights and constants"):
        verify(Comparison(((0, 1.0),), np.nan), TRUE, region, readout)
    one = np.ones(3, np.float32)
    box = Body(Shape.BOX, 0 * one, None, one, -one)
    with pytest.raises(InputError, match="the box is empty"):
        verify(TRUE, TRUE, Region("r", (box,), region.weights, region.offsets), readout)


def test_a_ball_with_many_halfspaces():
    """More than a program over a ball starts with: the others are taken up as they matter."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        readout = readout_of(rng, 20)
        z = (rng.normal(size=(100, 20)) + 0.5).astype(np.float32)
        reference = Reference(z, readout, TRUE)
        ball, above = (
            fit_part("ellipsoid", {"gamma": 2.0}, reference),
            axis_box(np.zeros(20), np.full(20, 2.0)),
        )
        region = intersect(ball, above)
        goal = stronger(0, 1)
        verdict = verify(goal, predicts(readout, 0), region, readout)
        if verdict.status == "REFUTED":
            assert exact.shows(goal, predicts(readout, 0), region, readout, verdict.evidence)
        else:
            assert verdict.status in ("PROVED", "VACUOUS")
            formula = all_of(predicts(readout, 0), negate(goal))
            if verdict.status == "VACUOUS":
                formula = predicts(readout, 0)
            assert refutes(verdict.proof, formula, region, readout)


def test_no_time_is_unknown_even_for_what_is_true():
    rng = np.random.default_rng(7)
    readout, region = readout_of(rng, 3), box_around(rng, 3, 0.3)
    verdict = verify(any_of(stronger(0, 1), negate(stronger(0, 1))), TRUE, region, readout,
                     timeout_s=-1.0)  # fmt: skip
    assert (verdict.status, verdict.reason) == ("UNKNOWN", "timeout")


@pytest.mark.parametrize("n_kept", [0, 20_000_000])
def test_a_verifier_answers_as_fresh_ones_do(monkeypatch, n_kept):
    monkeypatch.setattr("faultlens.spec.setting._MAX_KEPT", n_kept)
    rng = np.random.default_rng(8)
    readout, region = readout_of(rng, 6), box_around(rng, 6, 0.3)
    verifier = Verifier(region, readout)
    for _ in range(40):
        goal = formula_of(rng, readout)
        kept, fresh = verifier.verify(goal), verify(goal, TRUE, region, readout)
        assert kept.status == fresh.status
        assert kept.status == (
            "REFUTED" if is_satisfiable(negate(goal), region, readout) else "PROVED"
        )
        if kept.proof is not None:
            assert n_leaves(kept.proof) >= 1
            assert refutes(kept.proof, all_of(TRUE, negate(goal)), region, readout)
