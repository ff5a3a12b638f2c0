import itertools

import numpy as np
import pytest

from faultlens.errors import InputError, ShapeError
from faultlens.spec import exact
from faultlens.spec.boxes import STAGES, STATUSES, predicts, stronger
from faultlens.spec.branch import refutes
from faultlens.spec.formula import all_of, negate
from faultlens.spec.pairs import PairVerdicts, verify_pairs
from faultlens.spec.region import Readout, Region
from faultlens.spec.verify import verify
from spec_cases import box_around, largest_violation, readout_of


def check_all(found: PairVerdicts):
    """Re-check every verdict exactly, and compare it with a plain program's optimum."""
    n_classes, n, _ = found.status.shape
    for cls, a, b in itertools.product(range(n_classes), range(n), range(n)):
        if a == b:
            assert found.status[cls, a, b] == 0
            continue
        verdict = found.verdict(cls, a, b)
        region, (goal, given) = found.regions[cls], found.formulas(cls, a, b)
        assert verdict.status == STATUSES[found.status[cls, a, b]]
        worst = largest_violation(goal, given, region, found.readout)
        if verdict.status == "PROVED":
            formula = all_of(given, negate(goal))
            assert refutes(verdict.proof, formula, region, found.readout)
            assert worst is None or worst < 1e-7
        elif verdict.status == "REFUTED":
            assert exact.shows(goal, given, region, found.readout, verdict.evidence)
            assert worst > -1e-7
        else:
            assert verdict.status == "VACUOUS"
            assert refutes(verdict.proof, given, region, found.readout)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_verdict_re_checks(seed, width):
    rng = np.random.default_rng(seed)
    readout = readout_of(rng, 5, n_concepts=6, n_classes=4)
    regions = [box_around(rng, 5, width) for _ in range(4)]
    samples = [rng.normal(size=(20, 5)).astype(np.float32) for _ in range(4)]
    check_all(verify_pairs(readout, regions, samples=samples))


def test_without_a_hypothesis_the_closed_form_decides_alone():
    rng = np.random.default_rng(1)
    readout = readout_of(rng, 5, n_concepts=8)
    regions = [box_around(rng, 5, 0.3) for _ in range(3)]
    found = verify_pairs(readout, regions, is_conditional=False)
    assert found.counts()["VACUOUS"] == found.counts()["UNKNOWN"] == 0
    assert "dual" not in {STAGES[i] for i in np.unique(found.stage)}
    proved = found.status == 1
    assert not (proved & proved.transpose(0, 2, 1)).any()
    for cls, a, b in np.argwhere(found.status > 0)[:40]:
        goal, given = found.formulas(cls, a, b)
        assert found.verdict(cls, a, b).status == verify(goal, given, regions[cls], readout).status


def test_multipliers_prove_what_the_interval_cannot():
    """Only where the class is predicted is a > b: the hypothesis must be used."""
    one = np.float32([[1, 0], [0, 0]])
    readout = Readout(one, np.float32([0, 0.1]), (one,), (np.float32([0, 0.5]),))
    region = box_around(np.random.default_rng(0), 2, 2.0)
    found = verify_pairs(readout, [region, region])
    assert STAGES[found.stage[0, 0, 1]] == "dual"
    assert found.multipliers[0, 0, 1].shape == (1,)
    check_all(found)


def test_equal_concepts_are_refuted_as_degenerate():
    rng = np.random.default_rng(2)
    readout = readout_of(rng, 4)
    readout.concept_rows[2], readout.concept_offsets[2] = readout.concept_rows[0], 0
    readout.concept_offsets[0] = -0.0
    found = verify_pairs(readout, [box_around(rng, 4, 1.0)] * 3)
    verdict = found.verdict(0, 0, 2)
    assert (verdict.status, verdict.reason) == ("REFUTED", "degenerate")
    assert found.verdict(1, 2, 0).reason == "degenerate"
    check_all(found)


def test_a_class_that_is_never_predicted_is_vacuous_and_nothing_else():
    rng = np.random.default_rng(3)
    readout = readout_of(rng, 4)
    readout.head_biases[0][1] = -1000.0
    found = verify_pairs(readout, [box_around(rng, 4, 0.5)] * 3)
    off = ~np.eye(4, dtype=bool)
    assert (found.status[1][off] == STATUSES.index("VACUOUS")).all()
    assert found.verdict(1, 0, 1).reason == "antecedent unsatisfiable"
    check_all(found)


@pytest.mark.parametrize("seed", range(12))
def test_near_ties_end_in_exact_verdicts(seed):
    """The offset puts the optimum within one float32 step of zero, on either side."""
    rng = np.random.default_rng(seed)
    readout = readout_of(rng, 6, n_concepts=2, n_classes=2)
    region = box_around(rng, 6, 0.5)
    worst = largest_violation(stronger(0, 1), predicts(readout, 0), region, readout)
    if worst is None:
        return
    readout.concept_offsets[1] -= np.float32(worst)
    left = largest_violation(stronger(0, 1), predicts(readout, 0), region, readout)
    assert abs(left) < 1e-5
    found = verify_pairs(readout, [region, region])
    assert found.verdict(0, 0, 1).status == ("REFUTED" if left > 0 else "PROVED")
    check_all(found)


def test_no_time_leaves_unknown_never_a_proof_of_what_is_open():
    rng = np.random.default_rng(5)
    readout = readout_of(rng, 5, n_concepts=6)
    regions = [box_around(rng, 5, 0.3) for _ in range(3)]
    late, full = (verify_pairs(readout, regions, timeout_s=t) for t in (-1.0, 60.0))
    assert late.counts()["UNKNOWN"] > 0
    known = (late.status == 1) | (late.status == 2)
    assert (late.status[known] == full.status[known]).all()


def test_only_boxes_and_affine_heads_are_taken():
    rng = np.random.default_rng(6)
    readout, box = readout_of(rng, 4), box_around(rng, 4, 0.5)
    with pytest.raises(InputError, match="regions must be 3 boxes"):
        verify_pairs(readout, [box])
    cut = Region("cut", box.bodies, np.ones((1, 4), np.float32), np.zeros(1, np.float32))
    with pytest.raises(InputError, match="boxes along the axes, got cut"):
        verify_pairs(readout, [cut] * 3)
    readout.concept_rows[0, 0] = np.nan
    with pytest.raises(ShapeError, match="finite"):
        verify_pairs(readout, [box] * 3)
