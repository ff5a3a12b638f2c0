import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import localize_oracles as oracles
from faultlens.errors import InputError, ShapeError
from faultlens.localize.counterfactual import (
    ConceptMoves,
    Counterfactual,
    concept_moves,
    describe,
    smallest_edits,
)
from faultlens.localize.erase import leace_eraser, orthogonal_eraser
from faultlens.localize.swap import RefittedHead
from faultlens.models.head import Head

NAMES = ("wet", "wheels", "fur", "long", "tall", "text")


def world(seed, k=4, c=3, d=5, n=6):
    rng = np.random.default_rng(seed)
    head = Head((rng.normal(size=(k, d)),), (rng.normal(size=k),))
    moves = ConceptMoves(NAMES[:c], rng.normal(size=(c, d)), rng.uniform(0.5, 2, c))
    return rng.normal(size=(n, d)) * 2, rng.integers(0, k, n), head, moves


def constraints(z, target, head, moves, margin):
    others = [k for k in range(head.n_classes) if k != target]
    w = head.weight.astype(float)
    lead = head(z[None].astype(float))[0]
    gains = (w[target] - w[others]) @ moves.moves.T
    return gains, lead[others] - lead[target] + margin


@pytest.mark.parametrize("norm", ["l2", "l1"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_no_edit_is_cheaper(norm, seed):
    z, y, head, moves = world(seed)
    twin = {"l2": oracles.least_squares, "l1": oracles.least_sum}[norm]
    for image, edit in zip(z, smallest_edits(z, y, head, moves, norm), strict=True):
        gains, needed = constraints(image, edit.target, head, moves, 1e-3)
        best = twin(gains, needed, moves.price)
        if not edit.is_found:
            assert best is None or best > 100
            continue
        assert edit.cost == pytest.approx(best, rel=1e-5, abs=1e-7)
        assert (gains @ edit.amounts >= needed - 1e-6 * (1 + np.abs(needed))).all()
        price = moves.price
        size = {"l2": np.sqrt((price * edit.amounts**2).sum()), "l1": price @ np.abs(edit.amounts)}
        assert edit.cost == pytest.approx(size[norm])


def test_the_prediction_is_the_heads_own():
    z, y, head, moves = world(3, n=40)
    edits = smallest_edits(z, y, head, moves)
    assert sum(e.is_found for e in edits) > 20
    for image, edit in zip(z, edits, strict=True):
        again = head((image + np.nan_to_num(edit.amounts) @ moves.moves)[None]).argmax()
        assert edit.prediction == again
        if edit.is_found:
            assert again == edit.target
            almost = head((image + 0.98 * edit.amounts @ moves.moves)[None])[0]
            if edit.cost > 0.5:
                assert almost.argmax() != edit.target


def test_one_rival_has_a_closed_form():
    head = Head((np.array([[1.0, 2.0], [0.0, 0.0]]),), (np.zeros(2),))
    moves = ConceptMoves(("a", "b"), np.eye(2), np.array([1.0, 4.0]))
    [edit] = smallest_edits(np.array([[3.0, 1.0]]), np.array([1]), head, moves, margin=0.5)
    # Minimise a² + 4 b² subject to a + 2 b <= -5.5.
    assert edit.amounts == pytest.approx([-2.75, -1.375])
    assert edit.cost == pytest.approx(np.sqrt(2.75**2 + 4 * 1.375**2))


def test_l1_names_fewer_concepts():
    z, y, head, moves = world(5, k=3, c=6, d=8, n=40)
    wide = smallest_edits(z, y, head, moves, "l2")
    few = smallest_edits(z, y, head, moves, "l1")
    changed = [
        (np.count_nonzero(np.abs(a.amounts) > 1e-9), np.count_nonzero(np.abs(b.amounts) > 1e-9))
        for a, b in zip(few, wide, strict=True)
        if a.is_found and a.cost > 0
    ]
    assert len(changed) > 15
    assert all(a <= 2 for a, _ in changed)  # never more than there are rivals
    assert all(b == 6 for _, b in changed)


def test_images_that_are_right_need_no_edit():
    z, _, head, moves = world(6)
    for norm in ("l2", "l1"):
        for edit in smallest_edits(z, head(z).argmax(axis=1), head, moves, norm, 1e-9):
            assert edit.cost == 0
            assert describe(edit, moves.concepts, "abcd") == f"is {'abcd'[edit.target]} already"


def test_what_concepts_cannot_change_is_said():
    head = Head((np.array([[1.0, 0.0], [0.0, 0.0]]),), (np.zeros(2),))
    deaf = ConceptMoves(("wet",), np.array([[0.0, 1.0]]), np.ones(1))
    for norm in ("l2", "l1"):
        [edit] = smallest_edits(np.array([[3.0, 0.0]]), np.array([1]), head, deaf, norm)
        assert not edit.is_found
        assert np.isnan(edit.amounts).all()
        assert np.isnan(edit.cost)
        assert edit.prediction == 0
    said = describe(edit, deaf.concepts, ("ship", "truck"))
    assert said == "would not be truck by any change of these concepts"


def test_rivals_that_pull_apart_are_no_solution():
    # Class 2 wants the concept up against class 0 and down against class 1, both by far.
    head = Head((np.array([[1.0], [-1.0], [0.0]]),), (np.array([5.0, 5.0, 0.0]),))
    moves = ConceptMoves(("wet",), np.ones((1, 1)), np.ones(1))
    for norm in ("l2", "l1"):
        [edit] = smallest_edits(np.zeros((1, 1)), np.array([2]), head, moves, norm)
        assert not edit.is_found


def test_a_head_that_is_not_affine_is_caught_by_asking_it():
    chain = Head((np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0]])), (np.zeros(2), np.zeros(2)))
    moves = ConceptMoves(("a",), np.array([[-1.0, 0.0]]), np.ones(1))
    [edit] = smallest_edits(np.array([[2.0, -1.0]]), np.array([1]), chain, moves)
    assert not edit.is_found


