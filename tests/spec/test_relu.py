"""Heads with hidden layers, against the enumeration of all phases."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from faultlens.spec import exact
from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.branch import refutes
from faultlens.spec.formula import TRUE, all_of, any_of, negate
from faultlens.spec.proof import Phase
from faultlens.spec.region import Readout
from faultlens.spec.regions import Reference, axis_box, fit_part
from faultlens.spec.support import signals_at
from faultlens.spec.verify import verify
from spec_cases import box_around, readout_of


def worst_margin(readout, region, cls):
    """The least `logit(cls) - logit(k)` over a box: one program a pattern of phases."""
    body = region.bodies[0]
    w, b = (a.astype(float) for a in (readout.head_weights[0], readout.head_biases[0]))
    v, c = (a.astype(float) for a in (readout.head_weights[1], readout.head_biases[1]))
    bounds = list(zip(body.lower.tolist(), body.upper.tolist(), strict=True))
    least = np.inf
    for phases in itertools.product([0.0, 1.0], repeat=len(b)):
        on = np.array(phases)
        sign = np.where(on > 0, -1.0, 1.0)
        for k in range(len(c)):
            if k == cls:
                continue
            row = (v[cls] - v[k]) * on
            found = linprog(row @ w, A_ub=sign[:, None] * w, b_ub=-sign * b, bounds=bounds)
            if found.status == 0:
                least = min(least, found.fun + row @ b + c[cls] - c[k])
    return least


@pytest.mark.parametrize("seed", range(25))
def test_predictions_are_proved_where_every_pattern_of_phases_agrees(seed):
    rng = np.random.default_rng(seed)
    readout = readout_of(rng, 3, hidden=(5,))
    region = box_around(rng, 3, rng.uniform(0.05, 0.6))
    middle = (region.bodies[0].lower + region.bodies[0].upper)[None] / 2
    cls = int(signals_at(readout, middle)[0, 4:].argmax())
    goal = predicts(readout, cls)
    verdict = verify(goal, TRUE, region, readout)
    least = worst_margin(readout, region, cls)
    assert abs(least) > 1e-6
    assert verdict.status == ("PROVED" if least > 0 else "REFUTED")
    if verdict.proof is not None:
        assert refutes(verdict.proof, negate(goal), region, readout)
    else:
        assert exact.shows(goal, TRUE, region, readout, verdict.evidence)


@pytest.mark.parametrize("kind", ["box", "pcabox", "hull", "slabs", "ellipsoid"])
@pytest.mark.parametrize("seed", range(4))
def test_two_hidden_layers_over_every_region(seed, kind):
    rng = np.random.default_rng([seed, 7])
    readout = readout_of(rng, 4, hidden=(4, 3))
    z = (rng.normal(size=(50, 4)) * 0.4 + rng.normal(size=4)).astype(np.float32)
    region = fit_part(kind, {"gamma": 0.8}, Reference(z, readout, stronger(0, 1)))
    goal = any_of(negate(predicts(readout, 0)), stronger(0, 1))
    verdict = verify(goal, TRUE, region, readout, samples=z, timeout_s=30)
    assert verdict.status in ("PROVED", "REFUTED")
    if verdict.proof is not None:
        assert refutes(verdict.proof, all_of(TRUE, negate(goal)), region, readout)
    else:
        assert exact.shows(goal, TRUE, region, readout, verdict.evidence)


def test_phases_are_split_only_where_they_matter():
    rng = np.random.default_rng(0)
    readout = readout_of(rng, 3, hidden=(6,))
    tiny = box_around(rng, 3, 1e-4)
    middle = (tiny.bodies[0].lower + tiny.bodies[0].upper)[None] / 2
    cls = int(signals_at(readout, middle)[0, 4:].argmax())
    proof = verify(predicts(readout, cls), TRUE, tiny, readout).proof
    assert proof is not None
    assert "Phase" not in repr(proof)


def test_what_the_relaxation_cannot_show_is_split():
    """relu(x) - relu(x - 0.5) is at most 0.5; its relaxation over -1 … 1 reaches 0.75."""
    readout = Readout(
        np.zeros((1, 1), np.float32), np.zeros(1, np.float32),
        (np.float32([[1], [1]]), np.float32([[1, -1], [0, 0]])),
        (np.float32([0, -0.5]), np.float32([0, 0.6])),
    )  # fmt: skip
    region = axis_box(-np.ones(1), np.ones(1))
    goal = negate(predicts(readout, 0))
    verdict = verify(goal, TRUE, region, readout)
    assert verdict.status == "PROVED"
    assert isinstance(verdict.proof, Phase)
    assert refutes(verdict.proof, all_of(TRUE, negate(goal)), region, readout)


def test_no_time_is_unknown():
    rng = np.random.default_rng(3)
    readout = readout_of(rng, 6, hidden=(20, 20))
    region = box_around(rng, 6, 0.5)
    goal = any_of(negate(predicts(readout, 0)), stronger(0, 1))
    verdict = verify(goal, predicts(readout, 1), region, readout, timeout_s=0.0)
    assert (verdict.status, verdict.reason) == ("UNKNOWN", "timeout")
