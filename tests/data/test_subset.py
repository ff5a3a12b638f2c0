import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultlens.data.subset import check_indices, stratified_order
from faultlens.errors import InputError, ShapeError

labels_lists = st.lists(st.integers(0, 4), min_size=1, max_size=80)


@given(labels_lists, st.integers(1, 80))
def test_every_beginning_keeps_the_shares(labels, n):
    labels = np.array(labels)
    order = stratified_order([f"{i}.png" for i in range(len(labels))], labels)
    assert sorted(order) == list(range(len(labels)))
    present = len(np.unique(labels))
    n = min(max(n, present), len(labels))
    taken = np.bincount(labels[order[:n]], minlength=5)
    share = n * np.bincount(labels, minlength=5) / len(labels)
    assert ((taken > 0) == (share > 0)).all()
    # The image that each class gets first may come at the cost of the others.
    assert (np.abs(taken - share) <= present).all()
    assert (taken <= np.maximum(np.ceil(share + 0.5), 1)).all()


@given(labels_lists, st.randoms(use_true_random=False))
def test_the_choice_follows_the_names_not_their_order(labels, random):
    rows = [(f"{i}.png", label) for i, label in enumerate(labels)]
    shuffled = random.sample(rows, len(rows))

    def first_half(rows):
        names = [name for name, _ in rows]
        order = stratified_order(names, np.array([label for _, label in rows]))
        return {names[i] for i in order[: len(rows) // 2]}

    assert first_half(rows) == first_half(shuffled)


def test_indices_and_masks():
    assert check_indices(np.array([2, 0], np.uint8), 3).tolist() == [2, 0]
    assert check_indices([], 3).tolist() == []
    assert check_indices([False, True, True], 3).tolist() == [1, 2]


@pytest.mark.parametrize("indices", [[0.5], [[0]], [True, False], ["a"]])
def test_neither_indices_nor_mask(indices):
    with pytest.raises(ShapeError, match=r"must be \(M,\) integers or an \(3,\) mask"):
        check_indices(indices, 3)


@pytest.mark.parametrize("indices", [[3], [-1]])
def test_indices_outside(indices):
    with pytest.raises(InputError, match=f"must lie in 0 to 2, got {indices[0]} to"):
        check_indices(indices, 3)
