"""Interval simplification and lazy splitting, against one linear program a way."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.spec import exact
from faultlens.spec.boxes import predicts, stronger
from faultlens.spec.branch import refutes
from faultlens.spec.formula import FALSE, TRUE, AtLeast, all_of, any_of, comparisons, negate
from faultlens.spec.interval import Truths, margins
from faultlens.spec.search import Search
from faultlens.spec.setting import Setting
from faultlens.spec.support import affine_frame
from spec_cases import (
    box_around,
    formula_of,
    holds_exactly,
    is_satisfiable,
    readout_of,
    rows_exactly,
    sample,
)


def search(formula, region, readout, timeout_s=60.0):
    setting = Setting(region, readout, [affine_frame(region, readout)])
    return Search(setting, formula, time.monotonic() + timeout_s).run()


@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([0.05, 0.2, 0.6]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_search_ends_in_a_proof_or_a_witness_that_re_check(seed, width):
    rng = np.random.default_rng(seed)
    n_dims = int(rng.integers(1, 9))
    readout, region = readout_of(rng, n_dims), box_around(rng, n_dims, width)
    formula = negate(formula_of(rng, readout))
    outcome = search(formula, region, readout)
    assert (outcome.proof is None) != (outcome.witness is None)
    rows = rows_exactly(readout)
    if outcome.witness is not None:
        assert exact.contains(region, outcome.witness)
        assert holds_exactly(formula, rows, outcome.witness.point)
        assert is_satisfiable(formula, region, readout)
    else:
        assert refutes(outcome.proof, formula, region, readout)
        assert not is_satisfiable(formula, region, readout)
        assert not any(holds_exactly(formula, rows, z) for z in sample(region, rng, 30))


def test_constants_need_no_program():
    rng = np.random.default_rng(0)
    readout, region = readout_of(rng, 3), box_around(rng, 3, 0.1)
    assert search(TRUE, region, readout).witness is not None
    outcome = search(all_of(TRUE, FALSE), region, readout)
    assert refutes(outcome.proof, all_of(TRUE, FALSE), region, readout)


def test_contradictory_strict_comparisons_are_refuted_exactly():
    rng = np.random.default_rng(1)
    readout, region = readout_of(rng, 5), box_around(rng, 5, 1.0)
    formula = all_of(stronger(0, 1), negate(stronger(0, 1)))
    outcome = search(formula, region, readout)
    assert refutes(outcome.proof, formula, region, readout)
    assert outcome.slack == 0.0


def test_a_cycle_of_strict_comparisons_is_refuted():
    rng = np.random.default_rng(2)
    readout, region = readout_of(rng, 6), box_around(rng, 6, 1.0)
    formula = all_of(stronger(0, 1), stronger(1, 2), stronger(2, 0))
    outcome = search(formula, region, readout)
    assert outcome.proof is not None or outcome.reason == "boundary"
    assert outcome.witness is None


def test_no_time_is_no_verdict():
    rng = np.random.default_rng(3)
    readout, region = readout_of(rng, 4), box_around(rng, 4, 0.5)
    formula = all_of(stronger(0, 1), negate(stronger(0, 1)))
    outcome = search(formula, region, readout, timeout_s=-1.0)
    assert outcome.proof is None
    assert outcome.witness is None
    assert outcome.reason == "timeout"


def test_a_formula_too_deep_is_unsupported_not_a_crash():
    rng = np.random.default_rng(4)
    readout, region = readout_of(rng, 4), box_around(rng, 4, 0.5)
    both = all_of(stronger(0, 1), negate(stronger(0, 1)))
    formula = any_of(*[both] * 700)
    assert search(formula, region, readout).reason.startswith("unsupported")


def test_two_of_three_classes_above_a_third():
    rng = np.random.default_rng(5)
    readout, region = readout_of(rng, 4), box_around(rng, 4, 0.5)
    formula = all_of(*(predicts(readout, k) for k in range(3)))
    outcome = search(formula, region, readout)
    assert refutes(outcome.proof, formula, region, readout)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_settled_parts_change_no_value(seed):
    rng = np.random.default_rng(seed)
    leaves = [stronger(a, b) for a in range(3) for b in range(3) if a != b]
    bounds = {leaf: tuple(np.sort(rng.normal(size=2)).tolist()) for leaf in leaves}

    def draw(depth):
        if depth == 0 or rng.random() < 0.3:
            return leaves[int(rng.integers(6))]
        n = int(rng.integers(1, 4))
        return AtLeast(int(rng.integers(0, n + 2)), tuple(draw(depth - 1) for _ in range(n)))

    formula, truths = draw(3), Truths(bounds)
    simple = truths.simplify(formula)
    values = np.array([rng.uniform(*bounds[leaf], size=20) for leaf in leaves])
    number = {leaf: i for i, leaf in enumerate(leaves)}

    def value(f):
        return margins(f, {id(c): number[c] for c in comparisons(f)}, values) > 0

    assert (value(formula) == value(simple)).all()
    if truths.of(formula) is not None:
        assert simple in (TRUE, FALSE)


@pytest.mark.parametrize(
    ("n", "expected"), [(0, np.inf), (1, 3.0), (2, 2.0), (3, 1.0), (4, -np.inf)]
)
def test_margin_is_that_of_the_nth_part(n, expected):
    parts = tuple(stronger(0, k) for k in (1, 2, 3))
    places = {id(part): i for i, part in enumerate(parts)}
    assert margins(AtLeast(n, parts), places, np.array([[1.0], [3.0], [2.0]]))[0] == expected
