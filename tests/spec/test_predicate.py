import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faultlens.errors import InputError, SpecError
from faultlens.spec.formula import Comparison, comparisons, holds, negate
from faultlens.spec.ground import ground
from faultlens.spec.parse import parse
from faultlens.spec.predicate import KINDS, PREDICATES, Predicate, Quantity, Scope

CONCEPTS, CLASSES = ("wheels", "ears", "beak"), ("truck", "dog", "bird", "ship")
SCOPE = Scope(CONCEPTS, CLASSES, np.array([0.5, np.nan, -0.25]))
# Few distinct values, so that ties are common.
signals = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 20), st.just(7)), elements=st.integers(-2, 2).map(float)
)


quick = settings(max_examples=50, deadline=None)


def formula(text):
    (spec,) = ground(parse(text + ";"), SCOPE)
    return spec.goal


@quick
@given(signals, st.integers(0, 3))
def test_predict_is_the_only_largest_logit(x, k):
    logits = x[:, 3:]
    best = np.sort(logits, axis=1)
    oracle = (logits.argmax(axis=1) == k) & (best[:, -1] > best[:, -2])
    assert (holds(formula(f"predict({CLASSES[k]})"), x) == oracle).all()


@quick
@given(signals, st.integers(0, 3), st.integers(1, 4))
def test_top_is_a_place_among_the_first_where_ties_lose(x, k, rank):
    logits = x[:, 3:]
    is_own = np.arange(4) == k
    oracle = []
    for row in logits:
        order = sorted(range(4), key=lambda j: (-row[j], is_own[j]))
        oracle.append(order.index(k) < rank)
    assert holds(formula(f"top({rank}, {CLASSES[k]})"), x).tolist() == oracle
    if rank == 1:
        assert formula(f"top(1, {CLASSES[k]})") == formula(f"predict({CLASSES[k]})")


@quick
@given(signals)
def test_strength_and_logit_are_signals(x):
    assert (holds(formula("wheels > ears"), x) == (x[:, 0] > x[:, 1])).all()
    assert (holds(formula("wheels >= ears + 1"), x) == (x[:, 0] >= x[:, 1] + 1)).all()
    assert (holds(formula("logit(bird) <= 0"), x) == (x[:, 5] <= 0)).all()
    chain = (x[:, 0] > x[:, 1]) & (x[:, 1] >= x[:, 2])
    assert (holds(formula("wheels > ears >= beak"), x) == chain).all()


def test_has_con_takes_the_calibrated_threshold_or_the_given_one():
    x = np.array([[0.5, 0, -0.25, 0, 0, 0, 0], [0.6, 0, -0.2, 0, 0, 0, 0]])
    assert holds(formula("hasCon(wheels)"), x).tolist() == [False, True]
    assert holds(formula("hasCon(x, beak)"), x).tolist() == [False, True]
    assert holds(formula("hasCon(wheels, >= 0.5)"), x).tolist() == [True, True]
    assert holds(formula("hasCon(x, wheels, > 0.5)"), x).tolist() == [False, True]


@pytest.mark.parametrize("text", ["predict(dog)", "top(2, ship)", "hasCon(wheels)", "ears > beak"])
def test_a_predicate_and_its_negation_never_agree(text):
    x = np.random.default_rng(0).integers(-1, 2, (200, 7)).astype(float)
    assert (holds(negate(formula(text)), x) == ~holds(formula(text), x)).all()
    assert (holds(formula(f"not {text}"), x) == ~holds(formula(text), x)).all()


@pytest.mark.parametrize("name", list(PREDICATES))
def test_every_entry_has_a_signature_and_a_meaning(name):
    entry = PREDICATES.load(name)
    assert set(entry.signature) <= set(KINDS)
    values = {"concept": 1, "class": 2, "rank": 2, "threshold": (">", 0.0)}
    args = [values[kind] for kind in entry.signature]
    if isinstance(entry, Quantity):
        assert entry.signal(SCOPE, *args) in range(7)
    else:
        assert isinstance(entry, Predicate)
        leaves = list(comparisons(entry.meaning(SCOPE, *args)))
        assert leaves
        assert all(c.terms == tuple(sorted(c.terms)) for c in leaves)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hasCon(ears)", "hasCon must have a threshold, got none for 'ears'; write it as a second"),
        ("hasCon(ears, 1)", "a threshold must be written as '> 0.1' or '>= 0.1'"),
        ("hasCon(ears, < 1)", "a threshold must be written as '> 0.1' or '>= 0.1'"),
        ("top(0, dog)", "a rank must be a whole number from 1 to 4"),
        ("top(1.5, dog)", "a rank must be a whole number from 1 to 4"),
        ("top(5, dog)", "a rank must be a whole number from 1 to 4"),
        ("top(dog, 1)", "a rank must be a whole number from 1 to 4"),
        ("top(1, 1)", "a class must be a name, got a number"),
        ("predict(dog, truck)", "call must be predict(class), got 2 argument(s)"),
        ("hasCon", "call must be hasCon(concept, threshold), got 0 argument(s)"),
        ("str(ears)", "str(…) must be compared with something, such as > 0"),
        ("predict(dog) > 1", "'predict'; that holds or not, and has no size to compare"),
        ("size(ears) > 1", "quantity must be a known name, got 'size'; known: 'logit', 'str'"),
    ],
)
def test_wrong_arguments(text, message):
    with pytest.raises(SpecError) as caught:
        formula(text)
    assert message in str(caught.value)
    assert "^" in str(caught.value)


def test_a_scope_is_checked():
    with pytest.raises(InputError, match="concepts and classes must each be named once"):
        Scope(("a", "a"), ("k",))
    with pytest.raises(InputError, match=r"thresholds must be \(1,\), got \(2,\)"):
        Scope(("a",), ("k",), np.zeros(2))
    with pytest.raises(InputError, match=r"relevant must be \(1, 1\), got \(1, 2\)"):
        Scope(("a",), ("k",), None, np.zeros((1, 2), bool))


def test_one_class_is_always_predicted():
    (spec,) = ground(parse("predict(k);"), Scope(("a",), ("k",)))
    assert holds(spec.goal, np.zeros((3, 2))).all()
    assert Comparison(((0, 1.0),)) == next(
        comparisons(next(ground(parse("a > 0;"), Scope(("a",), ("k",)))).goal)
    )
