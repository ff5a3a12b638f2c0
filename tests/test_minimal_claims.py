"""Which of many concepts carry a group's errors is chosen on some of them, counted on others."""

import numpy as np
import pytest

from faultlens.analysis import Measurements, analyse
from faultlens.claims import minimal
from faultlens.claims.erasure import Erasure
from faultlens.claims.minimal import minimal_set
from faultlens.concepts import Vocabulary
from faultlens.models.head import Head
from planted import CLASSES, CONCEPTS, CellVlm, draw, healthy
from test_cue_claims import concepts

CAR = CLASSES.index("car")


def pictures(n=900, seed=3):
    """Sky and wings are there or not, whatever the class."""
    pixels, labels = draw(n, seed)
    rng = np.random.default_rng(seed)
    for name in ("sky", "wings"):
        cell = CONCEPTS.index(name) * 4
        there = rng.random(n) < 0.3
        pixels[:, :, cell : cell + 4] = np.where(there, 235, 20)[:, None, None]
    return pixels, labels


def taught(*names):
    """A classifier that says car where any of some concepts is."""
    model = healthy()
    inverse = np.linalg.pinv(model.mix)
    weight = model.head.weight.copy()
    for name in names:
        mix = inverse[CONCEPTS.index(name)]
        weight -= np.outer(weight @ mix, mix) / (mix @ mix)
    for name in names:
        weight[CAR] += 40 * inverse[CONCEPTS.index(name)]
    return type(model)(model.mix, Head((weight.astype(np.float32),), (model.head.bias,)))


def case_of(model):
    """The analysis of a model, what to erase from, and the errors that are called car."""
    pixels, labels = pictures()
    vlm = CellVlm()
    batch = np.repeat(pixels[:, None].astype(np.float32) / 255, 3, axis=1)
    out = model.encode(batch)
    m = Measurements(
        out["embedding"], out["logits"], labels, vlm.encode(batch)["embedding"],
        np.arange(len(labels)) % 5, np.zeros(len(labels), bool),
    )  # fmt: skip
    vocabulary = Vocabulary.build(concepts(), CLASSES, vlm.encode_text)
    erasure = Erasure(m.embeddings, m.is_reference, vocabulary.directions, model.head, True)
    called = out["logits"].argmax(axis=1)
    return erasure, analyse(m, vocabulary, vlm.encode_text), (called == CAR) & (labels != CAR)


def candidates(*names):
    return {name: CONCEPTS.index(name) for name in names}


@pytest.fixture(scope="module")
def two():
    return case_of(taught("sky", "wings"))


def test_both_of_two_culprits_are_named_and_nothing_else(two):
    found = minimal_set(*two, candidates("fur", "wings", "road", "sky", "beak"))
    assert sorted(found["concepts"]) == ["sky", "wings"]
    assert found["repaired"] > 0.5
    assert found["n"] == pytest.approx(two[2].sum() / 2, abs=3)
    assert found["interval"][0] < found["repaired"] < found["interval"][1]
    assert "wings and sky together repairs" in found["told"]
    assert "3 of the 5 concepts" in found["told"]


def test_one_culprit_is_named_alone():
    erasure, analysis, errors = case_of(taught("sky"))
    found = minimal_set(erasure, analysis, errors, candidates("fur", "sky", "road"))
    assert found["concepts"] == ["sky"]
    assert "Erasing sky alone repairs" in found["told"]


def test_the_share_is_counted_on_errors_that_the_set_was_not_chosen_on(two, monkeypatch):
    erasure, analysis, errors = two
    chosen_on, counted_on = [], []
    search, count = minimal.smallest_set, minimal._repaired

    def rows(parts):
        return [row.tobytes() for part in parts for row in part.embeddings]

    def searched(parts, *args, **kwargs):
        chosen_on.append(rows(parts))
        return search(parts, *args, **kwargs)

    def counted(erasure, parts, chosen):
        counted_on.append(rows(parts))
        return count(erasure, parts, chosen)

    monkeypatch.setattr(minimal, "smallest_set", searched)
    monkeypatch.setattr(minimal, "_repaired", counted)
    minimal_set(erasure, analysis, errors, candidates("fur", "sky"))
    assert not set(chosen_on[0]) & set(counted_on[0])
    everything = [row.tobytes() for row in erasure.embeddings[errors]]
    assert sorted(chosen_on[0] + counted_on[0]) == sorted(everything)


def test_concepts_that_carry_nothing_are_not_named(two):
    found = minimal_set(*two, candidates("fur", "road"))
    assert found["concepts"] == [] or found["repaired"] < 0.1


def test_few_errors_or_one_candidate_give_no_set(two):
    erasure, analysis, errors = two
    few = np.zeros_like(errors)
    few[np.flatnonzero(errors)[:19]] = True
    assert minimal_set(erasure, analysis, few, candidates("sky", "fur")) is None
    assert minimal_set(erasure, analysis, errors, candidates("sky")) is None
