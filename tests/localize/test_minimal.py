import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import localize_oracles as oracles
from faultlens.errors import InputError
from faultlens.localize import minimal
from faultlens.localize.causal import Part
from faultlens.localize.erase import leace_eraser, orthogonal_eraser
from faultlens.localize.minimal import smallest_set
from faultlens.models.head import Head


def planted(seed, culprits, n=300, c=6, d=12):
    """Class 1 where the first axis is positive; the head also listens to some concepts."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    y = (z[:, 0] > 0).astype(int)
    z[:, 0] += np.where(y == 1, 0.3, -0.3)
    axes = np.eye(d)[1 : c + 1]
    row = np.eye(d)[0] + 3 * axes[list(culprits)].sum(axis=0)
    head = Head((np.stack([-row, row]),), (np.zeros(2),))
    return z, y, orthogonal_eraser(axes, np.zeros(d)), head


def test_the_culprits_are_found_and_nothing_else():
    z, y, eraser, head = planted(0, (1, 3, 4))
    found = smallest_set([Part(eraser, z, y)], head, required=0.95, is_affine=True)
    assert found.smallest.concepts == (1, 3, 4)
    assert found.smallest.share == 1
    assert [len(s.concepts) for s in found.by_size] == [0, 1, 2, 3]
    shares = [s.share for s in found.by_size]
    assert shares == sorted(shares)
    assert found.is_exact
    assert found.bound == 1


def random_world(seed, c=4, d=6, k=3, n=60):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) + 0.5
    weight = rng.normal(size=(k, d))
    y = (z @ (weight + rng.normal(size=(k, d))).T).argmax(axis=1)
    return z, y, rng.normal(size=(c, d)), lambda x: x @ weight.T + 0.1


@given(st.integers(0, 2**31), st.sampled_from(minimal.GOALS), st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=25, deadline=None)
def test_the_exact_search_equals_its_twin(seed, goal, required):
    z, y, directions, head = random_world(seed)
    mean = z.mean(axis=0)
    part = Part(orthogonal_eraser(directions, mean), z, y)
    n = int((head(z).argmax(axis=1) != y).sum())
    expected = oracles.smallest(part, head, mean, directions, goal, max(1, np.ceil(required * n)))
    for is_affine in (True, False):
        found = smallest_set([part], head, goal, required, 4, is_affine)
        assert found.n == n
        if not expected or n == 0:
            assert found.smallest is None
            continue
        best = max(expected.values())
        assert found.smallest.count == best
        assert len(found.smallest.concepts) == len(next(iter(expected)))
        assert expected[found.smallest.concepts] == best
        assert found.smallest.share <= found.bound


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_no_set_serves_more_than_the_bound(seed):
    z, y, directions, head = random_world(seed, c=3)
    for eraser in (
        orthogonal_eraser(directions, z.mean(axis=0)),
        leace_eraser(z, z @ directions.T),
    ):
        for goal in ("truth", "away"):
            found = smallest_set([Part(eraser, z, y)], head, goal, 1.0, 3, is_affine=True)
            for chosen in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
                erased = oracles.served(z, y, head, eraser.only(chosen), goal)
                assert erased <= round(found.bound * found.n)


def test_what_no_set_can_do_is_known_before_any_search():
    z, y, eraser, head = planted(1, (2,))
    blind = eraser.only([0, 1, 3])
    found = smallest_set([Part(blind, z, y)], head, required=0.5, is_affine=True)
    assert found.bound == 0
    assert found.smallest is None
    assert len(found.by_size) == 1  # only the empty set was looked at


def test_greedy_finds_the_planted_set_among_many_and_drops_what_is_dispensable(monkeypatch):
    z, y, eraser, head = planted(2, (1, 7, 12), c=20, d=24)
    part = Part(eraser, z, y)
    found = smallest_set([part], head, required=0.95, is_affine=True)
    assert not found.is_exact
    assert found.smallest.concepts == (1, 7, 12)
    search = minimal._Search((minimal._Errors.of(part, head, "truth", True),), "truth", 20)
    assert search.pruned((0, 1, 5, 7, 12), int(0.95 * found.n)) == (1, 7, 12)


def test_greedy_is_never_better_than_exact_and_mostly_as_good(monkeypatch):
    same = 0
    for seed in range(20):
        z, y, directions, head = random_world(seed, c=5)
        part = Part(orthogonal_eraser(directions, z.mean(axis=0)), z, y)
        exact = smallest_set([part], head, required=0.4, max_size=5, is_affine=True)
        monkeypatch.setattr(minimal, "EXACT_CONCEPTS", 0)
        greedy = smallest_set([part], head, required=0.4, max_size=5, is_affine=True)
        monkeypatch.undo()
        if exact.smallest is None:
            assert greedy.smallest is None
        elif greedy.smallest is not None:
            assert len(greedy.smallest.concepts) >= len(exact.smallest.concepts)
        sizes = [s.smallest and len(s.smallest.concepts) for s in (exact, greedy)]
        same += sizes[0] == sizes[1]
    assert same >= 16


def test_the_abductive_set_alone_keeps_the_error():
    z, y, eraser, head = planted(3, (1, 4))
    # All that the head hears beside the concepts is silenced: they alone decide.
    row = head.weight[1].copy()
    row[0] = 0
    deaf = Head((np.stack([-row, row]),), (np.zeros(2),))
    found = smallest_set([Part(eraser, z, y)], deaf, "keep", 1.0, is_affine=True)
    assert found.smallest.concepts == (1, 4)
    assert found.smallest.share == 1


def test_parts_add_up():
    z, y, eraser, head = planted(4, (0, 2))
    whole = smallest_set([Part(eraser, z, y)], head, required=0.9, is_affine=True)
    parts = [Part(eraser, z[i::2], y[i::2]) for i in range(2)]
    assert smallest_set(parts, head, required=0.9, is_affine=True) == whole


def test_a_group_without_errors_has_no_set():
    z, y, eraser, head = planted(5, ())
    found = smallest_set([Part(eraser, z, y)], head, is_affine=True)
    assert (found.n, found.smallest) == (0, None)


def test_mistakes_are_told():
    z, y, eraser, head = planted(6, (0,))
    part = Part(eraser, z, y)
    with pytest.raises(InputError, match="did you mean 'truth'"):
        smallest_set([part], head, "thruth")
    with pytest.raises(InputError, match="required must be in"):
        smallest_set([part], head, required=50)
    with pytest.raises(InputError, match="max_size must be at least 1"):
        smallest_set([part], head, max_size=0)
    with pytest.raises(InputError, match="at least one part"):
        smallest_set([], head)