def test_classes_that_are_never_answered_are_no_rivals():
    z, y, head, moves = world(7)
    bias = np.r_[head.bias, -np.inf]
    refit = RefittedHead(np.vstack([head.weight, np.ones(5)]), bias, 1.0, 9)
    for a, b in zip(
        smallest_edits(z, y, head, moves), smallest_edits(z, y, refit, moves), strict=True
    ):
        assert np.allclose(a.amounts, b.amounts, equal_nan=True, atol=1e-6)
    [lost] = smallest_edits(z[:1], np.array([4]), refit, moves)
    assert not lost.is_found


@pytest.mark.parametrize("kind", ["orthogonal", "leace"])
def test_one_move_is_one_standard_deviation(kind):
    rng = np.random.default_rng(8)
    z = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 2
    directions = rng.normal(size=(2, 6))
    eraser = (
        orthogonal_eraser(directions, z.mean(axis=0))
        if kind == "orthogonal"
        else leace_eraser(z, z @ directions.T)
    )
    moves = concept_moves(("wet", "wheels"), eraser, z)
    spread = (z @ directions.T).std(axis=0)
    assert np.diag(moves.moves @ directions.T) == pytest.approx(spread)
    assert moves.price.tolist() == [1, 1]


def test_a_concept_that_never_varies_does_not_move():
    eraser = orthogonal_eraser(np.eye(2), np.zeros(2))
    moves = concept_moves(("a", "b"), eraser, np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert moves.moves.tolist() == [[1, 0], [0, 0]]


def test_words_name_the_largest_changes_first():
    classes = ("ship", "truck")
    edit = Counterfactual(1, np.array([-1.2, 0.8, 0.01, 0.0]), 1.4, 1)
    said = describe(edit, ("wet", "wheels", "fur", "long"), classes)
    assert said == "would be truck with less wet (1.2 sd), more wheels (0.8 sd)"
    many = Counterfactual(1, np.array([1.0, 2.0, -3.0, 0.5]), 4.0, 1)
    assert describe(many, ("wet", "wheels", "fur", "long"), classes) == (
        "would be truck with less fur (3.0 sd), more wheels (2.0 sd), more wet (1.0 sd), "
        "and smaller changes of others"
    )


def test_mistakes_are_told():
    z, y, head, moves = world(9)
    with pytest.raises(InputError, match=r"norm must be one of .* got 'l3'"):
        smallest_edits(z, y, head, moves, "l3")
    with pytest.raises(InputError, match="margin must be positive"):
        smallest_edits(z, y, head, moves, margin=0.0)
    with pytest.raises(ShapeError, match="to fit targets and moves"):
        smallest_edits(z[:, :2], y, head, moves)
    eraser = orthogonal_eraser(np.eye(5)[:2], np.zeros(5))
    with pytest.raises(InputError, match="must have 2 entries"):
        concept_moves(("a",), eraser, z)
    with pytest.raises(InputError, match="price must be positive"):
        concept_moves(("a", "b"), eraser, z, np.array([1.0, 0.0]))
