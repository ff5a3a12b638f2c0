"""Sums, counts and checks have the same bits however work and shards are cut."""

import numpy as np
import pytest

import scaling
from faultlens import alignment
from faultlens.alignment import BLOCK, PART, AlignmentSums, fit
from faultlens.errors import InputError, ShapeError, StoreError
from faultlens.heatmaps import ClassCounts
from faultlens.scale.aligning import TUNE_EVERY, align_job
from faultlens.scale.checks import MAX_ROWS, check_job
from faultlens.scale.counting import Concepts, count_job
from faultlens.scale.job import run
from faultlens.scale.local import Local
from faultlens.scale.ranks import Ranks
from faultlens.spec import parse
from faultlens.spec.check import Images, Rule, check
from faultlens.spec.ground import ground
from faultlens.spec.predicate import Scope

FIELDS = ("z", "v", "zz", "zv", "vv")
CONCEPTS = ("wheels", "wings", "hair", "horns")
CLASSES = ("truck", "plane", "dog")
SPECS = """
spec fast: predict(truck) => wheels > wings;
"""


@pytest.fixture(scope="module")
def concepts():
    rng = np.random.default_rng(1)
    return Concepts(CONCEPTS, CLASSES, rng.normal(size=(4, 6)), rng.normal(size=4))


@pytest.fixture(scope="module")
def stores(tmp_path_factory, data):
    """The same rows twice, cut otherwise; a few rows could not be computed."""
    folder = tmp_path_factory.mktemp("stores")
    found = []
    for shard_rows in (100_000, 7_777):
        model = {"embedding": data["z"], "logits": data["logits"]}
        notes = {5: "mud", 200_001: "mud"}
        found.append((
            scaling.fill(folder / f"model{shard_rows}", model, shard_rows, notes),
            scaling.fill(folder / f"vlm{shard_rows}", {"embedding": data["v"]}, 2 * shard_rows),
        ))  # fmt: skip
    return found


def test_sums_of_parts_are_the_sums_of_all_bit_for_bit(data):
    z, v = data["z"], data["v"]
    whole = AlignmentSums.of(z, v, n_threads=1)
    parts = [AlignmentSums.of(z[i : i + PART], v[i : i + PART], 2) for i in range(0, len(z), PART)]
    before = parts[0].zz.copy()
    total = AlignmentSums.total(parts)
    assert total.n == whole.n == len(z)
    for name in FIELDS:
        assert (getattr(total, name) == getattr(whole, name)).all()
    assert (parts[0].zz == before).all()  # adding up changes none of its parts


def test_threads_do_not_change_a_bit_of_the_sums(data):
    z, v = data["z"][: 3 * BLOCK + 17], data["v"][: 3 * BLOCK + 17]
    one, three = (AlignmentSums.of(z, v, n) for n in (1, 3))
    assert all((getattr(one, f) == getattr(three, f)).all() for f in FIELDS)


def maps(stores, tmp_path):
    for i, (pair, runner) in enumerate(
        [(stores[0], Local()), (stores[0], Local(2)), (stores[1], Local(2))]
    ):
        yield run(align_job(*pair, tmp_path / str(i)), runner)


def test_the_map_is_the_same_whatever_the_workers_and_shards(stores, data, tmp_path):
    found = list(maps(stores, tmp_path))
    good = np.ones(len(data["z"]), bool)
    good[[5, 200_001]] = False
    tune = (np.arange(len(good)) % TUNE_EVERY == 0)[good]
    z, v = data["z"][good], data["v"][good]
    expected = fit(AlignmentSums.of(z[~tune], v[~tune]), AlignmentSums.of(z[tune], v[tune]))
    for fitted in found:
        assert fitted.n == len(z)
        assert (fitted.weight == found[0].weight).all()
        assert (fitted.bias == found[0].bias).all()
        assert fitted.ridge == expected.ridge
        assert np.allclose(fitted.weight, expected.weight, atol=1e-5)


def test_counts_are_those_of_all_rows_at_once(stores, data, concepts, tmp_path):
    good = np.setdiff1d(np.arange(len(data["z"])), [5, 200_001])
    z, predictions = data["z"][good], data["logits"][good].argmax(axis=1)
    strengths = concepts.strengths(z).astype(np.float32)
    expected = ClassCounts.of(strengths, data["labels"][good], predictions, CONCEPTS, CLASSES)
    np.save(tmp_path / "labels.npy", data["labels"].astype(np.int16))
    cases = [(stores[0], data["labels"], Local()), (stores[1], tmp_path / "labels.npy", Local(2))]
    for i, ((model, _), labels, runner) in enumerate(cases):
        found = run(count_job(model, labels, concepts, tmp_path / str(i)), runner)
        for part in ("correct", "false_negative", "false_positive"):
            assert (getattr(found, part).n == getattr(expected, part).n).all()
            assert (getattr(found, part).wins == getattr(expected, part).wins).all()


