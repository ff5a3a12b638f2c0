import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.spec.formula import AtLeast, Comparison, holds, negate
from faultlens.spec.margin import margins

leaves = st.builds(
    lambda i, j, w, c, strict: Comparison(
        ((i, w),) if i == j else ((min(i, j), w), (max(i, j), -w)), c, strict
    ),
    st.integers(0, 4), st.integers(0, 4), st.sampled_from([-2.0, 1.0]),
    st.sampled_from([0.0, 0.5]), st.booleans(),
)  # fmt: skip
formulas = st.recursive(
    leaves,
    lambda inner: st.builds(AtLeast, st.integers(0, 3), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(formulas, st.integers(0, 2**16))
def test_the_sign_of_the_margin_says_whether_a_formula_holds(formula, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 5))
    x[:, 4] = rng.choice([-1.0, 1.0], 30)
    margin, held = margins(formula, x, 4), holds(formula, x)
    assert held[margin > 0].all()
    assert not held[margin < 0].any()
    assert (margins(negate(formula), x, 4) == -margin).all()


def test_a_margin_does_not_depend_on_units():
    x = np.random.default_rng(0).normal(size=(50, 2))
    leaf = Comparison(((0, 1.0),))
    assert np.allclose(margins(leaf, x, 2), margins(leaf, 7 * x, 2))


def test_what_is_known_for_sure_has_no_size():
    x = np.array([[0.3, 1.0], [0.3, -1.0]])
    assert margins(Comparison(((1, 1.0),)), x, 1).tolist() == [np.inf, -np.inf]
    assert margins(Comparison(((0, 1.0),)), x, 1).tolist() == [np.inf, np.inf]
    assert margins(AtLeast(0, ()), x, 1).tolist() == [np.inf, np.inf]
    assert margins(AtLeast(1, ()), x, 1).tolist() == [-np.inf, -np.inf]