def test_a_check_in_parts_is_the_check_of_all_rows(stores, data, concepts, tmp_path):
    suite = list(ground(parse.parse(SPECS), Scope(CONCEPTS, CLASSES)))
    good = np.setdiff1d(np.arange(len(data["z"])), [5, 200_001])
    strengths, logits = concepts.strengths(data["z"]), data["logits"]
    signals = np.concatenate([strengths, logits], axis=1)[good]
    images = Images(signals, data["labels"][good], logits[good].argmax(axis=1))
    expected = check(suite, images, Rule(0.5))
    model = stores[1][0]
    for runner in (Local(), Local(2)):
        job = check_job(suite, model, data["labels"], concepts, tmp_path / "c", Rule(0.5))
        for tally, checked in zip(run(job, runner), expected, strict=True):
            assert (tally.n, tally.n_holds) == (checked.n, checked.n_holds)
            assert (tally.verdict, tally.reason) == (checked.verdict, checked.reason)
            assert (tally.interval, tally.p_holds) == (checked.interval, checked.p_holds)
            assert tally.rows.tolist() == good[checked.seen.violations][:MAX_ROWS].tolist()
            assert tally.violated.sum() == tally.n - tally.n_holds
            assert tally.rate == checked.rate


def test_ranks_leave_their_parts_and_damaged_ones_are_made_again(stores, data, concepts, tmp_path):
    def job():
        return count_job(stores[0][0], data["labels"], concepts, tmp_path)

    assert run(job(), Ranks(1, 2)) is None
    assert [job().is_done(p) for p in range(3)] == [False, True, False]
    first = run(job(), Ranks(0, 2))
    path = next(tmp_path.rglob("part-00001*"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert [job().is_done(p) for p in range(3)] == [True, False, True]
    with pytest.raises(StoreError, match="run the command again"):
        job().collect()
    again = run(job())
    assert (again.correct.wins == first.correct.wins).all()


def test_other_labels_are_another_result(stores, data, concepts, tmp_path):
    one = count_job(stores[0][0], data["labels"], concepts, tmp_path)
    other = count_job(stores[0][0], (data["labels"] + 1) % 3, concepts, tmp_path)
    assert one.key != other.key


def test_what_does_not_fit_is_told_before_anything_is_computed(stores, data, concepts, tmp_path):
    model, vlm = stores[0]
    with pytest.raises(ShapeError, match="labels must be 270000 integers"):
        count_job(model, data["labels"][1:], concepts, tmp_path)
    with pytest.raises(ShapeError, match=r"labels must lie in 0 … 2, got 0 to 3"):
        count_job(model, data["labels"] + (data["labels"] == 2), concepts, tmp_path)
    with pytest.raises(InputError, match="must have a column 'logits'"):
        count_job(vlm, data["labels"], Concepts(("a",), CLASSES, np.ones((1, 5)), np.ones(1)), ".")
    wide = Concepts(("a",), CLASSES, np.ones((1, 9)), np.ones(1))
    with pytest.raises(ShapeError, match="column 'embedding' must be 9 wide"):
        count_job(model, data["labels"], wide, tmp_path)
    with pytest.raises(ShapeError, match="one row a concept"):
        Concepts(("a", "b"), CLASSES, np.ones((1, 9)), np.ones(1))
    small = scaling.fill(tmp_path / "small", {"embedding": data["v"][:99]}, 64)
    with pytest.raises(InputError, match="got 270000 and 99 rows"):
        align_job(model, small, tmp_path)


def test_concepts_of_a_map_are_centred_strengths():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(50, 6))
    fitted = alignment.align(z, rng.normal(size=(50, 5)), np.arange(50) % 5 == 0)
    q, centre = rng.normal(size=(4, 5)), rng.normal(size=4)
    found = Concepts.of(CONCEPTS, CLASSES, fitted, q, centre).strengths(z)
    assert np.allclose(found, fitted(z) @ q.T - centre, atol=1e-5)
